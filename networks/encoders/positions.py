"""Boxes that know where they are: behind the features of each is an encoding of its place and size.

A detector says what is in a box, not where the box is, so that words which look at boxes cannot tell left from right.

Letters: B images, H x W pixels, R boxes, C width of a box's features, P width of the encoding.
"""

import math

import torch
from torch import Tensor

from core.errors import UserError
from networks.encoders.base import ImageEncoder
from networks.encoders.boxes import RowOfBoxes
from networks.encoders.pictures import PictureEncoder

PREFIX = "positions/"
"""Before the name of a detector, or of a file of regions."""
_OCTAVES = 4
WIDTH = 4 * 2 * _OCTAVES
"""P."""


def box_positions(boxes: Tensor) -> Tensor:
    """Encodes boxes: sines and cosines of centre, width and height, at wavelengths of 2 to 1/4 of the image.

    Args:
        boxes: left, top, right, bottom as shares of width and height, `(..., 4)`, in [0, 1].

    Returns:
        `(..., P)`, in [-1, 1].

    >>> box_positions(torch.tensor([0.0, 0.0, 1.0, 1.0])).shape
    torch.Size([32])
    """
    start, end = boxes[..., :2], boxes[..., 2:]
    numbers = torch.cat([(start + end) / 2, end - start], dim=-1).unsqueeze(-1)
    angles = numbers * (math.pi * 2.0 ** torch.arange(_OCTAVES, device=boxes.device, dtype=boxes.dtype))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def positioned(encoder: ImageEncoder, name: str) -> "PositionedBoxes | PositionedPictures":
    """A detector whose boxes know where they are.

    Raises:
        UserError: the encoder has no boxes.
    """
    if isinstance(encoder, PictureEncoder):
        return PositionedPictures(encoder=encoder)
    if isinstance(encoder, RowOfBoxes):
        return PositionedBoxes(encoder=encoder)
    raise UserError(
        f"{PREFIX}{name}: only detectors have boxes; leave {PREFIX} out; for the places of a grid networks have "
        "the option positions (region_positions)"
    )


def _with_positions(features: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
    """Features `(B, R, C)` and encoded boxes, zero where a box is absent: `(B, R, C + P)`."""
    encoded = box_positions(boxes).to(features.dtype) * mask.unsqueeze(2)
    return torch.cat([features, encoded], dim=2)


class PositionedBoxes(RowOfBoxes):
    """A detector of square images, with positions.

    Args:
        encoder: the detector.
    """

    def __init__(self, *, encoder: RowOfBoxes) -> None:
        super().__init__()
        self.encoder, self.boxes = encoder, encoder.boxes
        self.grid_dim = self.vector_dim = encoder.grid_dim + WIDTH

    def located(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the detector, with an encoding behind the features, `(B, R, C + P)`."""
        features, mask, boxes = self.encoder.located(image)
        return _with_positions(features, mask, boxes), mask, boxes


class PositionedPictures(PictureEncoder):
    """A detector of whole pictures, with positions.

    Args:
        encoder: the detector.
    """

    def __init__(self, *, encoder: PictureEncoder) -> None:
        super().__init__()
        self.encoder, self.boxes, self.sides = encoder, encoder.boxes, encoder.sides
        self.grid_dim = self.vector_dim = encoder.grid_dim + WIDTH

    def located_pictures(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the detector, with an encoding behind the features, `(B, R, C + P)`."""
        features, mask, boxes = self.encoder.located_pictures(pixels, sizes)
        return _with_positions(features, mask, boxes), mask, boxes
