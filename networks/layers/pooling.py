"""One vector of the regions of a picture.

Letters: B images, R regions, D their width, P pooled width, K directions.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError

Pooling = Literal["mean", "max", "mean_max", "attention", "covariance"]

DIRECTIONS = 64
"""Directions that a covariance is taken in; 128 recognise land use no better and take four times the numbers."""


class CovariancePooling(nn.Module):
    """How the channels vary together over the regions of a picture: the square root of their covariance matrix.

    What is everywhere and what is where something else is tells textures and scenes apart better than the mean does
    (Li et al. 2018, iSQRT-COV; the square root by coupled Newton-Schulz steps, matrix products alone). The matrix is
    taken in the K directions in which the regions of the training pictures vary most; they are found once, by
    `start_fit`, passes over training pictures, and `finish_fit`, and are part of the state dict.

    Args:
        width: D.
        directions: K, at most D.
        steps: Newton-Schulz steps.

    Attributes:
        out_features: P = K (K + 1) / 2.
        fitted: whether the directions have been found, scalar bool; before, they are the first K channels.
    """

    centre: Tensor
    directions: Tensor
    fitted: Tensor
    _rows: Tensor
    _columns: Tensor

    def __init__(self, width: int, directions: int = DIRECTIONS, steps: int = 5) -> None:
        super().__init__()
        count = min(width, directions)
        self.steps, self.out_features = steps, count * (count + 1) // 2
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("directions", torch.eye(count, width))
        self.register_buffer("fitted", torch.tensor(False))
        rows, columns = torch.triu_indices(count, count)
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def start_fit(self) -> None:
        """From now on the regions that pass by are counted."""
        zeros = torch.zeros(len(self.centre) + 1, len(self.centre), dtype=torch.float64)
        self._seen = (torch.zeros((), dtype=torch.float64), zeros[0], zeros[1:])

    def finish_fit(self) -> None:
        """Takes the main directions of what has been seen.

        Raises:
            UserError: nothing was seen.
        """
        assert self._seen is not None, "start_fit comes first"
        (count, total, products), self._seen = self._seen, None
        if count == 0:
            raise UserError("pooling is covariance, but no training picture has regions to find its directions from")
        centre = total / count
        _, vectors = torch.linalg.eigh(products / count - torch.outer(centre, centre))
        main = vectors[:, -len(self.directions) :].flip(1).t()
        # the sign of an eigenvector is arbitrary; this makes it the same on every machine
        main = main * main.gather(1, main.abs().argmax(1, keepdim=True)).sign()
        self.centre.copy_(centre)
        self.directions.copy_(main)
        self.fitted.fill_(True)

    def forward(self, regions: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, R, D)` and a mask of the real regions `(B, R)` to `(B, P)`, float32, off-diagonal numbers times √2."""
        with torch.autocast(regions.device.type, enabled=False):
            regions = regions.float()
            if mask is None:
                mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
            else:
                regions = regions.masked_fill(~mask.unsqueeze(2), 0.0)
            weights = (mask.float() / mask.sum(1, keepdim=True)).unsqueeze(2)  # (B, R, 1)
            if self._seen is not None:
                self._look(regions[mask])
            seen = F.linear(regions - self.centre, self.directions)  # (B, R, K)
            seen = seen - (weights * seen).sum(1, keepdim=True)
            root = matrix_root(torch.bmm((weights * seen).transpose(1, 2), seen), self.steps)
            scale = torch.where(self._rows == self._columns, 1.0, 2**0.5)  # so that lengths are those of matrices
            return root[:, self._rows, self._columns] * scale

    def _look(self, regions: Tensor) -> None:
        assert self._seen is not None
        count, total, products = self._seen
        regions = regions.detach().cpu().double()  # not every accelerator has double precision
        count += len(regions)
        total += regions.sum(0)
        products += regions.t() @ regions


def matrix_root(matrices: Tensor, steps: int = 5) -> Tensor:
    """Square roots of positive semi-definite matrices `(B, K, K)` by coupled Newton-Schulz steps.

    A ten-thousandth of the mean variance is added to the diagonal first: the steps converge slowly for what is near
    zero, and a picture of one colour has no variance at all.
    """
    identity = torch.eye(matrices.shape[1], device=matrices.device, dtype=matrices.dtype)
    variance = matrices.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    matrices = matrices + (1e-4 * variance + 1e-12) * identity
    trace = matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    root, inverse = matrices / trace, identity.expand_as(matrices)
    for _ in range(steps):
        factor = 0.5 * (3 * identity - inverse @ root)
        root, inverse = root @ factor, factor @ inverse
    return root * trace.sqrt()


class RegionPooling(nn.Module):
    """Makes one vector of the regions of a picture.

    Args:
        kind: ``mean``; ``max``; ``mean_max``, both side by side, so that what is small and what is everywhere are both
            seen; ``attention``, a weighted mean whose weights are learnt from the regions, once; ``covariance``, see
            `CovariancePooling`, and the mean beside it, each normalised by itself, since their scales differ.
        width: D.

    Attributes:
        out_features: P.

    Raises:
        UserError: unknown kind.
    """

    def __init__(self, kind: Pooling, width: int) -> None:
        super().__init__()
        if kind not in get_args(Pooling):
            raise UserError(f"pooling is {kind!r}: expected one of {', '.join(get_args(Pooling))}")
        self.kind = kind
        self.out_features = 2 * width if kind == "mean_max" else width
        self.score = nn.Linear(width, 1) if kind == "attention" else None
        self.covariance = CovariancePooling(width) if kind == "covariance" else None
        if self.covariance is not None:
            self.out_features += self.covariance.out_features

    def forward(self, regions: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, R, D)` and a mask of the real regions `(B, R)` to `(B, P)`; each image needs a real region."""
        if mask is not None and bool(mask.all()):
            mask = None
        if mask is not None:
            # whatever stands there, even NaN, must not count: 0 times NaN is NaN
            regions = regions.masked_fill(~mask.unsqueeze(2), 0.0)
        if self.score is not None:
            scores = self.score(regions).squeeze(2)
            weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=1)
            return torch.einsum("br,brd->bd", weights, regions)
        if self.covariance is not None:
            second, first = self.covariance(regions, mask), _mean(regions, mask)
            return torch.cat([F.layer_norm(part, part.shape[1:]) for part in (second.to(first.dtype), first)], dim=1)
        parts = []
        if self.kind in ("mean", "mean_max"):
            parts.append(_mean(regions, mask))
        if self.kind in ("max", "mean_max"):
            parts.append((regions if mask is None else regions.masked_fill(~mask.unsqueeze(2), -torch.inf)).amax(dim=1))
        return torch.cat(parts, dim=1)


def _mean(regions: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return regions.mean(dim=1)
    weights = mask.to(regions.dtype).unsqueeze(2)
    return (regions * weights).sum(dim=1) / weights.sum(dim=1)
