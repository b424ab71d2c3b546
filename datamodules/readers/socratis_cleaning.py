"""The published cleaning of Socratis, one rule a function, and its published counts.

The raw file is ``{id: [[image name, caption, [3 emotions], [3 explanations], {demographics}], ...]}`` with one inner
list per annotator. The rules are applied in the published order; where that order has an oddity (see `plain`) it is
kept, because the 29 labels and 2,065 images of the published data set depend on it.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.inputs import read_text, shown
from datamodules.readers.frames import read_frame
from datamodules.readers.records import Problem, Report, clean_caption

EMOTIONS = (
    "curious", "amazed", "fear", "awe", "neutral", "disgusted", "worried", "intrigued", "confused", "beautiful",
    "happy", "annoyed", "impressed", "sad", "proud", "inspired", "angry", "excited", "nostalgic", "upset", "concerned",
    "good", "hopeful", "anger", "joy", "interested", "calm", "bored", "scared",
)  # fmt: skip
"""The 29 labels in the published order."""

SYNONYMS = {"anger": "angry", "fear": "scared", "joy": "happy"}
"""Labels that mean the same as another, more frequent one; merged only when asked for."""

PLACEHOLDERS = ("none", "not entered")
"""What annotators or the form wrote for "no emotion", after lower-casing."""

MIN_IMAGES = 100
"""Images that an emotion must have to become a label."""

PUBLISHED_COUNTS = {
    "images": 2075,
    "rows": 12489,
    "emotions": 982,
    "cleaned emotions": 853,
    "labels": 29,
    "labelled images": 2065,
}
"""What the published notebook counts in the full raw file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What one annotator wrote.

    Attributes:
        image_name: file name of the image.
        caption: its caption.
        emotions: up to three, as typed; unused ones are empty.
        reasons: why, for each of them; empty text for none.
    """

    image_name: str
    caption: str
    emotions: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """One image with the emotions of all its annotators.

    Attributes:
        image_name: file name of the image.
        caption: the first annotator's.
        emotions: all different ones, in the order of first appearance.
    """

    image_name: str
    caption: str
    emotions: tuple[str, ...]


def read_annotations(document: Any, path: Path, report: Report) -> list[Annotation]:
    """Takes the annotators' rows out of the raw document.

    Args:
        document: the parsed JSON.
        path: its file, for messages.
        report: what is done with broken rows.
    """
    if not isinstance(document, dict) or not document:
        shape = "expected an object {id: [[image name, caption, [emotions], ...], ...]}"
        report(Problem("file", f"{path}: {shape}; is it the right file?"))
        return []
    rows = []
    for key, entries in document.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if _is_row(entry):
                given = entry[3] if len(entry) > 3 and isinstance(entry[3], list) else ()
                rows.append(
                    Annotation(
                        image_name=entry[0],
                        caption=clean_caption(entry[1]),
                        emotions=tuple(entry[2]),
                        reasons=tuple(clean_caption(text) if isinstance(text, str) else "" for text in given),
                    )
                )
            else:
                wanted = "expected [image name, caption, [emotions as text], ...]"
                message = (
                    f"{path}, id {key}, annotator {number}: {wanted}, found {shown(entry, 60)}; correct or remove it"
                )
                report(Problem("record", message))
    return rows


def read_cleaned(path: Path, report: Report) -> list[Reaction]:
    """Reads the cleaned CSV, with the columns image_name, caption and emotions.

    Args:
        path: the file.
        report: what is done with broken rows.

    Raises:
        DataError: a column is missing, or the file is no table.
    """
    frame = read_frame(read_text(path), path)
    columns = ["image_name", "caption", "emotions"]
    missing = [name for name in columns if name not in frame]
    if missing:
        there = ", ".join(frame.columns) or "none"
        raise DataError(f"{path}: no column {missing[0]!r} (columns: {there}); expected {', '.join(columns)}")
    found: dict[str, Reaction] = {}
    for line, name, caption, written in frame[columns].itertuples(name=None):
        where = f"{path}, line {line} ({name})"
        emotions = emotion_list(written)
        unknown = None if emotions is None else next((label for label in emotions if label not in EMOTIONS), None)
        if emotions is None:
            wanted = "expected a list such as ['sad', 'calm']"
            report(Problem("record", f"{where}: emotions is {shown(written, 60)}, {wanted}; correct or remove the row"))
        elif unknown is not None:
            labels = ", ".join(EMOTIONS)
            report(Problem("record", f"{where}: emotion {unknown!r} is none of the published labels ({labels})"))
        elif name in found:
            report(Problem("duplicate", f"{where}: this image is there twice; remove one of the two rows"))
        elif not emotions or not caption.strip():
            what = "has no emotion" if not emotions else "the caption is empty"
            report(Problem("empty", f"{where}: {what}; correct or remove the row"))
        else:
            found[name] = Reaction(image_name=name, caption=clean_caption(caption), emotions=tuple(emotions))
    return list(found.values())


def emotion_list(text: str | None) -> list[str] | None:
    """Parses a list of strings, written as Python or JSON does, without executing anything.

    Returns:
        The strings; None when it is something else.

    >>> emotion_list("['sad', 'calm']"), emotion_list("__import__('os').getcwd()")
    (['sad', 'calm'], None)
    """
    try:
        found = ast.literal_eval((text or "").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else None


def lowered(emotion: str) -> str:
    """Lower case; white space stays, for the published code keeps it.

    >>> lowered("Hungry")
    'hungry'
    """
    return emotion.lower()


def without_placeholder(emotion: str) -> str:
    """Empties what is no emotion.

    >>> without_placeholder("none"), without_placeholder("not entered"), without_placeholder("sad")
    ('', '', 'sad')
    """
    return "" if emotion in PLACEHOLDERS else emotion


def merged_by_image(rows: Iterable[Annotation]) -> list[Reaction]:
    """Puts the annotators of an image together: the first caption, the union of all non-empty emotions.

    >>> given = [("first", ("sad", "")), ("second", ("sad", "calm"))]
    >>> rows = [Annotation(image_name="a.jpg", caption=text, emotions=words) for text, words in given]
    >>> merged_by_image(rows)
    [Reaction(image_name='a.jpg', caption='first', emotions=('sad', 'calm'))]
    """
    captions: dict[str, str] = {}
    emotions: dict[str, dict[str, None]] = {}
    for row in rows:
        captions.setdefault(row.image_name, row.caption)
        found = emotions.setdefault(row.image_name, {})
        found.update(dict.fromkeys(emotion for emotion in row.emotions if emotion))
    return [
        Reaction(image_name=name, caption=captions[name], emotions=tuple(found)) for name, found in emotions.items()
    ]


def is_one_word(emotion: str) -> bool:
    """Whether a string is kept: not a single character, and no blank in it.

    >>> is_one_word("calm"), is_one_word("a"), is_one_word("a bit pleased")
    (True, False, False)
    """
    return len(emotion) != 1 and " " not in emotion


def plain(emotion: str) -> str:
    """Strips double quotes, and cuts at an opening bracket.

    A string with both keeps its quotes in front, as in the published code, which cuts the original string.

    >>> plain('"bad"'), plain("sad(for"), plain('"odd"(very')
    ('bad', 'sad', '"odd"')
    """
    return emotion[: emotion.index("(")] if "(" in emotion else emotion.strip('"')


def cleaned(emotions: Iterable[str]) -> tuple[str, ...]:
    """One-word emotions in plain spelling, repeats dropped.

    >>> cleaned(["sad", "a", "very sad", '"sad"', "calm"])
    ('sad', 'calm')
    """
    return tuple(dict.fromkeys(plain(emotion) for emotion in emotions if is_one_word(emotion)))


def frequent(lists: Iterable[Sequence[str]], min_images: int = MIN_IMAGES) -> set[str]:
    """Emotions that at least `min_images` images have.

    >>> frequent([("sad", "calm"), ("sad",)], min_images=2)
    {'sad'}
    """
    counts = Counter(emotion for emotions in lists for emotion in set(emotions))
    return {emotion for emotion, count in counts.items() if count >= min_images}


def merge_synonyms(emotions: Iterable[str]) -> tuple[str, ...]:
    """Replaces every label of `SYNONYMS` by the other one, repeats dropped.

    >>> merge_synonyms(["anger", "sad", "angry"])
    ('angry', 'sad')
    """
    return tuple(dict.fromkeys(SYNONYMS.get(emotion, emotion) for emotion in emotions))


def clean(rows: Iterable[Annotation], labels: Iterable[str] = EMOTIONS) -> list[Reaction]:
    """The whole cleaning: images with at least one label, with their labels only, sorted by the image's name.

    Args:
        rows: the annotators' rows.
        labels: what is kept; the published rule that chooses them, `frequent`, needs the full file.
    """
    wanted = set(labels)
    kept = [
        Reaction(
            image_name=item.image_name,
            caption=item.caption,
            emotions=tuple(e for e in cleaned(item.emotions) if e in wanted),
        )
        for item in _reactions(rows)
    ]
    return sorted((item for item in kept if item.emotions), key=lambda item: item.image_name)


def counts(rows: Sequence[Annotation]) -> dict[str, int]:
    """The numbers of `PUBLISHED_COUNTS` for a raw file."""
    reactions = _reactions(rows)
    lists = [cleaned(item.emotions) for item in reactions]
    labels = frequent(lists)
    return {
        "images": len(reactions),
        "rows": len(rows),
        "emotions": len({emotion for item in reactions for emotion in item.emotions}),
        "cleaned emotions": len({emotion for emotions in lists for emotion in emotions}),
        "labels": len(labels),
        "labelled images": sum(bool(labels & set(emotions)) for emotions in lists),
    }


def count_differences(found: Mapping[str, int], published: Mapping[str, int] = PUBLISHED_COUNTS) -> list[str]:
    """What differs from the published counts, one text each; empty when nothing does.

    >>> count_differences({"images": 1, "rows": 8}, {"images": 2, "rows": 8})
    ['images: 1, published 2']
    """
    return [f"{name}: {found[name]}, published {count}" for name, count in published.items() if found[name] != count]


def _reactions(rows: Iterable[Annotation]) -> list[Reaction]:
    """Lower-cased, without placeholders, by image."""
    return merged_by_image(
        Annotation(
            image_name=row.image_name,
            caption=row.caption,
            emotions=tuple(without_placeholder(lowered(item)) for item in row.emotions),
        )
        for row in rows
    )


def _is_row(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) >= 3
        and isinstance(entry[0], str)
        and bool(entry[0].strip())
        and isinstance(entry[1], str)
        and isinstance(entry[2], list)
        and all(isinstance(emotion, str) for emotion in entry[2])
    )
