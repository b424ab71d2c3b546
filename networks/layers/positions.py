"""Positions of regions in a grid: encoding and averaging."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError


def sinusoidal_grid(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """2-D sinusoidal positional encoding: the first half of the channels encodes the row, the second the column.

    Each half holds sines and then cosines of the position, at wavelengths from 2 pi to 2 pi * 10,000 places
    (Vaswani et al. 2017, in two dimensions).

    Args:
        rows: of the grid.
        columns: of the grid.
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
    quarter = width // 4
    frequency = torch.exp(torch.arange(quarter, device=device) * (-math.log(10_000.0) / max(quarter - 1, 1)))

    def encoded(count: int) -> Tensor:
        angle = torch.arange(count, device=device).unsqueeze(1) * frequency  # (count, E / 4)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    row = encoded(rows).unsqueeze(1).expand(rows, columns, -1)
    column = encoded(columns).unsqueeze(0).expand(rows, columns, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)


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
        maps = values.transpose(1, 2).reshape(len(values), -1, old, old)
        return F.adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)

    if mask is None:
        return averaged(grid), None
    share = averaged(mask.unsqueeze(2).to(grid.dtype))  # (B, S * S, 1)
    return averaged(grid) / share.clamp_min(1e-6), share.squeeze(2) > 0
