"""Images and annotations in tar archives, read at their places; nothing is unpacked or executed."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import DataError
from core.inputs import damage, open_regular, parse_json
from datamodules.readers.image_refs import ImageRef
from datamodules.readers.images import encoded_image, open_image
from datamodules.readers.records import Example, Split
from datamodules.shards.index import WAY_OUT, ShardFile, read_places

_MOST_MEMBER = 1 << 28
"""Bytes of one image."""
_MOST_RECORD = 1 << 24
"""Bytes of the annotations of one image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardImage(ImageRef):
    """An image in an archive.

    Attributes:
        path: path of the archive.
        name: name of the image in it, without an ending.
        offset: where its bytes begin.
        size: how many there are.
        description: description of a synthetic scene, as JSON.
    """

    path: str
    name: str
    offset: int
    size: int
    description: str | None = None

    @property
    def id(self) -> str:
        """Archive and name."""
        return f"{Path(self.path).name}/{self.name}"

    @property
    def scene(self) -> str | None:
        """Description of a synthetic scene."""
        return self.description

    def open(self, min_side: int = 0) -> Image.Image:
        """Reads the image as RGB."""
        return open_image(self._content(), name=f"{self.path}/{self.name}", min_side=min_side)

    def encoded(self) -> tuple[bytes, str]:
        """The bytes as they are in the archive."""
        return encoded_image(self._content(), f"{self.path}/{self.name}")

    def stamp(self) -> str:
        """Path, size and modification time of the archive, and the place in it."""
        status = Path(self.path).stat()
        return f"{Path(self.path).absolute()}\t{status.st_size}\t{status.st_mtime_ns}\t{self.offset}"

    def _content(self) -> bytes:
        return _read_at(self.path, self.offset, self.size, _MOST_MEMBER)


class ShardExamples(Sequence[Example]):
    """The examples of a split, each read when it is asked for.

    In memory are the names of the archives; the places of their members are mapped from a file.

    Args:
        folder: folder of the shards.
        split: the split.
        files: its archives.
        labels: how many labels an image has.

    Raises:
        DataError: an archive is missing, or has another size than the index says.
    """

    def __init__(self, folder: Path, split: Split, *, files: Sequence[ShardFile], labels: int = 0) -> None:
        self.folder, self.split, self.labels = folder, split, labels
        self.names = [file.file for file in files]
        self.sizes = [file.images for file in files]
        self.ends = list(accumulate(self.sizes))
        for file in files:
            path = folder / file.file
            size = path.stat().st_size if path.is_file() else None
            if size != file.bytes:
                found = "no such file" if size is None else f"has {size:,} bytes, expected {file.bytes:,}"
                raise DataError(f"{path}: {found}; {WAY_OUT}")
        self._places: NDArray[np.int64] | None = None
        self.places()

    def places(self) -> NDArray[np.int64]:
        """Places of all members, `(n, 4)`, mapped."""
        if self._places is None:
            self._places = read_places(self.folder, self.split, len(self))
        return self._places

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._read(row) for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._read(index % len(self))

    def _read(self, row: int) -> Example:
        path, where, values = self._record(row)
        offset, size = self.places()[row, :2].tolist()
        name = f"{row:09d}"
        with damage(where, "the annotations of an image", WAY_OUT, DataError):
            scene = _text(values.get("scene"))
            image = ShardImage(path=path, name=name, offset=offset, size=size, description=scene) if size else None
            origin = f"{Path(path).name}/{name}"
            return Example(image=image, split=self.split, origin=origin, **_annotations(values, self.labels))

    def _record(self, row: int) -> tuple[str, str, dict[str, Any]]:
        """Archive of an image, what its annotations are called in messages, and the annotations."""
        path = str(self.folder / self.names[bisect_right(self.ends, row)])
        offset, size = self.places()[row, 2:].tolist()
        where = f"{path}/{row:09d}.json"
        content = _read_at(path, offset, size, _MOST_RECORD)
        with damage(where, "the annotations of an image", WAY_OUT, DataError):
            return path, where, dict(parse_json(content.decode(), where))

    def classes(self) -> dict[str, str]:
        """Class of each image that has one, by its id as text."""
        records = (self._record(row)[2] for row in range(len(self)))
        return {str(values["image_id"]): str(values["class"]) for values in records if "class" in values}

    def __getstate__(self) -> dict[str, Any]:
        """Other processes map the places themselves."""
        return {**self.__dict__, "_places": None}


def _annotations(values: dict[str, Any], labels: int) -> dict[str, Any]:
    """The fields of an example.

    Raises:
        ValueError: a value is of the wrong kind.
    """
    image_id = values["image_id"]
    fields = {name: tuple(values.get(name, ())) for name in ("captions", "caption_labels", "conditions", "labels")}
    texts = (*fields["captions"], *fields["caption_labels"])
    numbers = all(type(label) is int for label in fields["conditions"])
    if not isinstance(image_id, int | str) or not all(isinstance(text, str) for text in texts) or not numbers:
        raise ValueError("a value of the wrong kind")
    fields["labels"] = tuple(float(label) for label in fields["labels"])
    if len(fields["labels"]) not in (0, labels) or len(fields["conditions"]) not in (0, len(fields["captions"])):
        raise ValueError("another number of labels")
    return {"image_id": image_id, **fields}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_at(path: str, offset: int, size: int, most: int) -> bytes:
    """Bytes of a file.

    Raises:
        DataError: there are fewer, or the place makes no sense.
    """
    if not (offset >= 0 and 0 < size <= most):
        raise DataError(f"{path}: {size:,} bytes at {offset:,}: the places of the shards are damaged; {WAY_OUT}")
    file = _opened(path)
    content = os.pread(file.fileno(), size, offset)  # leaves the position alone, which forked workers share
    if len(content) < size:
        raise DataError(f"{path}: is cut off; {WAY_OUT}")
    return content


@lru_cache(maxsize=64)
def _opened(path: str) -> BufferedReader:
    """An archive, kept open: opening one on a network drive takes as long as reading an image."""
    return open_regular(path, "a shard")
