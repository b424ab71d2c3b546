"""A data set of the hub in the layout of UCM-Captions: ``dataset.json`` and a folder of images."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import DataError
from core.files import replacing, write_json
from datamodules.hub_captions import HubCaptions
from datamodules.readers.records import SPLIT_NAMES, caption_texts, find_column

_FILE_COLUMNS = ("filename", "file_name", "path", "image_name", "name")
_CAPTION_COLUMNS = ("captions", "caption", "sentences", "text")


def write_dataset(source: str, root: Path) -> list[str]:
    """Writes the rows of a table with file names, captions and embedded images.

    Images that are there already are left alone, so that the same call goes on after an interruption;
    ``dataset.json`` is written at the end.

    Args:
        source: hub id, or a local file or folder, as `HubCaptions` takes them.
        root: folder of the data set.

    Returns:
        A line on what was written.

    Raises:
        DataError: a column is missing, a row has no name, caption or image, or a split is unknown.
    """
    images: list[dict[str, Any]] = []
    for split, table in HubCaptions(root=source).tables.items():
        name = SPLIT_NAMES.get(split.lower())
        if name is None:
            raise DataError(f"{source}: split {split!r} is unknown, expected one of {', '.join(SPLIT_NAMES)}")
        columns = list(table.column_names)
        where = f"{source}, split {split}"
        file = columns[find_column(columns, None, _FILE_COLUMNS, "file name", where)]
        caption = columns[find_column(columns, None, _CAPTION_COLUMNS, "caption", where)]
        image = columns[find_column(columns, None, ("image",), "image", where)]
        for number, row in enumerate(table):
            record = _record(row, (file, caption), f"{where}, row {number}", len(images))
            _write_image(row[image], root / "imgs" / record["filename"], f"{where}, row {number}")
            images.append({**record, "split": name})
    splits = {name: sum(record["split"] == name for record in images) for name in ("train", "val", "test")}
    write_json(root / "dataset.json", {"dataset": PurePosixPath(source).name, "images": images})
    counts = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    lines = [f"{source}: {len(images):,} images ({counts}) put into {root}: dataset.json and imgs"]
    absent = [name for name, count in splits.items() if not count]
    return [*lines, f"{source}: has no split {' and '.join(absent)}"] if absent else lines


def _record(row: Mapping[str, Any], columns: tuple[str, str], where: str, number: int) -> dict[str, Any]:
    """A record of ``dataset.json`` without its split."""
    name, texts = PurePosixPath(str(row[columns[0]] or "")).name, caption_texts(row[columns[1]]) or []
    if not name or not any(texts):
        raise DataError(f"{where}: has no {'caption' if name else 'file name'}; correct the table")
    sentences = [
        {"raw": text, "tokens": text.rstrip(" .").split(), "imgid": number, "sentid": number * len(texts) + place}
        for place, text in enumerate(texts)
        if text
    ]
    return {"filename": name, "imgid": number, "sentids": [s["sentid"] for s in sentences], "sentences": sentences}


def _write_image(cell: object, path: Path, where: str) -> None:
    """Writes an embedded image as it is."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(cell, dict) and not content and cell.get("path") and Path(cell["path"]).is_file():
        content = Path(cell["path"]).read_bytes()
    if not isinstance(content, bytes):
        raise DataError(f"{where}: has no embedded image; read the table with hub_captions")
    if not path.is_file():
        with replacing(path) as file:
            file.write(content)
