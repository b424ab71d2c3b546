"""Tables with labels: CSV, TSV, JSON lines and JSON lists, with one column a label or one column for all.

Letters: C labels.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import DataError
from core.inputs import parse_json, read_text, shown
from datamodules.readers.caption_tables import json_objects, table_cells
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    Example,
    Problem,
    ProblemKind,
    Report,
    caption_texts,
    slashes,
    split_name,
)

if TYPE_CHECKING:
    import pandas as pd

LABEL_COLUMNS = ("labels", "label", "emotions", "emotion", "tags", "classes", "targets", "categories")
"""Column names that are read as the one that holds all labels of a row."""
ID_COLUMNS = ("image_id", "id", "imgid", "key")
"""Column names that are read as the id's."""
SEPARATORS = ("|", ";", ",")
"""What may stand between labels in one cell, the first that occurs in the column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumns:
    """Names of the columns or keys; None: the usual names.

    Attributes:
        image: the image's path.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """Which column is what; None: there is none."""

    image: str | None
    image_id: str | None
    caption: str | None
    split: str | None
    labels: str | None
    each: tuple[str, ...]


def read_label_table(path: Path, columns: LabelColumns, report: Report) -> tuple[tuple[str, ...], list[Example]]:
    """Reads a table of labelled images or texts.

    Rows of the same image are put together: their captions add up, their labels must agree.

    Args:
        path: the file, UTF-8.
        columns: names of columns.
        report: what is done with defects of single rows.

    Returns:
        The names of the labels in the order of the targets, and the records in the order of the file.

    Raises:
        DataError: a column is not found, or the file as a whole cannot be used.
    """
    frame = _frame(read_text(path), path, report)
    if frame.empty:
        raise DataError(f"{path}: no row; expected a header and rows with an image or caption and labels")
    roles = _roles(frame, columns, path)
    if roles.each:
        targets = _numbers(frame, list(columns.names or roles.each), report)
    else:
        targets = _one_hot(_label_sets(frame, str(roles.labels), columns, report), columns.names, report)
    if not len(targets.columns):
        raise DataError(f"{path}: no row has a label; expected some in column {roles.labels!r}")
    return tuple(targets.columns), _records(frame.loc[targets.index], targets, roles, report)


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


def _frame(text: str, path: Path, report: Report) -> "pd.DataFrame":
    """The rows, each under the place where it stands; cells that a row lacks are None."""
    import pandas as pd  # half a second, which only those wait for who read tables

    rows = dict(_rows(text, path, report))
    frame = pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)
    return frame.where(frame.notna(), None)


def _rows(text: str, path: Path, report: Report) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the place and the cells by column of every row; `table_cells` gives exact lines, which pandas loses."""
    body = text.lstrip()
    if body[:1] in ("{", "["):
        document = None if body[0] == "{" else parse_json(text, path)
        for where, value in json_objects(text, path, report, document):
            if isinstance(value, dict):
                yield where, value
            else:
                report(Problem("record", f"{where}: expected an object with labels, found {shown(value)}; correct it"))
        return
    header: list[str] = []
    for where, cells in table_cells(text, path):
        if not header:
            header = [cell.strip() for cell in cells]
            if twice := next((name for name in header if header.count(name) > 1), None):
                raise DataError(f"{where}: two columns are called {twice!r}; remove one of them")
        elif len(cells) != len(header):
            advice = "put texts with a comma in double quotes"
            report(Problem("record", f"{where}: {len(cells)} cells, expected {len(header)} as in the header; {advice}"))
        else:
            yield where, dict(zip(header, cells, strict=True))


def _roles(frame: "pd.DataFrame", columns: LabelColumns, path: Path) -> _Roles:
    """Finds the columns; JSON lines may omit what is empty, so the keys of all rows count."""
    names = list(frame.columns)
    image = _column(names, columns.image, IMAGE_COLUMNS, "image", path)
    caption = _column(names, columns.caption, CAPTION_COLUMNS, "caption", path)
    split = _column(names, columns.split, SPLIT_COLUMNS, "split", path)
    image_id = _column([name for name in names if name != image], None, ID_COLUMNS, "id", path)
    others = [name for name in names if name not in (image, caption, split, image_id)]
    each = columns.each
    labels = None if each else _column(others, columns.labels, LABEL_COLUMNS, "labels", path)
    if each is None and labels is None:
        each = tuple(name for name in others if frame[name].map(_number).notna().all())
    listed = f"(columns: {', '.join(names)})"
    for name in each or ():
        if name not in names:
            raise DataError(f"{path}: no column is called {name!r} {listed}; correct label_columns")
    if labels is None and not each:
        raise DataError(
            f"{path}: no column for the labels {listed}; set labels_column, or label_columns to columns of 0 and 1"
        )
    if image is None and caption is None:
        raise DataError(f"{path}: no column for the image and none for a caption {listed}; set image_column")
    return _Roles(image=image, image_id=image_id, caption=caption, split=split, labels=labels, each=tuple(each or ()))


def _column(names: list[str], given: str | None, usual: Sequence[str], role: str, path: Path) -> str | None:
    """The given column, or the first with a usual name; None when there is none."""
    if given is not None:
        if given not in names:
            raise DataError(f"{path}: no column is called {given!r} (columns: {', '.join(names)}); set {role}_column")
        return given
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def _number(value: object) -> float | None:
    """A number in [0, 1], also from text or a truth value; None for anything else."""
    if isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 else None


def _numbers(frame: "pd.DataFrame", names: list[str], report: Report) -> "pd.DataFrame":
    """Columns of numbers in [0, 1] as targets; rows with another cell are reported and absent."""
    cells = frame.reindex(columns=names)
    targets = cells.map(_number).astype(float)
    wrong = targets.isna()
    for where, name in wrong[wrong.any(axis=1)].idxmax(axis=1).items():
        found = frame.at[where, name] if name in frame else None
        what = f"label {name!r} is {shown(found)}, expected 0, 1 or a number in between"
        report(Problem("record", f"{where}: {what}; correct or remove the row"))
    return targets[~wrong.any(axis=1)]


def _label_sets(frame: "pd.DataFrame", column: str, columns: LabelColumns, report: Report) -> dict[str, list[str]]:
    """Labels of every row by its place; rows whose cell is something else are reported and absent."""
    texts = [cell for cell in frame[column] if isinstance(cell, str)]
    separator = columns.separator
    if separator is None:
        separator = next((sign for sign in SEPARATORS if any(sign in text for text in texts)), ",")
    found = {}
    for where, value in frame[column].items():
        labels = [] if value is None else label_list(value, separator)
        if labels is None:
            wanted = "expected a list of names, or names with a separator"
            report(Problem("record", f"{where}: {column} is {shown(value)}; {wanted}"))
        else:
            found[str(where)] = labels
    return found


def _one_hot(sets: Mapping[str, list[str]], given: Sequence[str] | None, report: Report) -> "pd.DataFrame":
    """Sets of labels as targets 0 and 1; rows with a label that is not given are reported and absent."""
    import pandas as pd

    names = list(given or sorted({label for labels in sets.values() for label in labels}))
    known = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    rows = {}
    for where, labels in sets.items():
        unknown = next((label for label in labels if label not in names), None)
        if unknown is None:
            rows[where] = [float(name in labels) for name in names]
        else:
            wrong = f"label {unknown!r} is not in label_names ({known})"
            report(Problem("record", f"{where}: {wrong}; add it or correct it"))
    return pd.DataFrame(list(rows.values()), index=list(rows), columns=names, dtype=float)


def _records(frame: "pd.DataFrame", targets: "pd.DataFrame", roles: _Roles, report: Report) -> list[Example]:
    """Checks image, caption and split of every row and puts rows of the same image together."""
    records: dict[str, Example] = {}
    rows = zip(frame.index, frame.to_dict("records"), targets.to_numpy().tolist(), strict=True)
    for number, (where, cells, labels) in enumerate(rows):
        record = _record(str(where), cells, tuple(labels), roles, number, report)
        if record is None:
            continue
        other = records.setdefault(str(record.image_id), record)
        if other is record:
            continue
        for what, mine, theirs in (("labels", record.labels, other.labels), ("split", record.split, other.split)):
            if mine != theirs:
                kind: ProblemKind = "leak" if what == "split" else "duplicate"
                here = f"{record.image_id} has another {what} than at {other.origin}"
                report(Problem(kind, f"{record.origin}: {here}; give each image one"))
        records[str(record.image_id)] = replace(other, captions=other.captions + record.captions)
    return list(records.values())


def _record(
    where: str, cells: Mapping[Any, Any], labels: tuple[float, ...], roles: _Roles, number: int, report: Report
) -> Example | None:
    """One row as a record; None when it was reported."""
    image = cells[roles.image] if roles.image is not None else ""
    if not isinstance(image, str) or (roles.image is not None and not image.strip()):
        report(Problem("record", f"{where}: the image's name is {shown(image)}; expected a path"))
        return None
    captions: list[str] = []
    if roles.caption is not None:
        captions = caption_texts(cells[roles.caption]) or []
        if not captions or not all(captions):
            wrong = f"the caption is {shown(cells[roles.caption])}; expected a text or a list of texts"
            report(Problem("empty", f"{where}: {wrong}, none empty; write one or remove the row"))
            return None
    split, known = split_name(cells[roles.split] if roles.split is not None else None, where, report)
    if not known:
        return None
    file = slashes(image)
    given = cells[roles.image_id] if roles.image_id is not None else None
    if not isinstance(given, int | float | str | None):
        report(Problem("record", f"{where}: {roles.image_id} is {shown(given)}, expected a number or text"))
        return None
    image_id = str(given) if given not in (None, "") else file or f"row {number + 1}"
    ref = ImageFile(file) if file else None
    return Example(
        image_id=image_id,
        image=ref,
        captions=tuple(captions),
        labels=labels,
        split=split,
        origin=f"{where} ({image_id})",
    )
