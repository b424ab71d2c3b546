"""Caption files of every common format, detected by their content.

Formats: COCO captions JSON, Karpathy JSON, tables with a header (CSV, TSV), JSON lines and JSON lists. All are UTF-8,
with or without byte order mark.
"""

import json
from pathlib import Path
from typing import Any, Literal

from core.errors import DataError
from core.inputs import check_halves, parse_json, read_text
from datamodules.readers.caption_json import read_coco, read_karpathy
from datamodules.readers.caption_tables import json_records, table_records
from datamodules.readers.records import Columns, Example, Report, fail

Format = Literal["auto", "coco", "karpathy", "table", "lines"]


def read_records(
    path: str | Path, *, file_format: Format = "auto", columns: Columns | None = None, report: Report = fail
) -> list[Example]:
    """Reads a caption file of any format, found by its content unless it is named.

    Args:
        path: the file.
        file_format: ``auto``, or one format for files that are detected wrongly.
        columns: names of columns or keys, for tables and lines.
        report: what is done with defects of single records.

    Returns:
        The images in the order of the file, each with all its captions.

    Raises:
        DataError: the file as a whole cannot be used, or `report` raises.
    """
    path = Path(path)
    text = read_text(path)
    columns = columns or Columns()
    document: Any = None
    if file_format == "auto":
        file_format, document = _detect(text, path)
    if file_format == "table":
        records = table_records(text, path, columns, report)
    elif file_format == "lines":
        records = json_records(text, path, columns, report, document)
    else:
        document = parse_json(text, path) if document is None else document
        if file_format == "coco" and columns.label is not None:
            raise DataError(f"{path}: COCO captions have no labels; set label_column to null, or give a table")
        records = (
            read_coco(path, document, report)
            if file_format == "coco"
            else read_karpathy(path, document, report, columns.label)
        )
    if not records:
        raise DataError(f"{path}: no usable record with an image and a caption; is it the right file?")
    return records


def _detect(text: str, path: Path) -> tuple[Format, Any]:
    """Tells the format by the content; also returns the JSON document if the whole file was parsed for that."""
    body = text.strip()
    if not body:
        raise DataError(f"{path}: the file is empty; expected captions as CSV, JSON lines, COCO or Karpathy JSON")
    if body[0] not in "{[":
        return "table", None
    check_halves(text, path)
    first_line = body.split("\n", 1)[0]
    try:
        first = json.loads(first_line)
    except (ValueError, RecursionError):
        first = None
    if isinstance(first, dict) and not _is_document(first):
        return "lines", None
    document = first if first is not None and len(first_line) == len(body) else parse_json(text, path)
    if isinstance(document, list):
        return "lines", document
    if "annotations" in document:
        return "coco", document
    if _is_document(document):
        return "karpathy", document
    keys = ", ".join(list(document)[:6]) or "none"
    raise DataError(f"{path}: JSON object with keys {keys}; expected COCO (images, annotations) or Karpathy (images)")


def _is_document(value: dict[str, Any]) -> bool:
    """Whether an object is a whole data set rather than one line of many."""
    # a JSON line may have a key "images" too, but that names files
    listed = [value.get(key) for key in ("images", "annotations")]
    return any(isinstance(entries, list) and (not entries or isinstance(entries[0], dict)) for entries in listed)
