"""What a folder of shards says of itself: ``index.json``, ``words.json`` and the places of the members.

The places of a split lie in ``SPLIT.npy``, a row for each image in the order of the archives: offset and size of the
image and of its JSON in the archive, in bytes; no image: zeros. The file is mapped, so it takes no memory that others
could not have.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError, command
from core.files import write_json
from core.inputs import damage, open_regular, parse_json, read_text
from core.tar_files import open_tar, tar_members
from datamodules.readers.records import SPLITS, Split

INDEX = "index.json"
WORDS = "words.json"
FORMAT = 1
"""Of the index and the archives; another one is not read."""
WAY_OUT = "make the shards again with data shard, which keeps those that are whole"
_CHUNK = 1 << 20
_MOST = 1 << 48
"""Images or bytes of an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One archive.

    Attributes:
        file: its name.
        images: how many it has.
        bytes: its size.
        blake2b: digest of its bytes, 16 of them in hexadecimal.
    """

    file: str
    images: int
    bytes: int
    blake2b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What is in a folder of shards.

    Attributes:
        made_from: name of the data module that was converted.
        label_names: names of the labels of images.
        condition_names: names of the labels of captions.
        splits: the archives of each split, in order.
    """

    made_from: str
    label_names: tuple[str, ...]
    condition_names: tuple[str, ...]
    splits: Mapping[Split, Sequence[ShardFile]]

    def write(self, folder: Path) -> None:
        """Writes the index, whole.

        Raises:
            OSError: it cannot be written.
        """
        splits = {
            name: {
                "images": sum(file.images for file in files),
                "bytes": sum(file.bytes for file in files),
                "shards": [asdict(file) for file in files],
            }
            for name, files in self.splits.items()
        }
        names = {"label_names": self.label_names, "condition_names": self.condition_names}
        write_json(folder / INDEX, {"format": FORMAT, "made_from": self.made_from, **names, "splits": splits}, 1)


def read_index(folder: Path) -> ShardIndex:
    """Reads the index of a folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        way = command("data", "shard", "NAME", "--root", "DIR", "--out", folder)
        raise DataError(f"{path}: no such file; expected the index of shards, which are made with {way}")
    found = parse_json(read_text(path), path)
    with damage(path, "an index of shards", WAY_OUT, DataError):
        if found["format"] != FORMAT:
            raise DataError(f"{path}: is of format {found['format']!r}, expected {FORMAT}; {WAY_OUT}")
        splits: dict[Split, Sequence[ShardFile]] = {
            name: [_shard_file(entry) for entry in found["splits"][name]["shards"]]
            for name in SPLITS
            if name in found["splits"]
        }
        return ShardIndex(
            made_from=str(found["made_from"]),
            label_names=tuple(map(str, found["label_names"])),
            condition_names=tuple(map(str, found["condition_names"])),
            splits=splits,
        )


def _shard_file(entry: Mapping[str, Any]) -> ShardFile:
    file = ShardFile(**entry)
    if not isinstance(file.file, str) or Path(file.file).name != file.file or not file.file.endswith(".tar"):
        raise ValueError(f"a shard is called {str(file.file)[:40]!r}")
    if not all(isinstance(number, int) and 0 < number < _MOST for number in (file.images, file.bytes)):
        raise ValueError(f"{file.file} has {file.images} images and {file.bytes} bytes")
    return file


def read_words(folder: Path) -> dict[str, int]:
    """How often each word occurs in the captions that the vocabulary is made of.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = folder / WORDS
    found = parse_json(read_text(path), path)
    if not isinstance(found, dict) or not found or not all(type(count) is int for count in found.values()):
        raise DataError(f"{path}: expected an object with a number for each word; {WAY_OUT}")
    return found


def places_path(folder: Path, split: Split) -> Path:
    """File of the places of a split."""
    return folder / f"{split}.npy"


def read_places(folder: Path, split: Split, images: int) -> NDArray[np.int64]:
    """The places of a split, mapped: `(images, 4)`.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = places_path(folder, split)
    open_regular(path, "the places of the images in the shards").close()
    with damage(path, "the places of the images in the shards", WAY_OUT, DataError):
        places: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(places, np.ndarray):  # an archive of several arrays
        raise DataError(f"{path}: is no array of NumPy; {WAY_OUT}")
    if places.dtype != np.int64 or places.shape != (images, 4):
        raise DataError(f"{path}: has {places.shape} of {places.dtype}, expected ({images}, 4) of int64; {WAY_OUT}")
    return places


def shard_digest(path: Path) -> str:
    """Digest of a file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open_regular(path, "a shard") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def scan(path: Path) -> tuple[str, NDArray[np.int64]]:
    """What an archive notes of itself, and the places of its images `(n, 4)`.

    Raises:
        DataError: it is damaged.
    """
    rows: list[tuple[int, int, int, int]] = []
    image = (0, 0)
    with (
        damage(path, "a shard", "remove it and call data shard again", DataError),
        open_regular(path, "a shard") as file,
        open_tar(file) as archive,
    ):
        for member in tar_members(archive):
            if member.name.endswith(".json"):
                rows.append((*image, member.offset_data, member.size))
                image = (0, 0)
            else:
                image = (member.offset_data, member.size)
        noted = str(archive.pax_headers.get("comment", ""))
    return noted, np.array(rows, np.int64).reshape(-1, 4)
