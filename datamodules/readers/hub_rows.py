"""Images of Hugging Face data sets: embedded in a row, named by a path, or at an address."""

import contextlib
import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.cache import default_cache_dir
from core.errors import DataError
from core.files import replacing
from datamodules.readers.image_refs import ImageFile, ImageRef
from datamodules.readers.images import encoded_image, find_image, open_image

if TYPE_CHECKING:
    from datasets import Dataset

_ATTEMPTS = 3
_TIMEOUT = 60.0  # seconds without a byte
_LARGEST = 1 << 28
"""Bytes of an image that is fetched."""
FETCHING_WAYS_OUT = "go online, or set image_folder to a folder with the images"
"""What a user can do about an address that gives nothing."""


@contextlib.contextmanager
def loading(source: str) -> Iterator[None]:
    """Turns whatever `datasets` raises about a data set into one line.

    Args:
        source: name of the data set.

    Raises:
        DataError: it cannot be loaded.
    """
    # what the library logs before it fails is in its error as well
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the library passes on those of a dozen others
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        ways_out = "check the name, go online once, or give a local Parquet / JSON / CSV file or image folder"
        raise DataError(f"{source}: data set cannot be loaded ({reason}); {ways_out}") from error


def undecoded(table: Any) -> Any:
    """A table of `datasets` with images as bytes or paths: reading its other columns must not decode them."""
    from datasets import Image as ImageFeature

    for name, feature in (table.features or {}).items():
        if isinstance(feature, ImageFeature):
            table = table.cast_column(name, ImageFeature(decode=False))
    return table


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` of `datasets` wrote."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_address(value: object) -> bool:
    """Whether a cell holds the address of an image.

    >>> is_address("http://images.cocodataset.org/val2017/000000000139.jpg"), is_address("val2017/000000000139.jpg")
    (True, False)
    """
    return isinstance(value, str) and value.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TableRow(ImageRef):
    """The image of a row of a table that lies on the disk, decoded when it is opened.

    Attributes:
        table: the table, images undecoded.
        split: its name.
        row: number of the row.
        column: column of the image.
        origin: data set and row, for messages.
        folder: where paths in the column start.
    """

    table: "Dataset"
    split: str
    row: int
    column: str
    origin: str
    folder: Path

    @property
    def id(self) -> str:
        """Split and row."""
        return f"{self.split}#{self.row}"

    def stamp(self) -> str:
        """The table's fingerprint and the row: both change with the image."""
        return f"{self.table._fingerprint}#{self.row}"

    def open(self, min_side: int = 0) -> Image.Image:
        """Reads the image of the row as RGB."""
        found = self._content()
        if isinstance(found, RemoteImage):
            return found.open(min_side)
        name = self.origin if isinstance(found, bytes) else f"{found} ({self.origin})"
        return open_image(found, name=name, min_side=min_side)

    def encoded(self) -> tuple[bytes, str]:
        """The bytes in the row, or of the file that it names."""
        found = self._content()
        if isinstance(found, bytes):
            return encoded_image(found, self.origin)
        return found.encoded() if isinstance(found, RemoteImage) else ImageFile(str(found)).encoded()

    def _content(self) -> "bytes | Path | RemoteImage":
        """What the row has: bytes, a file or an address.

        Raises:
            DataError: it has nothing.
        """
        value = self.table[self.row][self.column]
        if isinstance(value, dict):  # the Image feature, undecoded
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            if is_address(value):
                return RemoteImage(value)
            return find_image(self.folder, value) or self.folder / value
        raise DataError(f"{self.origin}: no image in column {self.column!r}; remove the row, or set image_column")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableRow) and (self.stamp(), self.column) == (other.stamp(), other.column)

    def __hash__(self) -> int:
        return hash(self.stamp())


@dataclass(frozen=True, slots=True)
class RemoteImage(ImageRef):
    """An image at an address, fetched into the cache when it is opened first.

    Attributes:
        url: the address.
    """

    url: str

    @property
    def id(self) -> str:
        """The address."""
        return self.url

    def stamp(self) -> str:
        """The address: what it gives is taken to stay the same."""
        return self.url

    def open(self, min_side: int = 0) -> Image.Image:
        """Reads the image as RGB.

        Raises:
            DataError: it cannot be fetched or decoded.
        """
        path = self._fetched()
        return open_image(path, name=f"{self.url} ({path})", min_side=min_side)

    def encoded(self) -> tuple[bytes, str]:
        """The bytes at the address."""
        return ImageFile(str(self._fetched())).encoded()

    def _fetched(self) -> Path:
        """Its file in the cache."""
        path = default_cache_dir() / "images" / _digest(self.url.encode(), Path(self.url).suffix)
        if not path.is_file():
            _fetch(self.url, path)
        return path


def stored_image(value: Any, folder: Path, origin: str) -> ImageRef:
    """Reference to the image of a streamed row; embedded images are written into the cache.

    Args:
        value: the cell: an undecoded image, a path or an address.
        folder: where paths start.
        origin: data set and row, for messages.

    Raises:
        DataError: the cell holds no image.
    """
    if isinstance(value, dict):  # the Image feature, undecoded
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        path = default_cache_dir() / "images" / _digest(value, "")
        if not path.is_file():
            with replacing(path) as file:
                file.write(value)
        return ImageFile(str(path))
    if isinstance(value, str) and value:
        return RemoteImage(value) if is_address(value) else ImageFile(str(find_image(folder, value) or folder / value))
    raise DataError(f"{origin}: no image; remove the row, or set image_column")


def _digest(content: bytes, suffix: str) -> str:
    return hashlib.sha256(content).hexdigest()[:32] + suffix


def _fetch(url: str, path: Path) -> None:
    """Writes what an address gives into a file.

    Raises:
        DataError: it cannot be fetched, or is too large.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, replacing(path) as file:
                content = answer.read(_LARGEST + 1)
                if len(content) > _LARGEST:
                    raise DataError(f"{url}: more than {_LARGEST:,} bytes are no image; remove the row")
                file.write(content)
            return
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == _ATTEMPTS or final:
                reason = getattr(error, "reason", None) or error
                raise DataError(f"{url}: image cannot be fetched ({reason}); {FETCHING_WAYS_OUT}") from error
