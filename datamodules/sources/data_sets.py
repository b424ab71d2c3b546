"""Pictures of Hugging Face data sets: read from the hub as they are needed, or from tables on the disk."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from core.errors import DataError, UserError
from core.inputs import damage
from datamodules.readers.hub_rows import loading, undecoded
from datamodules.readers.records import IMAGE_COLUMNS, find_column
from datamodules.sources.base import PictureSource, RawPicture
from datamodules.sources.shards import ID_COLUMNS, ParquetPictures, located, picture

HUB = "hf://"
_NAME = re.compile(r"hf://datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?/?")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a data set on the hub, of which only what is needed is read.

    Attributes:
        address: as `huggingface_hub` writes it: ``hf://datasets/OWNER/NAME@COMMIT/PATH``.
        size: in bytes.
    """

    address: str
    size: int

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.address.partition("@")[2].partition("/")[2]

    def __str__(self) -> str:
        return self.address

    def open(self) -> IO[bytes]:
        """Opens it for reading."""
        from huggingface_hub import HfFileSystem

        file: IO[bytes] = HfFileSystem().open(self.address, "rb")
        return file


def hub_pictures(name: str, subset: str | None, split: str | None) -> PictureSource:
    """The pictures of a data set on the hub.

    Of a data set that consists of Parquet files, as nearly all do, rows are read from the hub when they are needed, a
    group at a time. Any other is downloaded into the cache of `datasets` first.

    Args:
        name: ``hf://datasets/OWNER/NAME``, and perhaps ``@REVISION``.
        subset: configuration, of a data set that has several.
        split: None: all splits, one after the other.

    Raises:
        UserError: there is none of that name, subset or split, or it cannot be reached.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"'{name}': expected hf://datasets/OWNER/NAME, and perhaps @REVISION behind it")
    with loading(name):
        from datasets import load_dataset, load_dataset_builder
        from huggingface_hub import HfFileSystem

        options = {"revision": match["revision"]}
        builder = load_dataset_builder(match["name"], subset, **options)
        files: Mapping[str, Sequence[str]] = {str(key): list(map(str, own)) for key, own in _files(builder).items()}
        if type(builder).__name__ != "Parquet" or not all(one.startswith(HUB) for own in files.values() for one in own):
            tables = load_dataset(match["name"], subset, **options)
            return DataSetPictures({str(key): table for key, table in tables.items()}, name, split=split)
        system = HfFileSystem()
        chosen = [one for key in _splits(files, name, split) for one in files[key]]
        return ParquetPictures([HubFile(one, int(system.info(one)["size"])) for one in chosen])


def saved_pictures(folder: Path, split: str | None) -> PictureSource:
    """The pictures of a data set that `save_to_disk` wrote.

    Args:
        folder: of it.
        split: None: all splits, one after the other.

    Raises:
        UserError: it cannot be read, or has no such split.
    """
    with loading(str(folder)):
        from datasets import load_from_disk

        tables = load_from_disk(str(folder))
        tables = dict(tables) if isinstance(tables, dict) else {"train": tables}
        return DataSetPictures(tables, str(folder), split=split)


def _files(builder: Any) -> Mapping[Any, Any]:
    """The files of each split."""
    return builder.config.data_files or {}


def _splits(there: Mapping[str, Any], name: str, split: str | None) -> list[str]:
    """The splits that are meant.

    Raises:
        DataError: there is no such split.
    """
    if split is not None and split not in there:
        raise DataError(f"{name}: no split {split!r} (it has {', '.join(there)}); set --split to one of them")
    return list(there) if split is None else [split]


class DataSetPictures(PictureSource):
    """Pictures in tables of `datasets`, mapped from the disk.

    A picture is called as a column of ids says, else by its split and row.

    Args:
        tables: by split.
        name: of the data set, for messages.
        split: None: all.

    Raises:
        DataError: there is no such split, or a table has no column of pictures.
    """

    kind = "dataset"

    def __init__(self, tables: Mapping[str, Any], name: str, *, split: str | None) -> None:
        self.splits = _splits(tables, name, split)
        self.name, self.tables = name, []
        for own in self.splits:
            names = tables[own].column_names
            image = names[find_column(names, None, IMAGE_COLUMNS, "image", f"{name}, split {own}")]
            ids = next((one for one in ID_COLUMNS if one in names and one != image), None)
            columns = {image: "image"} if ids is None else {image: "image", ids: "id"}
            self.tables.append(undecoded(tables[own].select_columns(list(columns))).rename_columns(columns))
        self.ends = list(accumulate(map(len, self.tables)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def digest(self) -> str:
        """Splits, how many rows they have, and their ids."""
        digest = hashlib.blake2b(digest_size=16)
        for split, table in zip(self.splits, self.tables, strict=True):
            digest.update(f"{split}\t{len(table)}\n".encode())
            if "id" in table.column_names:
                for batch in table.select_columns(["id"]).iter(4096):
                    digest.update("".join(f"{one}\n" for one in batch["id"]).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def read(self, rows: range) -> Iterator[RawPicture]:
        """Reads rows one after the other."""
        for place, own in located(self.ends, rows):
            table, split = self.tables[place], self.splits[place]
            with damage(self.name, "a data set", "make it again", DataError):
                columns = table[own.start : own.stop]
            for number, row in enumerate(own):
                values = {name: column[number] for name, column in columns.items()}
                yield picture(values, f"{split}#{row}", None)
