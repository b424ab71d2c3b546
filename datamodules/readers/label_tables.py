"""Tables with labels: CSV, TSV, JSON lines and JSON lists, with one column a label or one column for all.

Letters: C labels.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError
from datamodules.readers.caption_tables import json_objects, table_cells
from datamodules.readers.label_records import LabelRecord
from datamodules.readers.records import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    Problem,
    ProblemKind,
    Report,
    caption_texts,
    parse_json,
    read_text,
    slashes,
    split_name,
)

LABEL_COLUMNS = ("labels", "label", "emotions", "emotion", "tags", "classes", "targets", "categories")
"""Column names that are taken for the one that holds all labels of a row."""
ID_COLUMNS = ("image_id", "id", "imgid", "key")
"""Column names that are taken for the id's."""
SEPARATORS = ("|", ";", ",")
"""What may stand between labels in one cell, the first that occurs in the column."""


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """Names of the columns or keys; None: the usual names.

    Attributes:
        image: the picture's path.
        caption: the captions.
        split: the split.
        labels: all labels of a row, as a list or as text with a separator.
        each: columns of their own for the labels, with 0, 1 or a number in between.
        separator: what stands between labels in one cell.
        names: all labels in their order; None: as found, in alphabetical order, or in the order of the columns.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    labels: str | None = None
    each: tuple[str, ...] | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One row with its place and the cells by column."""

    where: str
    cells: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Roles:
    """Which column is what; None: there is none."""

    image: str | None
    image_id: str | None
    caption: str | None
    split: str | None
    labels: str | None
    each: tuple[str, ...]


def read_label_table(path: Path, columns: LabelColumns, report: Report) -> tuple[tuple[str, ...], list[LabelRecord]]:
    """Reads a table of labelled pictures or texts.

    Rows of the same picture are put together: their captions add up, their labels must agree.

    Args:
        path: the file, UTF-8.
        columns: names of columns.
        report: what is done with defects of single rows.

    Returns:
        The names of the labels in the order of the targets, and the records in the order of the file.

    Raises:
        DataError: a column is not found, or the file as a whole cannot be used.
    """
    rows = list(_rows(read_text(path), path, report))
    if not rows:
        raise DataError(f"{path}: no row; expected a header and rows with an image or caption and labels")
    roles = _roles(rows, columns, path)
    if roles.each:
        names = columns.names or roles.each
        found = [_numbers(row, names, report) for row in rows]
    else:
        separator = _separator(rows, roles, columns)
        sets = [_label_set(row, str(roles.labels), separator, report) for row in rows]
        names = columns.names or tuple(sorted({name for labels in sets for name in labels or ()}))
        found = [
            None if labels is None else _one_hot(row, labels, names, report)
            for row, labels in zip(rows, sets, strict=True)
        ]
    if not names:
        raise DataError(f"{path}: no row has a label; expected some in column {roles.labels!r}")
    good = [(row, labels) for row, labels in zip(rows, found, strict=True) if labels is not None]
    return names, _records(good, roles, report)


def label_list(value: object, separator: str) -> list[str] | None:
    """Takes labels out of a cell: a list, a list written as JSON or Python in text, or text with a separator.

    Returns:
        The labels without white space at their ends, none empty; None when it is something else.

    >>> label_list("sad | calm", "|"), label_list("['sad', 'calm']", "|"), label_list("", "|"), label_list(3, "|")
    (['sad', 'calm'], ['sad', 'calm'], [], None)
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return None
        else:
            value = text.split(separator)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return [item.strip() for item in value if item.strip()]


def _rows(text: str, path: Path, report: Report) -> Iterator[_Row]:
    body = text.lstrip()
    if body[:1] in ("{", "["):
        document = None if body[0] == "{" else parse_json(text, path)
        for where, value in json_objects(text, path, report, document):
            if isinstance(value, dict):
                yield _Row(where, value)
            else:
                report(Problem("record", f"{where}: expected an object with labels, found {value!r:.40}; mend it"))
        return
    header: list[str] = []
    for where, cells in table_cells(text, path):
        if not header:
            header = [cell.strip() for cell in cells]
        elif len(cells) != len(header):
            advice = "put texts with a comma in double quotes"
            report(Problem("record", f"{where}: {len(cells)} cells, expected {len(header)} as in the header; {advice}"))
        else:
            yield _Row(where, dict(zip(header, cells, strict=True)))


def _roles(rows: Sequence[_Row], columns: LabelColumns, path: Path) -> _Roles:
    """Finds the columns."""
    # JSON lines may leave out what is empty, so the keys of all rows count
    names = list(dict.fromkeys(key for row in rows for key in row.cells))
    image = _column(names, columns.image, IMAGE_COLUMNS, "image", path)
    caption = _column(names, columns.caption, CAPTION_COLUMNS, "caption", path)
    split = _column(names, columns.split, SPLIT_COLUMNS, "split", path)
    image_id = _column([name for name in names if name != image], None, ID_COLUMNS, "id", path)
    taken = {image, caption, split, image_id}
    each = columns.each
    labels = (
        None if each else _column([n for n in names if n not in taken], columns.labels, LABEL_COLUMNS, "labels", path)
    )
    if each is None and labels is None:
        each = tuple(name for name in names if name not in taken and _is_binary(rows, name))
    for name in each or ():
        if name not in names:
            raise DataError(f"{path}: no column is called {name!r} (columns: {', '.join(names)}); mend label_columns")
    listed = f"(columns: {', '.join(names)})"
    if labels is None and not each:
        raise DataError(
            f"{path}: no column for the labels {listed}; set labels_column, or label_columns to columns of 0 and 1"
        )
    if image is None and caption is None:
        raise DataError(f"{path}: no column for the image and none for a caption {listed}; set image_column")
    return _Roles(image, image_id, caption, split, labels, tuple(each or ()))


def _column(names: list[str], given: str | None, usual: Sequence[str], role: str, path: Path) -> str | None:
    """The given column, or the first with a usual name; None when there is none."""
    if given is not None:
        if given not in names:
            raise DataError(f"{path}: no column is called {given!r} (columns: {', '.join(names)}); set {role}_column")
        return given
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def _is_binary(rows: Sequence[_Row], name: str) -> bool:
    """Whether a column holds nothing but numbers in [0, 1]."""
    return all(_number(row.cells.get(name)) is not None for row in rows)


def _number(value: object) -> float | None:
    """A number in [0, 1], also from text or a truth value; None for anything else."""
    if isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= 1 else None


def _numbers(row: _Row, names: Sequence[str], report: Report) -> tuple[float, ...] | None:
    values = []
    for name in names:
        number = _number(row.cells.get(name))
        if number is None:
            wrong = f"label {name!r} is {row.cells.get(name)!r:.40}, expected 0, 1 or a number in between"
            report(Problem("record", f"{row.where}: {wrong}; mend or remove the row"))
            return None
        values.append(number)
    return tuple(values)


def _separator(rows: Sequence[_Row], roles: _Roles, columns: LabelColumns) -> str:
    if columns.separator is not None:
        return columns.separator
    texts = [cell for row in rows if isinstance(cell := row.cells.get(str(roles.labels)), str)]
    return next((sign for sign in SEPARATORS if any(sign in text for text in texts)), ",")


def _label_set(row: _Row, column: str, separator: str, report: Report) -> list[str] | None:
    value = row.cells.get(column)
    labels = [] if value is None else label_list(value, separator)
    if labels is None:
        wanted = "expected a list of names, or names with a separator"
        report(Problem("record", f"{row.where}: {column} is {value!r:.40}; {wanted}"))
    return labels


def _one_hot(row: _Row, labels: Sequence[str], names: Sequence[str], report: Report) -> tuple[float, ...] | None:
    unknown = next((label for label in labels if label not in names), None)
    if unknown is not None:
        known = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        report(Problem("record", f"{row.where}: label {unknown!r} is not in label_names ({known}); add it or mend it"))
        return None
    return tuple(float(name in labels) for name in names)


def _records(rows: Sequence[tuple[_Row, tuple[float, ...]]], roles: _Roles, report: Report) -> list[LabelRecord]:
    """Checks image, caption and split of every row and puts rows of the same picture together."""
    records: dict[str, LabelRecord] = {}
    for number, (row, labels) in enumerate(rows):
        record = _record(row, labels, roles, number, report)
        if record is None:
            continue
        other = records.setdefault(record.image_id, record)
        if other is record:
            continue
        for what, mine, theirs in (("labels", record.labels, other.labels), ("split", record.split, other.split)):
            if mine != theirs:
                kind: ProblemKind = "leak" if what == "split" else "duplicate"
                here = f"{record.image_id} has another {what} than at {other.origin}"
                report(Problem(kind, f"{record.origin}: {here}; give each image one"))
        captions = other.captions + record.captions
        records[record.image_id] = LabelRecord(
            other.image_id, other.file, captions, other.labels, other.split, other.origin
        )
    return list(records.values())


def _record(row: _Row, labels: tuple[float, ...], roles: _Roles, number: int, report: Report) -> LabelRecord | None:
    """One row as a record; None when it was reported."""
    image = row.cells.get(roles.image) if roles.image is not None else ""
    if not isinstance(image, str) or (roles.image is not None and not image.strip()):
        report(Problem("record", f"{row.where}: the image's name is {image!r:.40}; expected a path"))
        return None
    captions: list[str] = []
    if roles.caption is not None:
        captions = caption_texts(row.cells.get(roles.caption)) or []
        if not captions or not all(captions):
            wrong = f"the caption is {row.cells.get(roles.caption)!r:.40}; expected a text or a list of texts"
            report(Problem("empty", f"{row.where}: {wrong}, none empty; write one or remove the row"))
            return None
    split, known = split_name(row.cells.get(roles.split) if roles.split is not None else None, row.where, report)
    if not known:
        return None
    file = slashes(image)
    given = row.cells.get(roles.image_id) if roles.image_id is not None else None
    image_id = str(given) if given not in (None, "") else file or f"row {number + 1}"
    return LabelRecord(image_id, file, tuple(captions), labels, split, f"{row.where} ({image_id})")
