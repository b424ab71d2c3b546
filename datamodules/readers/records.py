"""What annotation files have in common: records, problems with exact messages, names of columns and splits."""

import json
import posixpath
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import DataError
from core.inputs import shown
from core.text import log_of
from datamodules.readers.image_refs import ImageRef

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

ProblemKind = Literal["file", "record", "missing", "undecodable", "empty", "duplicate", "leak"]

IMAGE_COLUMNS = ("image", "file_name", "filename", "image_name", "image_path", "image_file", "file", "filepath", "path",
                 "img", "name", "images", "picture", "photo", "jpg", "png")  # fmt: skip
"""Column names that are read as the image's, first match wins; compared without case, blanks and dashes."""
CAPTION_COLUMNS = ("caption", "captions", "text", "texts", "sentence", "sentences", "comment", "description", "raw",
                   "sents", "txt", "title", "alt_text", "answer")  # fmt: skip
"""Column names that are read as the captions'."""
SPLIT_COLUMNS = ("split", "subset", "partition", "caption_split")
"""Column names that are read as the split's."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "restval": "restval",  # Karpathy's: images of COCO's validation set that may be used for training
}
"""Spellings of the splits and what they mean."""
_DEPTH = 8
"""Levels of lists and objects in a cell of captions; the deepest known format has 3."""


_log = log_of(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect of a data set.

    Attributes:
        kind: what sort it is, for counting.
        message: one line naming the file, the record, what was expected and the way out.
    """

    kind: ProblemKind
    message: str


Report = Callable[[Problem], None]
"""What is done with a problem: `fail` raises; a checker collects it, and reading continues without the record."""


def fail(problem: Problem) -> None:
    """Raises the problem as a DataError; what training does at the first one."""
    raise DataError(problem.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image with what is known of it, from the annotation file to the batch.

    Attributes:
        image_id: as in the source: a number, or the image's path where the source has no ids; matched by its text.
        image: where the image is; None when there are only captions.
        captions: white space normalised, none empty.
        caption_labels: label of each caption as written, empty text for none; empty when there are none.
        conditions: label of each caption, an index into the data module's `condition_names`, -1 for none; empty when
            captions have no labels.
        labels: multi-label targets in [0, 1]; empty when there are none.
        split: train, val, test or restval; None when the source does not say.
        origin: file and record it was read from, for messages.
    """

    image_id: str | int
    image: ImageRef | None = None
    captions: tuple[str, ...] = ()
    caption_labels: tuple[str, ...] = ()
    conditions: tuple[int, ...] = ()
    labels: tuple[float, ...] = ()
    split: str | None = None
    origin: str = ""

    @property
    def image_name(self) -> str:
        """What its image is called, in a reader as it is written in the file; empty when there is none."""
        return "" if self.image is None else self.image.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns of a table or keys of JSON lines; None: guessed from the usual names, but no label is.

    The image may be a pattern of several columns: ``{folder}/{name}.jpg``.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    label: str | None = None


def clean_caption(text: str) -> str:
    r"""Removes white space at the ends and makes every run of it, line feeds included, one blank.

    >>> clean_caption(" A dog\n runs. ")
    'A dog runs.'
    """
    return " ".join(text.split())


def caption_texts(value: object, depth: int = _DEPTH) -> list[str] | None:
    """Takes the captions out of a cell: a string, a list of strings, a list of objects, or a JSON list in a string.

    Args:
        value: the cell.
        depth: levels of lists and objects that may be inside one another.

    Returns:
        The captions with clean white space, empty ones included; None when it is something else.

    >>> caption_texts([{"raw": "A dog ."}, {"raw": "Two  dogs ."}])
    ['A dog .', 'Two dogs .']
    """
    if isinstance(value, str):
        inner = _json_list(value, depth - 1)
        return [clean_caption(value)] if inner is None else inner
    if depth == 0:
        return None
    if isinstance(value, dict):
        keys = ("raw", *CAPTION_COLUMNS)
        found = next((value[key] for key in keys if isinstance(value.get(key), str | list)), None)
        if found is None and isinstance(value.get("tokens"), list):
            found = " ".join(map(str, value["tokens"]))
        return None if found is None else caption_texts(found, depth - 1)
    if isinstance(value, list | tuple):
        parts = [caption_texts(item, depth - 1) for item in value if isinstance(item, str | dict)]
        known = [part for part in parts if part is not None]
        return [text for part in known for text in part] if len(known) == len(value) else None
    return None


def find_column(names: list[str], given: str | None, usual: tuple[str, ...], role: str, where: str) -> int:
    """Finds a column by its given name, or the first of the usual names.

    Args:
        names: columns that are there.
        given: the name the user gave, or None.
        usual: names to try, without case, blanks and dashes.
        role: image, caption or split; the user's argument is called ``<role>_column``.
        where: file (and record) for the message.

    Returns:
        The place in `names`.

    Raises:
        DataError: there is none, or the name is there twice.
    """
    plain = [_plain(name) for name in names]
    found = given if given is not None else next((names[plain.index(name)] for name in usual if name in plain), None)
    listed = f"(columns: {', '.join(names) or 'none'}); set {role}_column to one of them"
    if found is None:
        raise DataError(f"{where}: no column for the {role} {listed}")
    count = Counter(names)[found]
    if count != 1:
        raise DataError(f"{where}: {'no' if count == 0 else 'more than one'} column is called {found!r} {listed}")
    return names.index(found)


def is_split_column(name: str) -> bool:
    """Whether a column is called like one that holds the split."""
    return _plain(name) in SPLIT_COLUMNS


def split_name(value: object, where: str, report: Report) -> tuple[str | None, bool]:
    """Reads a split's name.

    Returns:
        The name in its usual spelling, None when the cell is empty; and whether it was understood.
    """
    if value is None or value == "":
        return None, True
    name = SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if name is None:
        report(Problem("record", f"{where}: split is {shown(value)}, expected one of {', '.join(SPLIT_NAMES)}"))
    return name, name is not None


def has_keys(value: object, keys: dict[str, tuple[type, ...]], where: str, report: Report) -> bool:
    """Whether a JSON object has the keys with the types; reports the first that is wrong."""
    if not isinstance(value, dict):
        report(Problem("record", f"{where}: expected an object, found {shown(value)}"))
        return False
    for key, types in keys.items():
        if key not in value:
            report(Problem("record", f"{where}: key {key!r} is missing; add it or remove the record"))
            return False
        if not isinstance(value[key], types) or isinstance(value[key], bool):
            wanted = " or ".join(kind.__name__ for kind in types)
            report(Problem("record", f"{where}: {key!r} is {shown(value[key])}, expected {wanted}"))
            return False
    return True


def say_dropped(source: str, count: int, total: int, have: str) -> None:
    """Says how many images a data set leaves out on purpose.

    Args:
        source: file or folder.
        count: number of images that are left out.
        total: number of all images.
        have: what those have, or lack.
    """
    if count:
        _log.warning("%s: %d of %d images have %s and are skipped", source, count, total, have)


def own_name(record: dict[str, Any], key: str, where: str, report: Report) -> int | str | None:
    """The id that a record has for itself; None when it has none, or one of another kind, which is reported."""
    found = record.get(key)
    if found is None or isinstance(found, int | str):
        return found
    report(Problem("record", f"{where}: {key!r} is {shown(found)}, expected a number or text"))
    return None


def record_name(value: object, key: str, index: int) -> str:
    """What a record is called in messages: its id, or its place in the list."""
    found = value.get(key) if isinstance(value, dict) else None
    return str(found) if isinstance(found, int | str) else f"number {index} of the list"


def slashes(name: str) -> str:
    """A path with forward slashes and without needless parts, so that each image has one name.

    >>> slashes("./a/../images/1.jpg ")
    'images/1.jpg'
    """
    name = name.strip().replace("\\", "/")
    return posixpath.normpath(name) if name else ""


def _json_list(text: str, depth: int) -> list[str] | None:
    """The captions of a JSON list that stands in a string; None when it is an ordinary caption."""
    if depth <= 0 or not (text.lstrip().startswith("[") and text.rstrip().endswith("]")):
        return None
    try:
        return caption_texts(json.loads(text), depth)
    except (ValueError, RecursionError):
        return None  # a caption may begin with a bracket


def _plain(name: str) -> str:
    """Column name in lower case with underscores."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")
