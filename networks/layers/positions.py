"""Positions of regions in a grid: encoding and averaging."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError


def sinusoidal(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positional encoding (Vaswani et al. 2017): sines, then cosines, of the positions 0 to `count` - 1.

    Args:
        count: positions.
        width: channels E, an even number.
        device: device of the result.

    Returns:
        `(count, E)`, values in [-1, 1], at wavelengths from 2 pi to 2 pi * 10,000 places.

    Raises:
        UserError: `width` is odd.

    >>> [round(value, 2) for value in sinusoidal(2, 2)[1].tolist()]
    [0.84, 0.54]
    """
    if width % 2:
        raise UserError(f"width={width} of a positional encoding is odd; choose an even one")
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / max(half - 1, 1)))
    angle = torch.arange(count, device=device).unsqueeze(1) * frequency  # (count, E / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sinusoidal_grid(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """2-D sinusoidal positional encoding: the first half of the channels encodes the row, the second the column.

    Each half is `sinusoidal` of the position.

    Args:
        rows: rows of the grid.
        columns: columns of the grid.
        width: channels E, a multiple of 4.
        device: device of the result.

    Returns:
        `(rows * columns, E)`, row by row, values in [-1, 1].

    Raises:
        UserError: `width` is not a multiple of 4.

    >>> [round(value, 2) for value in sinusoidal_grid(1, 2, 4)[1].tolist()]
    [0.0, 1.0, 0.84, 0.54]
    """
    if width % 4:
        raise UserError(f"width={width} of a 2-D positional encoding is not a multiple of 4; choose the next multiple")
    row = sinusoidal(rows, width // 2, device).unsqueeze(1).expand(rows, columns, -1)
    column = sinusoidal(columns, width // 2, device).unsqueeze(0).expand(rows, columns, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)


def with_grid_positions(regions: Tensor) -> Tensor:
    """Adds their 2-D encoding to the regions of square grids, `(B, R, E)`.

    Raises:
        UserError: they are not a square grid, or E is not a multiple of 4.
    """
    side = square_side(regions.shape[1])
    return regions + sinusoidal_grid(side, side, regions.shape[2], regions.device).to(regions.dtype)


def square_side(regions: int) -> int:
    """Rows (and columns) of a square grid of this many regions.

    Raises:
        UserError: there is no such grid.

    >>> square_side(49)
    7
    """
    side = math.isqrt(regions)
    if side * side != regions:
        raise UserError(
            f"{regions} regions are not a square grid, so they have no 2-D positions; set positions to false"
        )
    return side


def pooled(grid: Tensor, mask: Tensor | None, side: int) -> tuple[Tensor, Tensor | None]:
    """Averages a square grid into fewer regions, real ones only; neighbouring averages may overlap.

    Args:
        grid: `(B, R, C)`, R a square number; zero where masked.
        mask: True where a region is real, `(B, R)`, or None.
        side: rows and columns of the result, S.

    Returns:
        `(B, S * S, C)`, and the mask `(B, S * S)` of places with any real region, or None.

    Raises:
        UserError: the regions are not a square grid.
    """
    old = square_side(grid.shape[1])

    def averaged(values: Tensor) -> Tensor:
        maps = values.transpose(1, 2).reshape(values.shape[0], -1, old, old)
        return F.adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)

    if mask is None:
        return averaged(grid), None
    share = averaged(mask.unsqueeze(2).to(grid.dtype))  # (B, S * S, 1)
    return averaged(grid) / share.clamp_min(1e-6), share.squeeze(2) > 0
