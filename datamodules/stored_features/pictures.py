"""What an image encoder reads: square normalised images, or pictures in their own proportions.

Letters: B images, H x W pixels of the largest, R regions, C width of a region.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.readers.transforms import ImageTransform
from networks.encoders.base import ImageEncoder
from networks.encoders.pictures import PictureEncoder, scaled


class Pictures(NamedTuple):
    """A batch of images.

    `pixels`: `(B, 3, H, W)`, float32, smaller images padded with zeros at the right and bottom; `sizes`: height and
    width of each, `(B, 2)`, int64.
    """

    pixels: Tensor
    sizes: Tensor


@dataclass(frozen=True, kw_only=True)
class InProportion:
    """Scales an image in its proportions and leaves its values as they are.

    Attributes:
        sides: pixels of the shorter side, and most pixels of the longer one.
    """

    sides: tuple[int, int]
    min_side: int = 0
    """JPEG files are decoded whole: a reduced one would give other boxes."""

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB image of any size to `(3, H, W)`, float32, 0 to 255."""
        return scaled(torch.from_numpy(np.array(image)).permute(2, 0, 1), self.sides)


def preparation(encoder: ImageEncoder, transform: ImageTransform) -> ImageTransform | InProportion:
    """What turns an image into the tensor that an encoder reads: the transform, unless it has a scale of its own."""
    return InProportion(sides=encoder.sides) if isinstance(encoder, PictureEncoder) else transform


def stack_pictures(images: Sequence[Tensor]) -> Pictures:
    """A batch of images `(3, h, w)` of any sizes."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.amax(0).tolist()
    pixels = torch.zeros(len(images), 3, height, width)
    for place, image in zip(pixels, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return Pictures(pixels, sizes)


def regions_of(encoder: ImageEncoder, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Features of the regions of images, `(B, R, C)`, and which are real, `(B, R)`, on the encoder's device."""
    device = next(encoder.parameters()).device
    pixels = pictures.pixels.to(device, non_blocking=True)
    if isinstance(encoder, PictureEncoder):
        return encoder.picture_regions(pixels, pictures.sizes)
    return encoder.regions(pixels)
