"""What a caption states about a scene, and how much of it holds: fact F1.

Any word sequence is read; words that are not understood are skipped, so nonsense states nothing. A **mention** is a
noun of the scenes ("circle", "circles") with the count, size and colour words right before it. It states facts:

* object: something of that shape is in the scene;
* colour: something of that shape and colour is;
* size: something of that shape, colour and size is;
* count: exactly so many match the mention as a whole ("a" and "one" state 1; no number word states no count).

A **relation** states that all objects of one mention stand so to all objects of another: "A left of B", "A above B
and C", "A between B and C", "A with B on its left", "A with B below it". A fact stated twice counts once.

* precision = stated facts that hold / stated facts (0 when none is stated);
* recall = objects of the scene that are stated / objects of the scene. An object is stated by a mention of its
  shape and its colour with no word against it; "a red circle" states one object even when there are two;
* fact F1 = 2 * precision * recall / (precision + recall), 0 when both are 0 and so for an empty caption.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from datamodules.scenes.generator import COLOURS, SHAPES, Scene
from datamodules.scenes.grammar import PLURALS, SIZE_WORDS
from datamodules.scenes.relations import Relation, relation_holds

KINDS = ("object", "colour", "size", "count", "relation")
"""Kinds of facts."""
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_NOUNS = {shape: (shape, False) for shape in SHAPES} | {plural: (shape, True) for shape, plural in PLURALS.items()}
_SIDES: dict[str, Relation] = {"left": "left", "right": "right"}
_VERTICAL: dict[str, Relation] = {"above": "above", "over": "above", "below": "below", "under": "below"}
_WORD = re.compile(r"[a-z]+")


@dataclass(slots=True, kw_only=True)
class Mention:
    """A noun with the words that describe it.

    Attributes:
        shape: one of the scenes' shapes.
        plural: the noun is in the plural.
        counts: numbers stated, none or more.
        colours: colours stated.
        sizes: sizes stated.
        start: index of its first word.
        end: index after its noun.
    """

    shape: str
    plural: bool
    start: int
    end: int
    counts: set[int] = field(default_factory=set)
    colours: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)

    def matches(self, scene: Scene) -> tuple[int, ...]:
        """Returns the indices of the objects that match all words of the mention."""
        return tuple(
            index
            for index, item in enumerate(scene.objects)
            if item.shape == self.shape and self.colours <= {item.colour} and self.sizes <= {item.size}
        )

    def key(self) -> tuple[object, ...]:
        """Returns what the mention says, without its place in the caption."""
        return self.shape, frozenset(self.colours), frozenset(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Everything that a caption states.

    Attributes:
        mentions: in order of the words.
        relations: (mention, relation, mention), by position in `mentions`.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, Relation, int], ...]
    between: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FactCounts:
    """Counts that fact F1 is made of.

    Attributes:
        stated: different facts stated.
        true: those of them that hold.
        objects: objects in the scene.
        found: those of them that are stated.
        kinds: for each of `KINDS` the facts stated, and those of them that hold.
    """

    stated: int
    true: int
    objects: int
    found: int
    kinds: tuple[tuple[int, int], ...] = ((0, 0),) * len(KINDS)

    @property
    def precision(self) -> float:
        """Share of the stated facts that hold."""
        return self.true / self.stated if self.stated else 0.0

    @property
    def recall(self) -> float:
        """Share of the scene's objects that are stated."""
        return self.found / self.objects if self.objects else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def parse_caption(caption: str) -> Statement:
    """Reads what a caption states; see the module's docstring.

    >>> statement = parse_caption("Two red circles left of a big square.")
    >>> [(m.shape, m.colours, m.counts, m.sizes) for m in statement.mentions]
    [('circle', {'red'}, {2}, set()), ('square', set(), {1}, {'large'})]
    >>> statement.relations
    ((0, 'left', 1),)
    """
    words = _WORD.findall(caption.lower())
    mentions = _mentions(words)
    relations: list[tuple[int, Relation, int]] = []
    between: list[tuple[int, int, int]] = []
    anchor = 0
    for position, mention in enumerate(mentions):
        following = mentions[position + 1].start if position + 1 < len(mentions) else len(words)
        place = _place_after(words[mention.end : following])
        if place is not None and position > 0:
            relations.append((position, place, anchor))
        else:
            anchor = position
        if position + 1 == len(mentions):
            break
        gap = words[mention.end : following]
        second = position + 2 if _joined(words, mentions, position + 1) else None
        relation = _relation_before_noun(gap)
        if relation is not None:
            relations += [(position, relation, other) for other in (position + 1, second) if other is not None]
        elif "between" in gap and second is not None:
            between.append((position, position + 1, second))
    return Statement(mentions=tuple(mentions), relations=tuple(relations), between=tuple(between))


_parsed = functools.lru_cache(4096)(parse_caption)
"""For captions that are checked against many scenes; nobody may change what it returns."""


def _mentions(words: list[str]) -> list[Mention]:
    """Finds the nouns and gathers the describing words right before each."""
    mentions = []
    start, counts, colours, sizes = 0, set[int](), set[str](), set[str]()
    for index, word in enumerate(words):
        if word in _COUNTS:
            counts.add(_COUNTS[word])
        elif word in _SIZES:
            sizes.add(_SIZES[word])
        elif word in COLOURS:
            colours.add(word)
        else:
            if word in _NOUNS:
                shape, plural = _NOUNS[word]
                mentions.append(
                    Mention(
                        shape=shape,
                        plural=plural,
                        start=start,
                        end=index + 1,
                        counts=counts,
                        colours=colours,
                        sizes=sizes,
                    )
                )
            start, counts, colours, sizes = index + 1, set(), set(), set()
    return mentions


def _relation_before_noun(gap: list[str]) -> Relation | None:
    """Reads "left of", "above" and the like between two mentions; the words nearest to the second one decide."""
    if len(gap) >= 2 and gap[-1] == "of":
        return _SIDES.get(gap[-2])
    return _VERTICAL.get(gap[-1]) if gap else None


def _place_after(gap: list[str]) -> Relation | None:
    """Reads "on its left", "to the right", "above it" and the like after a mention."""
    if len(gap) >= 3 and gap[0] in ("on", "to", "at") and gap[1] in ("its", "their", "the") and gap[3:4] != ["of"]:
        return _SIDES.get(gap[2])
    if len(gap) >= 2 and gap[1] in ("it", "them"):
        return _VERTICAL.get(gap[0])
    return None


def _joined(words: list[str], mentions: list[Mention], position: int) -> bool:
    """Tells whether only "and" stands between a mention and the next."""
    if position + 1 >= len(mentions):
        return False
    return words[mentions[position].end : mentions[position + 1].start] == ["and"]


def check_caption(caption: str, scene: Scene) -> FactCounts:
    """Checks a caption against a scene.

    Args:
        caption: any text.
        scene: what the image shows.

    Returns:
        The counts, whose `f1` is the score.
    """
    statement = _parsed(caption)
    facts = dict(_facts(statement, scene))
    found = _stated_objects(statement, scene)
    counts = {kind: [0, 0] for kind in KINDS}
    for name, holds in facts.items():
        kind = counts.get(str(name[0]), counts["relation"])  # relations are known by what they say
        kind[0] += 1
        kind[1] += holds
    return FactCounts(
        stated=len(facts),
        true=sum(facts.values()),
        objects=len(scene.objects),
        found=found,
        kinds=tuple((stated, true) for stated, true in counts.values()),
    )


def caption_fact_f1(caption: str, scene: Scene) -> float:
    """Returns the fact F1 of a caption, in [0, 1]."""
    return check_caption(caption, scene).f1


def _facts(statement: Statement, scene: Scene) -> Iterator[tuple[tuple[object, ...], bool]]:
    """Lists the stated facts: a name, by which repeated ones are known, and whether it holds."""
    for mention in statement.mentions:
        same_shape = [item for item in scene.objects if item.shape == mention.shape]
        yield ("object", mention.shape), bool(same_shape)
        for colour in mention.colours:
            yield ("colour", mention.shape, colour), any(item.colour == colour for item in same_shape)
        for size in mention.sizes:
            holds = any(item.size == size and mention.colours <= {item.colour} for item in same_shape)
            yield ("size", mention.shape, frozenset(mention.colours), size), holds
        for count in mention.counts:
            yield ("count", *mention.key(), count), len(mention.matches(scene)) == count
    for subject, relation, reference in statement.relations:
        yield _relation_fact(statement, scene, subject, relation, reference)
    for middle, first, second in statement.between:
        yield _between_fact(statement, scene, middle, first, second)


def _relation_fact(
    statement: Statement, scene: Scene, subject: int, relation: Relation, reference: int
) -> tuple[tuple[object, ...], bool]:
    one, other = statement.mentions[subject], statement.mentions[reference]
    holds = relation_holds(scene, one.matches(scene), relation, other.matches(scene))
    return (relation, one.key(), other.key()), holds


def _between_fact(
    statement: Statement, scene: Scene, middle: int, first: int, second: int
) -> tuple[tuple[object, ...], bool]:
    inner, one, other = (statement.mentions[position] for position in (middle, first, second))
    members, ones, others = inner.matches(scene), one.matches(scene), other.matches(scene)
    directions: tuple[Relation, ...] = ("left", "right", "above", "below")
    holds = any(
        relation_holds(scene, ones, name, members) and relation_holds(scene, members, name, others)
        for name in directions
    )
    return ("between", inner.key(), frozenset((one.key(), other.key()))), holds


def _stated_objects(statement: Statement, scene: Scene) -> int:
    """Counts the scene's objects that are stated, each at most once."""
    found: set[int] = set()
    for mention in statement.mentions:
        if mention.colours:
            members = [index for index in mention.matches(scene) if index not in found]
            limit = max(mention.counts, default=len(members) if mention.plural else 1)
            found.update(members[:limit])
    return len(found)
