"""Pictures and the files that they go to, without the library that draws figures: it takes half a second to import."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageArray = np.ndarray[Any, np.dtype[np.float32]]
"""`(H, W, 3)`, 0 to 1."""
Pixels = NDArray[np.uint8]
"""`(H, W, 3)`."""
_COMPRESSION = 2
"""Of PNG files: a fifth more bytes than Pillow's own choice of 6 gives, in a quarter of the time."""


def figure_path(folder: Path, name: str) -> Path:
    """File of a figure; characters that no file name may hold become underscores.

    >>> figure_path(Path("attention"), "a/b.jpg").as_posix()
    'attention/a_b.jpg.png'
    """
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return folder / f"{safe}.png"


def png_of(figure: "Figure") -> bytes:
    """Draws a figure, which takes longer than writing it somewhere: the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def png_of_image(image: "Image.Image | Pixels") -> bytes:
    """A picture as the content of a PNG file."""
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def as_bytes(image: ImageArray) -> Pixels:
    """An image from 0 to 1 as W&B takes it, which would cut such floats off to black."""
    return (image * 255).round().astype(np.uint8)


def save_figure(figure: "Figure | bytes", folder: Path, name: str) -> Path:
    """Writes a figure, drawn or not, as ``NAME.png``, see `figure_path`.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = figure_path(folder, name)
    drawn = figure if isinstance(figure, bytes) else png_of(figure)
    try:
        with replacing(path) as file:
            file.write(drawn)
    except OSError as error:
        raise UserError(f"figure {path} cannot be written ({error.strerror}); give another folder") from error
    return path
