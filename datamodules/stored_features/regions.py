"""Region features that somebody else has computed: how Visual Genome detectors' features usually travel.

Two forms: a folder of ``.npz`` files, one for each image, and the tab-separated file of bottom-up attention (Anderson
et al. 2018), whose lines are ``image_id image_w image_h num_boxes boxes features``, the last two base64 of float32;
LXMERT's file with ten columns is read too. They are put into a feature store once (half precision, see
`datamodules.stored_features.store`), because neither form can be read at random fast enough for training.

Letters: N images, R most regions of an image, D their width.
"""

import base64
import binascii
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from core.errors import DataError, UserError
from core.files import write_cache
from core.inputs import open_regular, parse_json, read_text
from datamodules.readers.records import Example, Problem
from datamodules.stored_features.arrays import array_shape, read_array
from datamodules.stored_features.files import FeatureStore, Half, write_store
from networks.encoders.positions import PREFIX, WIDTH, box_positions

Array = NDArray[np.float32]

_TSV_COLUMNS = (6, 10)
_BATCH = 32
_LONGEST = 1 << 27
"""Bytes of a line that are read; 100 regions of width 2,048 have 1.1 million."""
_MOST_REGIONS = 10_000
"""Of an image: the store has room for the most regions in every image."""


def open_regions(path: str | Path, root: Path, cache_dir: Path) -> "RegionFiles":
    """Opens a folder of .npz files or a TSV.

    Args:
        path: the folder or file, in the root or from where you are; ``positions/`` before the name of a TSV puts an
            encoding of its boxes behind their features, see `networks.encoders.positions`.
        root: folder of the data set.
        cache_dir: folder of files that can be made again.

    Raises:
        DataError: neither is there, or no boxes are.
    """
    name, inside = str(path), root / path
    positions = name.startswith(PREFIX) and not (inside.exists() or Path(name).exists())
    if positions:
        name = name.removeprefix(PREFIX)
        inside = root / name
    found = inside if inside.exists() else Path(name)
    if found.is_dir() and positions:
        raise DataError(f"regions={path}: .npz files are read without their boxes; leave {PREFIX} out, or give a TSV")
    if found.is_dir():
        return NpzRegions(found)
    if found.is_file():
        return TsvRegions(found, cache_dir, positions=positions)
    raise DataError(f"regions={path}: neither a folder of .npz files nor a TSV file in {root} or here")


def names_of(example: Example) -> list[str]:
    """What an image may be called in region files, the likeliest first.

    >>> from datamodules.readers.image_refs import ImageFile
    >>> names_of(Example(image_id=391895, image=ImageFile("train2017/000000391895.jpg")))
    ['391895', '000000391895']
    >>> names_of(Example(image_id="news/a.jpg"))
    ['news/a.jpg', 'news/a', 'a.jpg', 'a']
    """
    image_id = str(example.image_id)
    names = [image_id]
    if Path(image_id).suffix.lower() in (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"):
        names += [image_id.rpartition(".")[0], Path(image_id).name, Path(image_id).stem]
    if example.image is not None and example.image.file is not None:
        names.append(example.image.file.stem)
    # COCO's names have zeros in front, its ids do not
    names += [name.lstrip("0") for name in names if name.isdecimal() and name.strip("0")]
    return list(dict.fromkeys(names))


class RegionFiles(ABC):
    """Region features by name of the image.

    Args:
        path: folder or file.
    """

    variant: Mapping[str, Any] = {}
    """What else the features depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def first(self) -> Array:
        """Features of some image, read without looking at all others, `(r, D)`."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is an image of this name."""

    @abstractmethod
    def count(self, name: str) -> int:
        """Number of regions of an image; its features are not read."""

    @abstractmethod
    def read(self, name: str) -> Array:
        """Features of an image, `(r, D)`.

        Raises:
            DataError: the record is broken.
        """

    @abstractmethod
    def stamp(self, name: str) -> str:
        """Text that changes whenever the image's features do."""

    def shape(self) -> tuple[int, tuple[int, int]]:
        """D, and the regions of some image as a grid of one row."""
        regions, width = self.first().shape
        return width, (1, regions)

    def store(self, examples: Sequence[Example], cache_dir: Path) -> FeatureStore:
        """Opens the store of some images; makes it first if it is not there.

        Args:
            examples: N images, in the order of the rows.
            cache_dir: folder of the stores.

        Raises:
            DataError: an image has no regions, or a record is broken.
            UserError: no room on the disk.
        """
        names = [self._name(example) for example in examples]
        stamps = [self.stamp(name) for name in names]
        facts = {"format": 1, "regions": str(self.path.resolve()), "dtype": "float16", **self.variant}
        folder = cache_dir / hashlib.sha256(json.dumps([facts, names, stamps]).encode()).hexdigest()[:32]
        if not folder.is_dir():
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():  # another process may have made it meanwhile
                    shape = (len(names), self._most(names), self.first().shape[1])
                    write_store(
                        folder, shape, {**facts, "images": names}, lambda start: self._rows(names, shape, start)
                    )
        return FeatureStore(folder)

    def _most(self, names: Sequence[str]) -> int:
        """Most regions of an image."""
        most = max(names, key=self.count)
        if self.count(most) > _MOST_REGIONS:
            raise DataError(
                f"{self.path}, image {most}: claims {self.count(most)} regions, expected at most {_MOST_REGIONS}; "
                "extract its features again"
            )
        return self.count(most)

    def missing(self, examples: Sequence[Example]) -> list[Problem]:
        """Images that have no regions, as problems."""
        problems = []
        for example in examples:
            try:
                self._name(example)
            except DataError as error:
                problems.append(Problem("missing", str(error)))
        return problems

    def _name(self, example: Example) -> str:
        names = names_of(example)
        found = next((name for name in names if self.has(name)), None)
        if found is None:
            tried = ", ".join(names)
            raise DataError(
                f"{self.path}: no regions of image {example.image_id} (looked for {tried}; {example.origin}); extract "
                "them, or leave the image out"
            )
        return found

    def _rows(self, names: Sequence[str], shape: tuple[int, int, int], start: int) -> Iterator[Half]:
        """Batches of rows behind a start; regions that an image does not have are NaN."""
        for begin in range(start, len(names), _BATCH):
            part = names[begin : begin + _BATCH]
            rows = np.full((len(part), *shape[1:]), np.nan, dtype=np.float16)
            for row, name in zip(rows, part, strict=True):
                features = self.read(name)
                if features.shape[1] != shape[2] or not len(features):
                    raise DataError(
                        f"{self.path}, image {name}: {len(features)} regions of width {features.shape[1]}, expected at "
                        f"least one of width {shape[2]}; extract its features again"
                    )
                with np.errstate(over="ignore"):
                    row[: len(features)] = features
                if not np.isfinite(row[: len(features)]).all():
                    raise UserError(
                        f"{self.path}, image {name}: a value is not finite in half precision (largest "
                        f"{np.abs(features).max():g}); extract its features again, or scale all of them"
                    )
            yield rows


class NpzRegions(RegionFiles):
    """A folder of ``NAME.npz`` or ``NAME.npy``, with an array `(r, D)` each."""

    @cached_property
    def _files(self) -> dict[str, Path]:
        files = {path.stem: path for path in sorted(self.path.iterdir()) if path.suffix in (".npy", ".npz")}
        if not files:
            raise DataError(f"{self.path}: no .npz file in this folder; expected one for each image, named like it")
        return files

    def first(self) -> Array:
        """Features of the first file."""
        return self.read(next(iter(self._files)))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._files

    def count(self, name: str) -> int:
        """Number of regions, from the array's header."""
        return array_shape(self._files[name])[0]

    def read(self, name: str) -> Array:
        """Features of one file.

        Raises:
            DataError: it is broken or holds no array of two dimensions.
        """
        return read_array(self._files[name])

    def stamp(self, name: str) -> str:
        """Size and modification time of the file."""
        status = self._files[name].stat()
        return f"{status.st_size}\t{status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class _Line:
    """Where an image's line begins in the file, in bytes, and how many regions it has."""

    start: int
    regions: int


class TsvRegions(RegionFiles):
    """The tab-separated file of bottom-up attention or LXMERT.

    The file is read through once, to learn where each image's line begins; that is kept in the cache. An image that
    is there twice, as in some published files, counts with its first line.

    Args:
        path: the file.
        cache_dir: folder of files that can be made again.
        positions: whether an encoding of the boxes stands behind the features.
    """

    def __init__(self, path: Path, cache_dir: Path, *, positions: bool = False) -> None:
        super().__init__(path)
        self.cache_dir, self.positions = cache_dir, positions
        self.variant = {"positions": WIDTH} if positions else {}

    @cached_property
    def _lines(self) -> dict[str, _Line]:
        key = hashlib.sha256(f"{self.path.resolve()}\t{self._stamp()}".encode()).hexdigest()[:16]
        cache = self.cache_dir / "region_lines" / f"{key}.json"
        lines: dict[str, _Line] = {}
        try:
            rows = parse_json(read_text(cache), cache)
            for name, start, regions in rows:
                lines.setdefault(str(name), _Line(int(start), int(regions)))
        except (ValueError, TypeError):  # it is not there, or broken
            rows = list(self._scan())
            write_cache(cache, json.dumps(rows))
            lines = {}
            for name, start, regions in rows:
                lines.setdefault(name, _Line(start, regions))
        if not lines:
            raise DataError(f"{self.path}: the file is empty; expected lines of image_id, sizes, boxes and features")
        return lines

    def _scan(self) -> Iterator[tuple[str, int, int]]:
        start = 0
        with open_regular(self.path) as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
                cells = line.rstrip(b"\r\n").split(b"\t")
                if line.strip() and not (number == 1 and cells[0] in (b"image_id", b"img_id")):
                    self._check(cells, f"line {number}")
                    yield cells[0].decode("utf-8", "replace"), start, int(cells[-3])
                start += len(line)

    def _check(self, cells: Sequence[bytes], where: str) -> None:
        if len(cells) not in _TSV_COLUMNS or not cells[-3].isdigit() or len(cells[-3]) > 9:
            columns = "image_id image_w image_h num_boxes boxes features"
            raise DataError(
                f"{self.path}, {where}: {len(cells)} cells, expected the 6 columns {columns} (or LXMERT's 10), "
                "separated by tabs; the file may be cut off, fetch it again"
            )

    def _features(self, cells: Sequence[bytes], where: str) -> Array:
        self._check(cells, where)
        regions, name = int(cells[-3]), cells[0].decode("utf-8", "replace")
        try:
            values = np.frombuffer(base64.b64decode(cells[-1], validate=True), dtype="<f4")
            if not regions or not len(values):
                raise ValueError("no regions")
            features = values.reshape(regions, -1)
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"{self.path}, {where} (image {name}): the features are not base64 of {regions} x D float32 numbers "
                f"({error}); fetch the file again"
            ) from error
        if not self.positions:
            return features
        try:
            return np.hstack([features, encoded_boxes(cells, regions)])
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"{self.path}, {where} (image {name}): boxes are not base64 of {regions} x 4 float32 numbers inside "
                f"of the image ({error}); fetch the file again, or leave {PREFIX} out"
            ) from error

    def first(self) -> Array:
        """Features of the first line that is no header."""
        with open_regular(self.path) as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
                cells = line.rstrip(b"\r\n").split(b"\t")
                if cells[0] not in (b"image_id", b"img_id", b""):
                    return self._features(cells, f"line {number}")
        raise DataError(f"{self.path}: the file is empty; expected lines of image_id, sizes, boxes and features")

    def has(self, name: str) -> bool:
        """Whether there is such a line."""
        return name in self._lines

    def count(self, name: str) -> int:
        """Number of regions, as the line says."""
        return self._lines[name].regions

    def read(self, name: str) -> Array:
        """Features of one line.

        Raises:
            DataError: it is broken.
        """
        with open_regular(self.path) as file:
            file.seek(self._lines[name].start)
            cells = file.readline(_LONGEST).rstrip(b"\r\n").split(b"\t")
        return self._features(cells, f"byte {self._lines[name].start}")

    def stamp(self, name: str) -> str:
        """Size and modification time of the whole file."""
        del name
        return self._stamp()

    def _stamp(self) -> str:
        status = self.path.stat()
        return f"{status.st_size}\t{status.st_mtime_ns}"


def encoded_boxes(cells: Sequence[bytes], regions: int) -> Array:
    """The encoded boxes of a line of a TSV, `(r, P)`, see `networks.encoders.positions`.

    Raises:
        ValueError: they are broken, or not inside of the image.
    """
    # bottom-up attention has width and height, LXMERT's file height and width
    width, height = (float(cells[place]) for place in ((1, 2) if len(cells) == _TSV_COLUMNS[0] else (2, 1)))
    boxes = np.frombuffer(base64.b64decode(cells[-2], validate=True), dtype="<f4").reshape(regions, 4)
    if not (0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"an image of {width:g} x {height:g} pixels")
    shares = boxes / np.array([width, height, width, height], dtype=np.float32)
    if not (np.isfinite(shares).all() and shares.min() >= -0.01 and shares.max() <= 1.01):
        raise ValueError(f"some are outside of {width:g} x {height:g} pixels")
    encoded: Array = box_positions(torch.from_numpy(shares.clip(0, 1))).numpy()
    return encoded
