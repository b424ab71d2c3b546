"""Images as callers from Python have them: paths, arrays, or Pillow's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from datamodules.readers.images import open_image, to_rgb

ImageLike = Image.Image | str | Path | NDArray[Any]
"""An image: of Pillow, a path, or an array `(H, W, 3)` or `(H, W)`, uint8."""


def as_images(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """A list of images, of one or several; an array `(B, H, W, 3)` is several."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    return [images] if isinstance(images, (Image.Image, str, Path, np.ndarray)) else list(images)


def opened_image(image: ImageLike, min_side: int = 0) -> Image.Image:
    """An image as RGB.

    Args:
        image: see `ImageLike`.
        min_side: see `datamodules.readers.images.open_image`.

    Raises:
        DataError: it cannot be read.
        UserError: an array is no image.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            shape = "x".join(map(str, image.shape))
            raise UserError(f"array of {image.dtype}, {shape}: expected an image (H, W, 3) or (H, W), uint8")
        return to_rgb(Image.fromarray(image))
    return open_image(image, min_side=min_side)
