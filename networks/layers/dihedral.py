"""The eight symmetries of the square: quarter turns and their mirror images.

They are augmentation and test-time augmentation for images without an upright orientation, such as aerial ones.
"""

import torch
from torch import Tensor

NUM_DIHEDRAL = 8
"""Elements of the dihedral group of the square."""

_STEPS = (
    (False, False, False),
    (True, False, True),
    (True, True, False),
    (False, True, True),
    (True, False, False),
    (True, True, True),
    (False, True, False),
    (False, False, True),
)
"""Each transform as a left-right flip, a top-bottom flip and a transposition, applied in this order."""


def dihedral(image: Tensor, index: int) -> Tensor:
    """Transforms images or feature maps `(..., H, W)`.

    Args:
        image: images or feature maps.
        index: transform: ``index % 4`` counterclockwise quarter turns, then a left-right flip from 4 on; 0 is the
            identity.

    Returns:
        `(..., H, W)`, or `(..., W, H)` where rows and columns change places.

    >>> dihedral(torch.tensor([[1, 2], [3, 4]]), 1).tolist()
    [[2, 4], [1, 3]]
    """
    left_right, top_bottom, transposed = _STEPS[index]
    image = _flipped(image, left_right, top_bottom)
    return image.transpose(-1, -2) if transposed else image


def inverse_dihedral(image: Tensor, index: int) -> Tensor:
    """Undoes `dihedral`: ``inverse_dihedral(dihedral(x, index), index)`` is ``x``."""
    left_right, top_bottom, transposed = _STEPS[index]
    image = image.transpose(-1, -2) if transposed else image
    return _flipped(image, left_right, top_bottom)


def random_dihedral(image: Tensor) -> Tensor:
    """Transforms every image of `(B, C, S, S)` by an index of its own, drawn from torch's CPU generator."""
    indices = torch.randint(NUM_DIHEDRAL, (len(image),)).tolist()
    return torch.stack([dihedral(single, index) for single, index in zip(image, indices, strict=True)])


def _flipped(image: Tensor, left_right: bool, top_bottom: bool) -> Tensor:
    sides = [side for side, wanted in ((-1, left_right), (-2, top_bottom)) if wanted]
    return image.flip(sides) if sides else image
