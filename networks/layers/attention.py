"""Attention of a recurrent decoder over the regions of an image, four kinds under one interface.

    context, weights = attention(features, state)

What does not depend on the state (the keys) is computed once for each image by `Attention.keys` and passed to
`Attention.attend` at every time step; calling the module does both.

Letters: B rows, R regions, E region width, H width of the recurrent state, A attention width, h heads.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.positions import pooled, sinusoidal_grid, with_grid_positions

AttentionName = Literal["uniform", "bahdanau", "dot", "multi_head"]


class Attention(nn.Module, ABC):
    """Weights over the regions and their weighted mean.

    Attributes:
        constant: the weights do not depend on the state, so one context serves a whole caption.

    Args:
        region_dim: E.
        hidden_dim: H.
    """

    constant: ClassVar[bool] = False

    def __init__(self, *, region_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.region_dim = region_dim
        self.hidden_dim = hidden_dim

    @abstractmethod
    def keys(self, features: Tensor) -> Tensor:
        """Keys that the state is compared with, once for each image: `(B, R, E)` to `(B, R, A)`."""

    @abstractmethod
    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """Scores of the regions: keys `(B, R, A)` and state `(B, H)` to `(B, R)`, unbounded."""

    def attend(self, features: Tensor, keys: Tensor, state: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """One time step.

        Args:
            features: regions, `(B, R, E)`.
            keys: what `keys` returned for them.
            state: decoder state before the step, `(B, H)`.
            mask: True where a region is real, `(B, R)`, at least one in each row; None = all.

        Returns:
            The context `(B, E)` and the weights `(B, R)`: in [0, 1], sum one, exactly zero where masked.
        """
        weights = masked_softmax(self.scores(keys, state), mask)
        return torch.bmm(weights.unsqueeze(1), features).squeeze(1), weights

    def forward(self, features: Tensor, state: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and one time step: features `(B, R, E)`, state `(B, H)` to context `(B, E)`, weights `(B, R)`."""
        return self.attend(features, self.keys(features), state, mask)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last dimension with exact zeros, and no gradient, where `mask` (broadcast) is False.

    >>> masked_softmax(torch.tensor([[1.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


class UniformAttention(Attention):
    """The mean of the regions: ``p_j = 1 / R``. The baseline for learnt attention; no parameters."""

    constant = True

    def keys(self, features: Tensor) -> Tensor:
        """No keys: `(B, R, 0)`."""
        return features[:, :, :0]

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """All equal: zeros `(B, R)`, whatever the state."""
        del state
        return keys.new_zeros(keys.shape[:2])


class BahdanauAttention(Attention):
    """Additive attention (Bahdanau et al. 2015): ``alpha_j = W tanh(U s + V x_j + b) + c``, ``p = softmax(alpha)``.

    ``c`` is omitted: it adds the same number to every region, which the softmax ignores, so it could never learn.

    Args:
        region_dim: E.
        hidden_dim: H.
        attention_dim: A.
    """

    def __init__(self, *, region_dim: int, hidden_dim: int, attention_dim: int = 256) -> None:
        super().__init__(region_dim=region_dim, hidden_dim=hidden_dim)
        self.U = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.V = nn.Linear(region_dim, attention_dim)  # its bias is b
        self.W = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        """``2 (V x + b)``: `(B, R, E)` to `(B, R, A)`."""
        return 2 * cast(Tensor, self.V(features))

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """``W tanh(U s + V x + b)`` up to a number that is the same for all regions, `(B, R)`."""
        # tanh(x) = 2 sigmoid(2 x) - 1. PyTorch's sigmoid takes a fifth of the time of tanh on a CPU, this tensor is the
        # largest of a time step, and the softmax ignores the constant. In place: the sum is not needed again.
        energy = (keys + 2 * self.U(state).unsqueeze(1)).sigmoid_()  # (B, R, A)
        return 2 * cast(Tensor, self.W(energy)).squeeze(2)


class DotAttention(Attention):
    """Dot-product attention (Luong et al. 2015): ``alpha_j = (Q s)^T (K x_j)``, ``p = softmax(alpha)``.

    With a bias it is ``(Q s + q)^T (K x_j)``. The keys have no bias: it would add the same number to every region,
    which the softmax ignores.

    Args:
        region_dim: E.
        hidden_dim: H.
        attention_dim: A.
        bias: add a bias q to the query.
        scaled: divide by sqrt(A) (Vaswani et al. 2017).
    """

    def __init__(
        self, *, region_dim: int, hidden_dim: int, attention_dim: int = 256, bias: bool = False, scaled: bool = False
    ) -> None:
        super().__init__(region_dim=region_dim, hidden_dim=hidden_dim)
        self.Q = nn.Linear(hidden_dim, attention_dim, bias=bias)
        self.K = nn.Linear(region_dim, attention_dim, bias=False)
        self.scale = 1 / math.sqrt(attention_dim) if scaled else 1.0

    def keys(self, features: Tensor) -> Tensor:
        """``K x``: `(B, R, E)` to `(B, R, A)`."""
        return cast(Tensor, self.K(features))

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """``(Q s)^T (K x)``, `(B, R)`."""
        query = self.Q(state) * self.scale if self.scale != 1 else self.Q(state)  # (B, A)
        return torch.bmm(keys, query.unsqueeze(2)).squeeze(2)


class MultiHeadAttention(Attention):
    """Several scaled dot products in parallel (after Vaswani et al. 2017).

    Head i compares its slice of the query with its slice of the key, both of width A / h, and takes the weighted mean
    of its slice of the features, of width E / h. The features already come from a learnt projection, so values are not
    projected again. The weights returned are the mean over the heads; they sum to one, but the context is not the mean
    of the features under them.

    Args:
        region_dim: E, a multiple of `heads`.
        hidden_dim: H.
        attention_dim: A, a multiple of `heads`.
        heads: h.

    Raises:
        UserError: a width is not a multiple of `heads`.
    """

    def __init__(self, *, region_dim: int, hidden_dim: int, attention_dim: int = 256, heads: int = 4) -> None:
        super().__init__(region_dim=region_dim, hidden_dim=hidden_dim)
        for name, width in (("region_dim", region_dim), ("attention_dim", attention_dim)):
            if heads < 1 or width % heads:
                raise UserError(f"{name}={width} is not divisible by heads={heads}; choose a divisor of {width}")
        self.heads = heads
        self.Q = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.K = nn.Linear(region_dim, attention_dim, bias=False)
        self.scale = 1 / math.sqrt(attention_dim // heads)

    def keys(self, features: Tensor) -> Tensor:
        """``K x``: `(B, R, E)` to `(B, R, A)`."""
        return cast(Tensor, self.K(features))

    def head_scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """Scaled dot products of every head, `(B, h, R)`."""
        query = self.Q(state) * self.scale  # (B, A)
        products: Tensor = keys * query.unsqueeze(1)  # (B, R, A)
        return products.view(*keys.shape[:2], self.heads, -1).sum(3).transpose(1, 2)

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """Mean of the heads' scaled dot products, `(B, R)`; `attend` uses those of each head separately."""
        return self.head_scores(keys, state).mean(1)

    def attend(self, features: Tensor, keys: Tensor, state: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """One time step, see `Attention.attend`; the weights are the mean over the heads."""
        mask = None if mask is None else mask.unsqueeze(1)
        weights = masked_softmax(self.head_scores(keys, state), mask)  # (B, h, R)
        slices = features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)  # (B, h, R, E / h)
        context = torch.matmul(weights.unsqueeze(2), slices)  # (B, h, 1, E / h)
        return context.flatten(1), weights.mean(1)


def build_attention(
    name: AttentionName,
    *,
    region_dim: int,
    hidden_dim: int,
    attention_dim: int = 256,
    heads: int = 4,
    bias: bool = False,
    scaled: bool = False,
) -> Attention:
    """Builds an attention by name.

    Args:
        name: ``uniform``, ``bahdanau``, ``dot`` or ``multi_head``.
        region_dim: E.
        hidden_dim: H.
        attention_dim: A.
        heads: h, ``multi_head`` only.
        bias: add a bias to the query, ``dot`` only.
        scaled: divide the scores by sqrt(A), ``dot`` only (``multi_head`` always does).

    Raises:
        UserError: unknown name, or widths that are not divisible by the number of heads.
    """
    match name:
        case "uniform":
            return UniformAttention(region_dim=region_dim, hidden_dim=hidden_dim)
        case "bahdanau":
            return BahdanauAttention(region_dim=region_dim, hidden_dim=hidden_dim, attention_dim=attention_dim)
        case "dot":
            return DotAttention(
                region_dim=region_dim, hidden_dim=hidden_dim, attention_dim=attention_dim, bias=bias, scaled=scaled
            )
        case "multi_head":
            return MultiHeadAttention(
                region_dim=region_dim, hidden_dim=hidden_dim, attention_dim=attention_dim, heads=heads
            )
    raise UserError(f"attention {name!r} is unknown; choose uniform, bahdanau, dot or multi_head")


class RegionProjection(nn.Module):
    """Prepares regions for an attention: averages them to a coarser grid, projects and normalises them.

    Args:
        feature_dim: width of the regions, F.
        region_dim: E.
        pooled_side: rows and columns of the coarser square grid; None: no averaging.
        dropout: dropout probability of the result.
        positions: add a 2-D sinusoidal encoding to the projected regions, which must form a square grid.

    Raises:
        UserError: E is not a multiple of 4 with `positions`.
    """

    def __init__(
        self, *, feature_dim: int, region_dim: int, pooled_side: int | None, dropout: float, positions: bool = False
    ) -> None:
        super().__init__()
        if positions:
            sinusoidal_grid(1, 1, region_dim)  # fails now, not at the first batch
        self.pooled_side, self.positions = pooled_side, positions
        self.project = nn.Linear(feature_dim, region_dim)
        self.norm = nn.LayerNorm(region_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Regions `(B, R, F)` and their mask `(B, R)` or None to `(B, R', E)` and `(B, R')` or None.

        Masked regions must be zero, as `networks.encoders.source.image_regions` returns them.

        Raises:
            UserError: the regions are not a square grid and are to be averaged or have positions.
        """
        if self.pooled_side is not None:
            regions, mask = pooled(regions, mask, self.pooled_side)
        projected = self.norm(self.project(regions))
        return self.dropout(with_grid_positions(projected) if self.positions else projected), mask
