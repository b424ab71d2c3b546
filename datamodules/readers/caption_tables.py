"""Tables with a header (CSV, TSV) and JSON lines: rows with an image and a caption, or several of them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.inputs import MOST_TEXT, parse_json, shown
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.images import IMAGE_SUFFIXES
from datamodules.readers.records import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    Columns,
    Example,
    Problem,
    Report,
    caption_texts,
    find_column,
    is_split_column,
    slashes,
    split_name,
)

_PART = re.compile(r"\{([^{}]+)\}")
"""A column in a pattern of several."""
csv.field_size_limit(MOST_TEXT)  # of the process, and nothing else of it relies on the smaller one


def table_records(text: str, path: Path, columns: Columns, report: Report) -> list[Example]:
    """Reads a table (CSV, TSV, or with semicolons or bars), one or several rows per image.

    The first line names the columns. Without it, two columns whose first is an image are taken as image and caption.

    Args:
        text: content of the file.
        path: the file, for messages.
        columns: names of the columns.
        report: what is done with defects of single rows.

    Returns:
        The images in the order in which they first appear; the id is the path as written.

    Raises:
        DataError: a column is not found, or the quoting is broken.
    """
    return list(_group(_table_rows(text, path, columns, report), report))


def json_records(
    text: str, path: Path, columns: Columns, report: Report, document: list[Any] | None = None
) -> list[Example]:
    """Reads JSON lines, or the objects of a JSON list, one or several per image.

    Args:
        text: content of the file.
        path: the file, for messages.
        columns: names of the keys.
        report: what is done with defects of single lines.
        document: the list, if the file is a JSON list.

    Returns:
        The images in the order in which they first appear; the id is the path as written.

    Raises:
        DataError: a key is not found in the first record.
    """
    return list(_group(_json_rows(text, path, columns, report, document), report))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of a table or one JSON line, before rows of the same image are put together."""

    file: str
    captions: list[str]
    split: str | None
    origin: str
    label: str = ""


def _table_rows(text: str, path: Path, columns: Columns, report: Report) -> Iterator[_Row]:
    """Reads the rows of a table."""
    header: list[str] = []
    image, caption, split, label = 0, 1, None, None
    for where, cells in table_cells(text, path):
        if not header:
            bare = len(cells) == 2 and cells[0].strip().lower().endswith(IMAGE_SUFFIXES) and columns == Columns()
            header = ["image", "caption"] if bare else [cell.strip() for cell in cells]
            image, caption, split, label = _places(header, columns, str(path))
            if not bare:
                continue
        if len(cells) != len(header):
            advice = "put captions with a comma in double quotes"
            wrong = f"{len(cells)} cells, expected {len(header)} as in the header"
            report(Problem("record", f"{where}: {wrong}; {advice}"))
        else:
            file = _filled(columns.image, dict(zip(header, cells, strict=True)), cells[image])
            of_split = None if split is None else cells[split]
            yield from _row(file, cells[caption], of_split, where, report, "" if label is None else cells[label])


def table_cells(text: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the place and cells of every line that is not blank."""
    head = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",\t;|", key=head.count)
    # bars are written with blanks around them
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter == "|"
    )
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{path}, line {line}", cells
            line = reader.line_num + 1  # a quoted caption may go over several lines
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: not a valid table ({error}); check the double quotes there") from error


def _json_rows(text: str, path: Path, columns: Columns, report: Report, document: list[Any] | None) -> Iterator[_Row]:
    """Reads the rows of JSON lines or of a JSON list."""
    names: tuple[str, str, str | None, str | None] | None = None
    for where, value in json_objects(text, path, report, document):
        if not isinstance(value, dict):
            report(Problem("record", f"{where}: expected an object with an image and a caption, found {shown(value)}"))
            continue
        if names is None:
            keys = list(value)
            image, caption, *others = _places(keys, columns, where)
            split, label = (None if place is None else keys[place] for place in others)
            names = keys[image], keys[caption], split, label
        absent = [name for name in names[:2] if name not in value]
        if absent:
            report(Problem("record", f"{where}: key {absent[0]!r} is missing; it has {', '.join(value) or 'none'}"))
        else:
            split_value = None if names[2] is None else value.get(names[2])
            file = _filled(columns.image, value, value[names[0]])
            label_value = "" if names[3] is None else value.get(names[3])
            yield from _row(file, value[names[1]], split_value, where, report, label_value)


def json_objects(text: str, path: Path, report: Report, document: list[Any] | None) -> Iterator[tuple[str, Any]]:
    """Yields the place and value of every JSON line or list entry."""
    if document is not None:
        yield from ((f"{path}, record {index}", value) for index, value in enumerate(document))
        return
    # not splitlines: U+2028 and its kin may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = parse_json(line, where)
        except DataError as error:
            cause = error.__cause__
            reason = f": not valid JSON ({cause.msg})" if isinstance(cause, json.JSONDecodeError) else ""
            report(Problem("record", f"{where}{reason}; correct or remove the line" if reason else str(error)))
            continue
        yield where, value


def _filled(pattern: str | None, cells: Mapping[str, Any], image: object) -> object:
    """The image's name of a row, where it is a pattern of several columns; else what its own column has.

    >>> _filled("{style}/{name}.jpg", {"style": "cubism", "name": "a"}, "cubism")
    'cubism/a.jpg'
    """
    if pattern is None or not _PART.search(pattern):
        return image
    return _PART.sub(lambda part: str(cells.get(part[1], "")).strip(), pattern)


def caption_label(value: object, where: str, report: Report) -> str:
    """The label of a caption as text: of text, a number or nothing; anything else is reported."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip()
    if value is not None:
        report(Problem("record", f"{where}: the label is {shown(value)}; expected text or a number"))
    return ""


def _row(
    image: object, caption: object, split: object, where: str, report: Report, label: object = ""
) -> Iterator[_Row]:
    """Checks one row and yields it if it is whole."""
    if not isinstance(image, str) or not image.strip():
        report(Problem("record", f"{where}: the image's name is {shown(image)}; expected a path"))
        return
    texts = caption_texts(caption)
    if texts is None:
        report(Problem("record", f"{where}: the caption is {shown(caption)}; expected a string or a list of strings"))
        return
    if not texts or not all(texts):
        report(Problem("empty", f"{where}: the caption of {image.strip()} is empty; write one or remove the row"))
    name, known = split_name(split, where, report)
    if known:
        said = caption_label(label, where, report)
        yield _Row(file=slashes(image), captions=[text for text in texts if text], split=name, origin=where, label=said)


def _group(rows: Iterable[_Row], report: Report) -> Iterator[Example]:
    """Puts the rows of each image together, in the order of first appearance."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        group = groups.setdefault(row.file, [])
        if group and group[0].split != row.split:
            here = f"{row.file} is in split {row.split} here, but in {group[0].split} at {group[0].origin}"
            report(Problem("leak", f"{row.origin}: {here}; give each image one split"))
        group.append(row)
    for file, group in groups.items():
        captions = tuple(text for row in group for text in row.captions)
        labels = tuple(row.label for row in group for _ in row.captions)
        if captions:  # images with nothing but empty ones were reported
            yield Example(
                image_id=file,
                image=ImageFile(file),
                captions=captions,
                caption_labels=labels if any(labels) else (),
                split=group[0].split,
                origin=f"{group[0].origin} ({file})",
            )


def _places(names: list[str], columns: Columns, where: str) -> tuple[int, int, int | None, int | None]:
    """Finds the columns of image, caption, split and label (the last two or None) by the given or the usual names."""
    parts = _PART.findall(columns.image or "")
    for part in parts:  # each of a pattern must be there
        find_column(names, part, (), "image", where)
    image = find_column(names, parts[0] if parts else columns.image, IMAGE_COLUMNS, "image", where)
    caption = find_column(names, columns.caption, CAPTION_COLUMNS, "caption", where)
    wanted = columns.split is not None or any(is_split_column(name) for name in names)
    split = find_column(names, columns.split, SPLIT_COLUMNS, "split", where) if wanted else None
    label = None if columns.label is None else find_column(names, columns.label, (), "label", where)
    return image, caption, split, label
