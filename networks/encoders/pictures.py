"""Encoders that read whole pictures: in their own proportions and at their own scale.

Letters: B pictures, H x W pixels after scaling, h x w before, R regions, C width of a region.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.encoders.boxes import RowOfBoxes


class PictureEncoder(RowOfBoxes):
    """A frozen encoder of whole pictures that normalises them itself. Its regions are boxes: one row of R.

    Attributes:
        sides: pixels of a picture's shorter side, and most pixels of its longer one, see `scaled`.
    """

    sides: tuple[int, int]

    @abstractmethod
    def located_pictures(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the regions of pictures, which of them are real, and where they are.

        Args:
            pixels: RGB, 0 to 255, `(B, 3, H, W)`, float; pictures smaller than the largest are padded at the right
                and at the bottom, with anything.
            sizes: height and width of each picture, `(B, 2)`, int64.

        Returns:
            features `(B, R, C)`, their mask `(B, R)`, bool, and boxes `(B, R, 4)`, see `RowOfBoxes.located`.
        """

    def picture_regions(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Features and mask alone, see `located_pictures`."""
        features, mask, _ = self.located_pictures(pixels, sizes)
        return features, mask

    def located(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of pictures of one size: `(B, 3, H, W)`, RGB, 0 to 255."""
        return self.located_pictures(image, torch.tensor(image.shape[-2:]).expand(len(image), 2))

    def train(self, mode: bool = True) -> "PictureEncoder":
        """Stays in evaluation mode: it is frozen."""
        del mode
        return super().train(False)


def scaled(pixels: Tensor, sides: tuple[int, int]) -> Tensor:
    """Scales a picture in its proportions, without rounding its values.

    Bilinear without antialiasing, as the published code of VisualBERT and LXMERT does.

    Args:
        pixels: `(3, h, w)`, 0 to 255, any type.
        sides: pixels of the shorter side, and most pixels of the longer one.

    Returns:
        `(3, H, W)`, float32.
    """
    size = scaled_size((pixels.shape[1], pixels.shape[2]), sides)
    return F.interpolate(pixels.unsqueeze(0).float(), size, mode="bilinear", align_corners=False).squeeze(0)


def scaled_size(size: tuple[int, int], sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture after scaling.

    >>> scaled_size((480, 640), (800, 1333)), scaled_size((100, 300), (800, 1333))
    ((800, 1067), (444, 1333))
    """
    # the order of operations decides where halves are rounded to: the longer side is scaled twice
    factor = sides[0] / min(size)
    long = max(size) * factor
    short = float(sides[0])
    if long > sides[1]:
        short, long = short * (sides[1] / long), long * (sides[1] / long)
    small, large = max(1, int(short + 0.5)), max(1, int(long + 0.5))
    return (small, large) if size[0] < size[1] else (large, small)
