"""Captions of a scene: a small English grammar with counting, colours, sizes and spatial relations.

Every caption names every group of the scene with its exact number and true colour and shape; the sizes, the order,
the words ("big" or "large"), the sentence pattern and which of the true relations are mentioned are free. Captions
are a function of the scene alone. `GRAMMAR_WORDS` lists the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.errors import UserError
from datamodules.scenes.draws import Draws
from datamodules.scenes.generator import COLOURS, SHAPES, Group, Scene, groups_of
from datamodules.scenes.relations import RELATIONS, Relation, relation_holds

CAPTIONS_PER_SCENE = 5
_ATTEMPTS = 100

Grounding = tuple[int, int, int]
"""(first word, word after the last, index of the object): words ``start .. end - 1`` name that object."""

SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
COUNT_WORDS: dict[int, str] = {1: "a", 2: "two", 3: "three"}
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
_RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
_FRAMES = ("", "", "there", "the picture shows", "a picture of")

_PHRASES = [*COLOURS, *SHAPES, *PLURALS.values(), *COUNT_WORDS.values(), *_FRAMES]
_PHRASES += [phrase for phrases in (*SIZE_WORDS.values(), *_RELATION_WORDS.values()) for phrase in phrases]
_PHRASES += ["is are with on its their it them between and"]

GRAMMAR_WORDS: frozenset[str] = frozenset(word for phrase in _PHRASES for word in phrase.split())
"""Every word that a caption can hold, lower case, without the final full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A piece of a sentence; `group` is the position of the group that it names, or None."""

    text: str
    group: int | None = None


Pattern = Callable[["_Writer"], list[_Part] | None]


class _Writer:
    """Writes one caption: holds the scene's groups in the order chosen and the choices made once per caption."""

    def __init__(self, scene: Scene, draws: Draws) -> None:
        self.scene, self.draws = scene, draws
        found = groups_of(scene)
        self.groups: list[Group] = draws.sample(found, len(found))
        self.with_sizes = draws.below(2) == 1

    def noun(self, position: int) -> _Part:
        """Names a group: "two small red circles"."""
        group = self.groups[position]
        words = [COUNT_WORDS[len(group.members)]]
        if self.with_sizes:
            words.append(self.draws.choose(SIZE_WORDS[group.size]))
        plural = len(group.members) > 1
        words += [group.colour, PLURALS[group.shape] if plural else group.shape]
        return _Part(text=" ".join(words), group=position)

    def relations(self, subject: int, reference: int) -> list[Relation]:
        """Lists the true relations of one group to another."""
        first, second = self.groups[subject].members, self.groups[reference].members
        return [name for name in RELATIONS if relation_holds(self.scene, first, name, second)]

    def related(self) -> list[_Part] | None:
        """Says how the first group stands to all others ("left of B and C"), or None where no relation holds to all."""
        others = range(1, len(self.groups))
        shared = [name for name in RELATIONS if all(name in self.relations(0, other) for other in others)]
        if not shared or not others:
            return None
        parts = [_Part(text=self.draws.choose(_RELATION_WORDS[self.draws.choose(shared)]))]
        for other in others:
            parts += [_Part(text="and"), self.noun(other)] if other > 1 else [self.noun(other)]
        return parts

    def beside(self, subject: int, anchor: int) -> list[_Part] | None:
        """Names a group by its place as seen from another: "two red circles above it", "a red cross on its left"."""
        found = self.relations(subject, anchor)
        if not found:
            return None
        name = self.draws.choose(found)
        many = len(self.groups[anchor].members) > 1
        if name in ("left", "right"):
            place = f"on {'their' if many else 'its'} {name}"
        else:
            place = f"{name} {'them' if many else 'it'}"
        return [self.noun(subject), _Part(text=place)]

    def verb(self, position: int) -> str:
        """The verb after or before a group."""
        return "are" if len(self.groups[position].members) > 1 else "is"

    def frame(self) -> list[_Part]:
        """Words before the first group, often none."""
        words = self.draws.choose(_FRAMES)
        if words == "there":
            words += " " + self.verb(0)
        return [_Part(text=words)] if words else []


def _listing(writer: _Writer) -> list[_Part]:
    """There are A and B. There are A, B and C."""
    parts = writer.frame() or [_Part(text=f"there {writer.verb(0)}")]
    for position in range(len(writer.groups)):
        if position:
            parts.append(_Part(text="and"))
        parts.append(writer.noun(position))
    return parts


def _related(writer: _Writer) -> list[_Part] | None:
    """A left of B. There is A above B and C."""
    rest = writer.related()
    return None if rest is None else [*writer.frame(), writer.noun(0), *rest]


def _stated(writer: _Writer) -> list[_Part] | None:
    """A is left of B. A are above B and C."""
    rest = writer.related()
    return None if rest is None else [writer.noun(0), _Part(text=writer.verb(0)), *rest]


def _accompanied(writer: _Writer) -> list[_Part] | None:
    """A with B on its left. There is A with B above it and C on its right."""
    parts = [*writer.frame(), writer.noun(0), _Part(text="with")]
    places: set[str] = set()
    for position in range(1, len(writer.groups)):
        if position > 1:
            parts.append(_Part(text="and"))
        beside = writer.beside(position, 0)
        # the same place named twice in a sentence would be clumsy
        if beside is None or beside[-1].text in places:
            return None
        places.add(beside[-1].text)
        parts += beside
    return parts if places else None


def _between(writer: _Writer) -> list[_Part] | None:
    """A between B and C."""
    if len(writer.groups) < 3:
        return None
    to_second, to_third = writer.relations(0, 1), writer.relations(2, 0)
    if not set(to_second) & set(to_third):
        return None
    return [*writer.frame(), writer.noun(0), _Part(text="between"), writer.noun(1), _Part(text="and"), writer.noun(2)]


_PATTERNS: tuple[Pattern, ...] = (_listing, _related, _related, _stated, _accompanied, _between)


def _write(scene: Scene, draws: Draws) -> tuple[str, list[Grounding]]:
    """Writes one caption of a scene with the words that name its objects."""
    parts: list[_Part] | None = None
    while parts is None:
        writer = _Writer(scene, draws)
        parts = draws.choose(_PATTERNS)(writer)
    words: list[str] = []
    grounding: list[Grounding] = []
    for part in parts:
        start = len(words)
        words += part.text.split()
        if part.group is not None:
            grounding += [(start, len(words), member) for member in writer.groups[part.group].members]
    text = " ".join(words)
    return text[0].upper() + text[1:] + ".", grounding


def grounded_captions(scene: Scene, count: int = CAPTIONS_PER_SCENE) -> list[tuple[str, list[Grounding]]]:
    """Writes different captions of a scene and tells which words name which object.

    Args:
        scene: what to describe.
        count: number of captions, at most 20.

    Returns:
        Pairs of a caption and its groundings. Words are counted from 0 in ``caption.split()``; the full stop belongs to
        the last word. A group of several objects gives one grounding per object with the same words.

    Raises:
        UserError: the grammar does not hold that many captions of the scene.
    """
    draws = Draws(scene.digest(), 1)
    captions: dict[str, list[Grounding]] = {}
    for _ in range(_ATTEMPTS * count):
        text, grounding = _write(scene, draws)
        captions.setdefault(text, grounding)
        if len(captions) == count:
            return list(captions.items())
    raise UserError(f"{count} captions are more than the grammar easily finds for a scene; ask for at most 20")


def scene_captions(scene: Scene, count: int = CAPTIONS_PER_SCENE) -> list[str]:
    """Writes different captions of a scene, the same ones as `grounded_captions`."""
    return [text for text, _ in grounded_captions(scene, count)]


def fresh_caption(scene: Scene, sample: int = 0) -> str:
    """Writes a caption as another speaker of the grammar would, drawn apart from the scene's own captions.

    Args:
        scene: what to describe.
        sample: another number is another speaker.
    """
    return _write(scene, Draws(scene.digest(), 2, sample))[0]
