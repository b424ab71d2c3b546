"""Pictures inside larger files: Parquet tables with a column of encoded images, and tar archives (WebDataset).

Nothing of them is unpacked or executed: tar archives are read with `tarfile` at the places of their members, and no
member but images is looked at.
"""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.errors import DataError, UserError
from core.inputs import damage, open_regular
from core.parquet import open_table, read_rows
from core.tar_files import open_tar, tar_members
from datamodules.readers.hub_rows import is_address
from datamodules.readers.images import IMAGE_SUFFIXES
from datamodules.readers.records import IMAGE_COLUMNS, find_column
from datamodules.sources.base import PictureSource, RawPicture, digest_of, valid_text

ID_COLUMNS = ("image_id", "id", "__key__", "key", "uid", "file_name", "filename")
"""Columns of Parquet tables that name a picture, first match wins."""
_MOST_MEMBER = 1 << 28
"""Bytes of one picture."""
_AGAIN = "get the file again, or take it away"


class RemoteFile(Protocol):
    """A file that is somewhere else than on the disk."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def size(self) -> int:
        """In bytes."""

    def __hash__(self) -> int: ...

    def open(self) -> IO[bytes]:
        """Opens it for reading."""


AnyFile = Path | RemoteFile


def located(ends: Sequence[int], rows: range) -> Iterator[tuple[int, range]]:
    """Where rows lie that go on from one file, group or table into the next.

    Args:
        ends: how many rows there are up to the end of each.
        rows: with step 1.

    Yields:
        Number of the file, and rows of it.

    >>> list(located([3, 3, 8], range(2, 5)))
    [(0, range(2, 3)), (2, range(0, 2))]
    """
    start = rows.start
    while start < rows.stop:
        place = bisect_right(ends, start)
        first = ends[place - 1] if place else 0
        stop = min(rows.stop, ends[place])
        yield place, range(start - first, stop - first)
        start = stop


class _Shards(PictureSource):
    """Pictures in several files, one file after the other.

    Args:
        files: in order, each of another name.

    Raises:
        UserError: two have the same name.
    """

    def __init__(self, files: Sequence[AnyFile]) -> None:
        self.files = list(files)
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise UserError(f"{self.kind} shards: several are called {max(names, key=names.count)}: rename them")
        self.ends = list(accumulate(self._count(file) for file in self.files))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def digest(self) -> str:
        """Names and sizes of the files."""
        sizes = [file.stat().st_size if isinstance(file, Path) else file.size for file in self.files]
        return digest_of(f"{file.name}\t{size}" for file, size in zip(self.files, sizes, strict=True))

    def read(self, rows: range) -> Iterator[RawPicture]:
        """Reads rows one after the other."""
        for place, own in located(self.ends, rows):
            yield from self._read(place, own)

    @abstractmethod
    def _count(self, file: Any) -> int:
        """How many pictures a file has; called once for each in order."""

    @abstractmethod
    def _read(self, place: int, rows: range) -> Iterator[RawPicture]:
        """Reads rows of one file."""


class ParquetPictures(_Shards):
    """Parquet tables with a column of encoded images: bytes, or the Image feature of `datasets`.

    A picture is called as a column of ids says, else by its file and row. A group of rows is read at once, so memory
    grows with the groups of the files, not with the number of pictures.
    """

    kind = "parquet"

    def _count(self, file: AnyFile) -> int:
        return int(_metadata(file)[0].num_rows)

    def _read(self, place: int, rows: range) -> Iterator[RawPicture]:
        file, row = self.files[place], rows.start
        folder = file.parent if isinstance(file, Path) else None
        for group, own in located(_metadata(file)[1], rows):
            table = _group(file, group)
            with damage(str(file), "a Parquet file", _AGAIN, DataError):  # a date that does not exist
                cells = table.slice(own.start, len(own)).to_pylist()
            for values in cells:
                yield picture(values, f"{file.name}#{row}", folder)
                row += 1


def picture(values: Mapping[str, Any], position: str, folder: Path | None) -> RawPicture:
    """The picture of a row.

    Args:
        values: its columns ``image``, bytes, the Image feature of `datasets`, a path or an address, and perhaps ``id``.
        position: what it is called where it has no id.
        folder: where paths start; None: there are no files.
    """
    content, name = values["image"], values.get("id")
    if isinstance(content, dict):
        content = content.get("path") if content.get("bytes") is None else content["bytes"]
    if isinstance(content, str):
        beside = None if folder is None else str(folder / content)
        content = content if is_address(content) or (beside is None and Path(content).is_absolute()) else beside
    elif not isinstance(content, bytes) or len(content) > _MOST_MEMBER:
        content = None
    return RawPicture(valid_text(str(position if name is None else name)), content)


def _open(file: AnyFile) -> IO[bytes]:
    return open_regular(file) if isinstance(file, Path) else file.open()


@lru_cache(maxsize=16)
def _metadata(file: AnyFile) -> tuple[Any, list[int]]:
    """What a table says of itself, and where its groups of rows end."""
    with damage(str(file), "a Parquet file", _AGAIN, DataError), _open(file) as opened:
        found = open_table(opened).metadata
    return found, list(accumulate(found.row_group(group).num_rows for group in range(found.num_row_groups)))


@lru_cache(maxsize=1)
def _group(file: AnyFile, group: int) -> pa.Table:
    """A group of rows with the columns ``image`` and, where there is one, ``id``."""
    with damage(str(file), "a Parquet file", _AGAIN, DataError), _open(file) as opened:
        table = open_table(opened)
        names = table.schema_arrow.names
        image = names[find_column(names, None, IMAGE_COLUMNS, "image", str(file))]
        own = next((name for name in ID_COLUMNS if name in names and name != image), None)
        columns = [image] if own is None else [image, own]
        found = read_rows(table, opened, columns=columns, group=group)
    return found.rename_columns(["image", "id"][: len(columns)])


class TarPictures(_Shards):
    """Tar archives as WebDataset writes them: every image in them is a picture, whatever else is beside it.

    A picture is called by its archive and its path there.
    """

    kind = "tar"

    def __init__(self, files: Sequence[Path]) -> None:
        self._names: list[str] = []
        self._places: list[NDArray[np.int64]] = []
        super().__init__(files)

    def _count(self, file: Path) -> int:
        places = []
        for name, offset, size in _members(file):
            self._names.append(valid_text(f"{file.name}/{name}"))
            places.append((offset, size))
        self._places.append(np.array(places, np.int64).reshape(-1, 2))
        return len(places)

    def _read(self, place: int, rows: range) -> Iterator[RawPicture]:
        file = self.files[place]
        assert isinstance(file, Path), "archives are on the disk"
        first = self.ends[place - 1] if place else 0
        with open_regular(file) as opened:
            for row in rows:
                offset, size = self._places[place][row].tolist()
                opened.seek(offset)
                yield RawPicture(self._names[first + row], opened.read(size) if size <= _MOST_MEMBER else None)


def _members(file: Path) -> Iterator[tuple[str, int, int]]:
    """Path, place and size in bytes of every image of an archive."""
    with (
        damage(file, "an uncompressed tar archive", "unpack it if it is compressed, else get it again", DataError),
        open_regular(file) as opened,
        open_tar(opened) as archive,
    ):
        for member in tar_members(archive):
            name = member.name.removeprefix("./")
            hidden = name.rpartition("/")[2].startswith(".")
            if member.isreg() and not member.issparse() and not hidden and name.lower().endswith(IMAGE_SUFFIXES):
                yield name, member.offset_data, member.size
