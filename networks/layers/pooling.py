"""Pooling of the regions of an image into one vector.

Letters: B images, R regions, D their width, P pooled width, K directions.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.sequences import on_host

Pooling = Literal["mean", "max", "mean_max", "attention", "covariance"]

DIRECTIONS = 64
"""Directions of the covariance; 128 classify land use no better, with four times as many outputs."""


class CovariancePooling(nn.Module):
    """The square root of the covariance matrix of the channels over the regions of an image.

    Which channels occur together distinguishes textures and scenes better than the mean does (Li et al. 2018,
    iSQRT-COV; the square root by coupled Newton-Schulz steps, which need matrix products only). The covariance is that
    of the K directions in which the regions of the training images vary most. They are found once, by `start_fit`,
    forward passes over training images, and `finish_fit`, and are part of the state dict.

    Args:
        feature_dim: D.
        directions: K, at most D.
        steps: Newton-Schulz steps.

    Attributes:
        out_features: P = K (K + 1) / 2.
        fitted: whether the directions have been found, scalar bool; before that, they are the first K channels.
    """

    centre: Tensor
    directions: Tensor
    fitted: Tensor
    _rows: Tensor
    _columns: Tensor

    def __init__(self, *, feature_dim: int, directions: int = DIRECTIONS, steps: int = 5) -> None:
        super().__init__()
        count = min(feature_dim, directions)
        self.steps, self.out_features = steps, count * (count + 1) // 2
        self.register_buffer("centre", torch.zeros(feature_dim))
        self.register_buffer("directions", torch.eye(count, feature_dim))
        self.register_buffer("fitted", torch.tensor(False))
        rows, columns = torch.triu_indices(count, count)
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def start_fit(self) -> None:
        """From now on, forward passes collect statistics of the regions."""
        zeros = torch.zeros(len(self.centre) + 1, len(self.centre), dtype=torch.float64)
        self._seen = (torch.zeros((), dtype=torch.float64), zeros[0], zeros[1:])

    def finish_fit(self) -> None:
        """Computes the main directions from the statistics.

        Raises:
            UserError: there were no regions.
        """
        assert self._seen is not None, "call start_fit first"
        (count, total, products), self._seen = self._seen, None
        if count == 0:
            raise UserError("pooling is covariance, but no training image has regions to find its directions from")
        centre = total / count
        _, vectors = torch.linalg.eigh(products / count - torch.outer(centre, centre))
        main = vectors[:, -len(self.directions) :].flip(1).t()
        # the sign of an eigenvector is arbitrary; this fixes it on every machine
        main = main * main.gather(1, main.abs().argmax(1, keepdim=True)).sign()
        self.centre.copy_(centre)
        self.directions.copy_(main)
        self.fitted.fill_(True)

    def forward(self, regions: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, R, D)` and a mask of the real regions `(B, R)` to `(B, P)`, float32, off-diagonal entries times √2."""
        with torch.autocast(regions.device.type, enabled=False):
            regions = regions.float()
            if mask is None:
                mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
            else:
                regions = regions.masked_fill(~mask.unsqueeze(2), 0.0)
            weights = (mask.float() / mask.sum(1, keepdim=True)).unsqueeze(2)  # (B, R, 1)
            if self._seen is not None:
                self._collect(regions[mask])
            projected = F.linear(regions - self.centre, self.directions)  # (B, R, K)
            projected = projected - (weights * projected).sum(1, keepdim=True)
            root = matrix_root(torch.bmm((weights * projected).transpose(1, 2), projected), self.steps)
            scale = torch.where(self._rows == self._columns, 1.0, 2**0.5)  # keeps the Frobenius norm
            return root[:, self._rows, self._columns] * scale

    def _collect(self, regions: Tensor) -> None:
        """Adds real regions `(n, D)` to the statistics."""
        assert self._seen is not None
        count, total, products = self._seen
        regions = regions.detach().cpu().double()  # not every accelerator has double precision
        count += len(regions)
        total += regions.sum(0)
        products += regions.t() @ regions


def matrix_root(matrices: Tensor, steps: int = 5) -> Tensor:
    """Square roots of positive semi-definite matrices `(B, K, K)` by coupled Newton-Schulz steps.

    A ten-thousandth of the mean variance is added to the diagonal first, because the steps converge slowly for
    eigenvalues near zero and an image of a single colour has no variance at all.
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
    """Pools the regions of an image into one vector.

    Args:
        pooling: ``mean``; ``max``; ``mean_max``, both concatenated, for small objects as well as for whatever covers
            the image; ``attention``, a mean with learnt weights; ``covariance``, see `CovariancePooling`, concatenated
            with the mean, both layer-normalised because their scales differ.
        feature_dim: D.

    Attributes:
        out_features: P.

    Raises:
        UserError: unknown pooling.
    """

    def __init__(self, *, pooling: Pooling, feature_dim: int) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        self.pooling = pooling
        self.out_features = 2 * feature_dim if pooling == "mean_max" else feature_dim
        self.score = nn.Linear(feature_dim, 1) if pooling == "attention" else None
        self.covariance = CovariancePooling(feature_dim=feature_dim) if pooling == "covariance" else None
        if self.covariance is not None:
            self.out_features += self.covariance.out_features

    def forward(self, regions: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, R, D)` and a mask of the real regions `(B, R)` to `(B, P)`; each image needs a real region."""
        if mask is not None and all(all(row) for row in on_host(mask)):
            mask = None
        if mask is not None:
            # padding, even NaN, must not count: 0 times NaN is NaN
            regions = regions.masked_fill(~mask.unsqueeze(2), 0.0)
        if self.score is not None:
            scores = self.score(regions).squeeze(2)
            weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=1)
            return torch.einsum("br,brd->bd", weights, regions)
        if self.covariance is not None:
            second, first = self.covariance(regions, mask), masked_mean(regions, mask)
            return torch.cat([F.layer_norm(part, part.shape[1:]) for part in (second.to(first.dtype), first)], dim=1)
        parts = []
        if self.pooling in ("mean", "mean_max"):
            parts.append(masked_mean(regions, mask))
        if self.pooling in ("max", "mean_max"):
            parts.append((regions if mask is None else regions.masked_fill(~mask.unsqueeze(2), -torch.inf)).amax(dim=1))
        return torch.cat(parts, dim=1)


def masked_mean(regions: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the real regions, zero where there are none: `(B, R, D)` and `(B, R)` (None: all are) to `(B, D)`."""
    if mask is None:
        return regions.mean(dim=1)
    weights = mask.to(regions.dtype).unsqueeze(2)
    return (regions * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
