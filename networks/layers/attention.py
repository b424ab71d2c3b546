"""Attention of a recurrent decoder over the regions of an image, four kinds under one interface.

    context, weights = attention(features, state)

Everything that does not depend on the state (the keys) is computed once for an image by `Attention.keys` and handed to
`Attention.attend` at every time step; calling the module does both.

Letters: B rows, R regions, E region width, H state width, A attention width, h heads.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from core.errors import UserError

AttentionName = Literal["uniform", "bahdanau", "dot", "multi_head"]


class Attention(nn.Module, ABC):
    """Weights over the regions and their weighted mean.

    Attributes:
        constant: the weights do not depend on the state, so one context serves a whole caption.

    Args:
        feature_dim: E.
        state_dim: H.
    """

    constant: ClassVar[bool] = False

    def __init__(self, feature_dim: int, state_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.state_dim = state_dim

    @abstractmethod
    def keys(self, features: Tensor) -> Tensor:
        """What the state is compared with, once for an image: `(B, R, E)` to `(B, R, A)`."""

    @abstractmethod
    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """Compares: keys `(B, R, A)` and state `(B, H)` to real numbers `(B, R)`, the larger the more attention."""

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
    """The mean of the regions: ``p_j = 1 / R``. The floor that a learnt attention has to beat; no parameters."""

    constant = True

    def keys(self, features: Tensor) -> Tensor:
        """Nothing to compare with: `(B, R, 0)`."""
        return features[:, :, :0]

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """All alike: zeros `(B, R)`, whatever the state."""
        del state
        return keys.new_zeros(keys.shape[:2])


class BahdanauAttention(Attention):
    """Additive attention (Bahdanau et al. 2015): ``alpha_j = W tanh(U s + V x_j + b) + c``, ``p = softmax(alpha)``.

    ``c`` adds the same to every region; the softmax takes it away again, so it is left out (it could never learn).

    Args:
        feature_dim: E.
        state_dim: H.
        attention_dim: A.
    """

    def __init__(self, feature_dim: int, state_dim: int, attention_dim: int = 256) -> None:
        super().__init__(feature_dim, state_dim)
        self.U = nn.Linear(state_dim, attention_dim, bias=False)
        self.V = nn.Linear(feature_dim, attention_dim)  # its bias is b
        self.W = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        """``2 (V x + b)``: `(B, R, E)` to `(B, R, A)`."""
        return 2 * cast(Tensor, self.V(features))

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """``W tanh(U s + V x + b)`` but for a number that is the same for all regions, `(B, R)`."""
        # tanh(x) = 2 sigmoid(2 x) - 1. PyTorch's sigmoid takes a fifth of its tanh's time on a CPU, this tensor is the
        # largest of a time step, and the softmax takes away what the - 1 adds. In place: the sum is not needed again.
        energy = (keys + 2 * self.U(state).unsqueeze(1)).sigmoid_()  # (B, R, A)
        return 2 * cast(Tensor, self.W(energy)).squeeze(2)


class DotAttention(Attention):
    """Dot-product attention (Luong et al. 2015): ``alpha_j = (Q s)^T (K x_j)``, ``p = softmax(alpha)``.

    With a bias it is ``(Q s + q)^T (K x_j)``. A bias of the keys would add the same to every region; the softmax takes
    it away again, so there is none.

    Args:
        feature_dim: E.
        state_dim: H.
        attention_dim: A.
        bias: the query has a bias q.
        scaled: divide by sqrt(A) (Vaswani et al. 2017).
    """

    def __init__(
        self, feature_dim: int, state_dim: int, attention_dim: int = 256, bias: bool = False, scaled: bool = False
    ) -> None:
        super().__init__(feature_dim, state_dim)
        self.Q = nn.Linear(state_dim, attention_dim, bias=bias)
        self.K = nn.Linear(feature_dim, attention_dim, bias=False)
        self.scale = 1 / math.sqrt(attention_dim) if scaled else 1.0

    def keys(self, features: Tensor) -> Tensor:
        """``K x``: `(B, R, E)` to `(B, R, A)`."""
        return cast(Tensor, self.K(features))

    def scores(self, keys: Tensor, state: Tensor) -> Tensor:
        """``(Q s)^T (K x)``, `(B, R)`."""
        query = self.Q(state) * self.scale if self.scale != 1 else self.Q(state)  # (B, A)
        return torch.bmm(keys, query.unsqueeze(2)).squeeze(2)


class MultiHeadAttention(Attention):
    """Several scaled dot products side by side (after Vaswani et al. 2017).

    Head i compares its share of the query with its share of the key, both A / h wide, and takes the weighted mean of
    its share of the features, E / h wide. The features come out of a learnt projection, so a projection of the values
    would be a second one of the same kind; there is none. The weights that are returned are the mean over the heads;
    they sum to one, but the context is not their weighted mean.

    Args:
        feature_dim: E, a multiple of `heads`.
        state_dim: H.
        attention_dim: A, a multiple of `heads`.
        heads: h.

    Raises:
        UserError: a width is not a multiple of `heads`.
    """

    def __init__(self, feature_dim: int, state_dim: int, attention_dim: int = 256, heads: int = 4) -> None:
        super().__init__(feature_dim, state_dim)
        for name, width in (("feature_dim", feature_dim), ("attention_dim", attention_dim)):
            if heads < 1 or width % heads:
                raise UserError(f"{name}={width} cannot be shared among heads={heads}; give a divisor of {width}")
        self.heads = heads
        self.Q = nn.Linear(state_dim, attention_dim, bias=False)
        self.K = nn.Linear(feature_dim, attention_dim, bias=False)
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
        """Mean of the heads' scaled dot products, `(B, R)`; `attend` weighs each head by its own."""
        return self.head_scores(keys, state).mean(1)

    def attend(self, features: Tensor, keys: Tensor, state: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """One time step, see `Attention.attend`; the weights are the mean over the heads."""
        mask = None if mask is None else mask.unsqueeze(1)
        weights = masked_softmax(self.head_scores(keys, state), mask)  # (B, h, R)
        shares = features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)  # (B, h, R, E / h)
        context = torch.matmul(weights.unsqueeze(2), shares)  # (B, h, 1, E / h)
        return context.flatten(1), weights.mean(1)


def build_attention(
    name: AttentionName,
    feature_dim: int,
    state_dim: int,
    attention_dim: int = 256,
    heads: int = 4,
    bias: bool = False,
    scaled: bool = False,
) -> Attention:
    """Makes an attention by its name.

    Args:
        name: ``uniform``, ``bahdanau``, ``dot`` or ``multi_head``.
        feature_dim: E.
        state_dim: H.
        attention_dim: A.
        heads: h, ``multi_head`` only.
        bias: a bias in the query, ``dot`` only.
        scaled: divide the scores by sqrt(A), ``dot`` only (``multi_head`` always does).

    Raises:
        UserError: unknown name, or widths that cannot be shared among the heads.
    """
    match name:
        case "uniform":
            return UniformAttention(feature_dim, state_dim)
        case "bahdanau":
            return BahdanauAttention(feature_dim, state_dim, attention_dim)
        case "dot":
            return DotAttention(feature_dim, state_dim, attention_dim, bias, scaled)
        case "multi_head":
            return MultiHeadAttention(feature_dim, state_dim, attention_dim, heads)
    raise UserError(f"attention {name!r} is unknown; give uniform, bahdanau, dot or multi_head")
