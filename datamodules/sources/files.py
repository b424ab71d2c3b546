"""Pictures that are files: in folders, or named by a list."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import DataError, UserError
from core.inputs import open_regular, reason
from datamodules.readers.images import IMAGE_SUFFIXES
from datamodules.readers.records import IMAGE_COLUMNS, find_column
from datamodules.sources.base import PictureSource, RawPicture, digest_of, valid_text

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
"""Endings of lists of files."""
_MOST_LINE = 1 << 20
"""Bytes of a line of a list."""
_MOST_PATH = 4096
"""Characters of a path; no file system has longer ones."""


class PictureFiles(PictureSource):
    """Picture files.

    Args:
        base: folder where relative names start; empty: the working directory.
        names: paths, in order.
        kind: "folder", "list" or "files".
    """

    def __init__(self, base: str, names: Sequence[str], *, kind: str) -> None:
        self.base, self.names, self.kind = base, names, kind

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """The names in their order."""
        return digest_of(self.names)

    def read(self, rows: range) -> Iterator[RawPicture]:
        """Names and paths; the files are opened by whoever decodes them."""
        for row in rows:
            name = self.names[row]
            yield RawPicture(valid_text(name), os.path.join(self.base, name))  # noqa: PTH118 - pathlib is ten times slower


def folder_of(folder: str) -> PictureFiles:
    """All pictures of a folder, sub-folders included, in the order of their relative paths.

    Raises:
        UserError: a folder cannot be read.
    """
    return PictureFiles(folder, sorted(_walk(folder)), kind="folder")


def files_of(names: Sequence[str]) -> PictureFiles:
    """Pictures and folders of pictures, as they are named."""
    found: list[str] = []
    for name in names:
        found += [os.path.join(name, one) for one in sorted(_walk(name))] if Path(name).is_dir() else [name]  # noqa: PTH118
    return PictureFiles("", found, kind="files")


def _walk(folder: str) -> Iterator[str]:
    """Relative paths of the pictures in a folder; hidden files are none: macOS leaves "._image.jpg" in archives."""

    def fail(error: OSError) -> None:
        raise UserError(f"folder '{error.filename}' cannot be read ({error.strerror}): make it readable") from error

    start = len(os.path.join(folder, ""))  # noqa: PTH118
    for place, _, names in os.walk(folder, onerror=fail):
        prefix = os.path.join(place, "")[start:]  # noqa: PTH118
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield prefix + name


def list_of(path: Path) -> PictureFiles:
    """Pictures that a list names: one path a line (.txt), or a column or key of it (.csv, .tsv, .jsonl).

    Relative paths start at the list's folder or, when the first picture is not there, at the working directory.

    Raises:
        DataError: the list cannot be read, or names no picture.
    """
    suffix = path.suffix.lower()
    # names that are not UTF-8 stand in lists as the file system has them
    errors = "surrogateescape" if suffix == ".txt" else "strict"
    read = {".txt": _lines, ".jsonl": _objects}.get(suffix, _cells)
    newline = "" if read is _cells else "\n"
    try:
        with (
            open_regular(path, "a list of picture files") as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline=newline) as text,
        ):
            names = list(read(text, path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({reason(error)}); save the file as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a valid table ({error}); check its double quotes") from error
    if not names:
        raise DataError(f"{path}: names no picture; expected one path a line")
    beside = str(path.parent)
    return PictureFiles(beside if os.path.lexists(path.parent / names[0]) else "", names, kind="list")


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    for number, line in enumerate(_bounded(text, path), start=1):
        if "\0" in line:
            raise DataError(f"{path}, line {number}: has NUL bytes, so it is damaged; get the file again")
        if name := line.rstrip("\r\n"):
            yield _named(name, f"{path}, line {number}")


def _objects(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    key: str | None = None
    for number, line in enumerate(_bounded(text, path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({reason(error)}); correct or remove the line") from error
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected an object with the path of a picture")
        if key is None:
            keys = list(map(str, value))
            key = keys[find_column(keys, None, IMAGE_COLUMNS, "image", where)]
        yield _named(value.get(key), where)


def _cells(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    rows = csv.reader(_bounded(text, path), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    header = next(rows, [])
    column = find_column(header, None, IMAGE_COLUMNS, "image", str(path))
    for row in rows:
        if row:
            yield _named(row[column] if column < len(row) else None, f"{path}, line {rows.line_num}")


def _named(value: object, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_PATH or "\0" in value:
        raise DataError(f"{where}: the picture is {str(value)[:40]!r}; expected a path")
    return value


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """The lines of a list, none of which may fill the memory."""
    while line := text.readline(_MOST_LINE):
        if len(line) == _MOST_LINE:
            raise DataError(f"{path}: has a line of more than {_MOST_LINE:,} characters; is it a list of files?")
        yield line
