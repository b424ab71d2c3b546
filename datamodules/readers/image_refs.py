"""References to images: what a record says about where its image is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from core.inputs import read_bytes
from datamodules.readers.images import MOST_BYTES, as_png, encoded_image, open_image


class ImageRef(ABC):
    """An image that is not opened yet: a file, a row of a table, or a synthetic scene.

    References are small values that travel to loader processes; equal references mean the same image.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> str:
        """Text that names the image among all of its kind, such as its path."""

    @abstractmethod
    def open(self, min_side: int = 0) -> Image.Image:
        """Reads the image as RGB.

        Args:
            min_side: large JPEG files may be decoded smaller, see `datamodules.readers.images.open_image`.

        Raises:
            DataError: it is missing or cannot be decoded.
        """

    @abstractmethod
    def stamp(self) -> str:
        """Text that changes whenever the image does; features stored for it are valid as long as it stays the same.

        Raises:
            OSError: there is no such file.
        """

    def encoded(self) -> tuple[bytes, str]:
        """The image as the bytes of a file and the ending of its name; what is in no file becomes a PNG.

        Raises:
            DataError: it is missing, or no image.
        """
        return as_png(self.open())

    @property
    def file(self) -> Path | None:
        """The image's own file; None when it is no file."""
        return None

    @property
    def scene(self) -> str | None:
        """Description of a synthetic scene as JSON; None for any other image."""
        return None


@dataclass(frozen=True, slots=True)
class ImageFile(ImageRef):
    """An image file.

    Attributes:
        path: path of the file. Readers of annotations give it as it is written there; `find_images` replaces it by
            the path of the file that exists.
    """

    path: str

    @property
    def id(self) -> str:
        """The path."""
        return self.path

    @property
    def file(self) -> Path:
        """The path."""
        return Path(self.path)

    def open(self, min_side: int = 0) -> Image.Image:
        """Reads the file as RGB."""
        return open_image(self.path, min_side=min_side)

    def encoded(self) -> tuple[bytes, str]:
        """The bytes of the file."""
        return encoded_image(read_bytes(self.path, MOST_BYTES, "an image"), self.path)

    def stamp(self) -> str:
        """Absolute path, size in bytes and modification time."""
        status = Path(self.path).stat()
        return f"{Path(self.path).absolute()}\t{status.st_size}\t{status.st_mtime_ns}"
