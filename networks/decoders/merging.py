"""Merging networks: where the picture's vector meets the language tower's hidden states.

All variants keep a skip connection from the hidden state to the output, and start with small weights (Xavier normal,
gain 0.1), so that at first the language tower speaks almost as it did before.

Letters: N captions, B rows while decoding, T time steps, M real positions of all captions, Dv width of the picture's
vector v, Dh width of the hidden states h.
"""

from abc import ABC, abstractmethod
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from core.errors import UserError
from networks.captioners.base import State

MergingVariant = Literal["mlp", "layer_norm", "batch_norm", "gru", "two_sided"]


class Merging(nn.Module, ABC):
    """Turns v and h_t into o_t, from which the language tower's embedding makes the scores of the next token."""

    @abstractmethod
    def forward(self, image: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """All time steps of N captions.

        Args:
            image: v of each caption, `(N, Dv)`.
            hidden: `(N, T, Dh)`.
            lengths: real time steps of each caption, `(N,)`; what stands behind them has no influence.

        Returns:
            `(N, T, Dh)`; unspecified but finite behind a caption's end.
        """

    @abstractmethod
    def step(self, image: Tensor, hidden: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One time step of B rows.

        Args:
            image: `(B, Dv)`.
            hidden: `(B, Dh)`.
            state: what the last call returned; None at first.

        Returns:
            `(B, Dh)` and the new state.
        """


class StepBatchNorm(nn.Module):
    """BatchNorm whose statistics are those of one time step, over the captions that are that long.

    Time steps are never mixed and padding is never counted. A step with a single caption, and evaluation, use the
    running statistics; a step that training never saw uses those of the last one it did. Running statistics are plain
    means of the first ten batches and decay after that. Scale and shift are shared by all steps. Each process of a
    distributed run has its own statistics.

    Args:
        width: C, numbers to be normalised.
        max_steps: time steps with statistics of their own; later ones share those of the last.
        momentum: weight of a new batch in the running statistics.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, width: int, max_steps: int = 36, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(max_steps, width))
        self.register_buffer("variance", torch.ones(max_steps, width))
        self.register_buffer("batches", torch.zeros(max_steps, dtype=torch.long))
        self.momentum, self.eps = momentum, eps

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        """Normalises.

        Args:
            values: `(M, C)`.
            time: time step of each, `(M,)`, long.

        Returns:
            `(M, C)`, in the type of `values`.
        """
        time = time.clamp(max=len(self.batches) - 1)
        known = ((self.batches > 0).sum() - 1).clamp(min=0)
        mean, variance = (statistic[time.minimum(known)] for statistic in (self.mean, self.variance))
        if self.training:
            batch_mean, batch_variance, count = self._statistics(values.float(), time)
            enough = (count > 1)[time].unsqueeze(1)
            mean, variance = batch_mean[time].where(enough, mean), batch_variance[time].where(enough, variance)
            self._track(batch_mean.detach(), batch_variance.detach(), count)
        normal = (values.float() - mean) * (variance + self.eps).rsqrt()
        return (normal * self.weight + self.bias).to(values.dtype)

    def _statistics(self, values: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and (biased) variance of each time step, `(max_steps, C)`, and its number of captions."""
        count = torch.zeros_like(self.batches).index_add(0, time, torch.ones_like(time))
        share = 1 / count.clamp(min=1).unsqueeze(1)
        mean = torch.zeros_like(self.mean).index_add(0, time, values) * share
        variance = torch.zeros_like(self.mean).index_add(0, time, (values - mean[time]).square()) * share
        return mean, variance, count

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Updates the running statistics of the steps that had at least two captions."""
        enough = count > 1
        self.batches += enough
        weight = (1 / self.batches.clamp(min=1)).clamp(min=self.momentum).where(enough, 0).unsqueeze(1)
        unbiased = variance * (count / (count - 1).clamp(min=1)).unsqueeze(1)
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(unbiased, weight)


class _PositionMerging(Merging):
    """A merging network that treats every position by itself: only real positions are computed."""

    @abstractmethod
    def merge(self, image: Tensor, hidden: Tensor, caption: Tensor, time: Tensor) -> Tensor:
        """Merges M positions.

        Args:
            image: `(N, Dv)`.
            hidden: `(M, Dh)`.
            caption: row of `image` that each position belongs to, `(M,)`.
            time: its time step, `(M,)`.

        Returns:
            `(M, Dh)`.
        """

    def forward(self, image: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """See `Merging.forward`; zero behind a caption's end."""
        steps = hidden.shape[1]
        real = torch.arange(steps, device=hidden.device) < lengths.unsqueeze(1)
        caption, time = real.nonzero(as_tuple=True)
        place = caption * steps + time
        merged = self.merge(image, hidden.flatten(0, 1).index_select(0, place), caption, time)
        result = merged.new_zeros(real.numel(), hidden.shape[2])
        return result.index_copy(0, place, merged).view_as(hidden)

    def step(self, image: Tensor, hidden: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Merging.step`."""
        time = torch.zeros_like(image[:, 0], dtype=torch.long) if state is None else state["time"]
        rows = torch.arange(len(image), device=image.device)
        return self.merge(image, hidden, rows, time), {"time": time + 1}


class MLPMerging(_PositionMerging):
    """The published network.

    z = ReLU(W1 [v; h]), m = W2 z + h, z' = ReLU(W3 m), o = W4 z' + m; the variants normalise W1 [v; h] and W3 m before
    the ReLU.

    Args:
        image_dim: Dv.
        hidden_dim: Dh.
        first_width: numbers in z (paper: 384).
        second_width: numbers in z' (paper: 256).
        norm: normalisation of both hidden layers.
        max_steps: time steps with BatchNorm statistics of their own.
    """

    def __init__(
        self,
        image_dim: int,
        hidden_dim: int,
        first_width: int = 384,
        second_width: int = 256,
        norm: Literal["none", "layer_norm", "batch_norm"] = "none",
        max_steps: int = 36,
    ) -> None:
        super().__init__()
        self.first = _small_linear(image_dim + hidden_dim, first_width)
        self.first_back = _small_linear(first_width, hidden_dim)
        self.second = _small_linear(hidden_dim, second_width)
        self.second_back = _small_linear(second_width, hidden_dim)
        self.norms = nn.ModuleList(_norm(norm, width, max_steps) for width in (first_width, second_width))

    def merge(self, image: Tensor, hidden: Tensor, caption: Tensor, time: Tensor) -> Tensor:
        """See `_PositionMerging.merge`."""
        first = relu(_normalised(self.norms[0], _joint_linear(self.first, image, hidden, caption), time))
        middle = self.first_back(first) + hidden
        second = relu(_normalised(self.norms[1], self.second(middle), time))
        return cast(Tensor, self.second_back(second) + middle)


class TwoSidedMerging(_PositionMerging):
    """The network that the paper proposes but did not train to the end: both sides are updated, then joined.

    a = Wa' ReLU(LN(Wa [v; h])) + v, b = Wb' ReLU(LN(Wb [v; h])) + h, o = Wo' ReLU(LN(Wo [a; b])) + h, as in the paper's
    figure; the authors' code joins [v; h] instead of [a; b] at the end.

    Args:
        image_dim: Dv, numbers in v and a.
        hidden_dim: Dh, numbers in h and b.
        first_width: hidden layer of both sides (paper: 384).
        output_width: hidden layer of the last step (paper: 512).
    """

    def __init__(self, image_dim: int, hidden_dim: int, first_width: int = 384, output_width: int = 512) -> None:
        super().__init__()
        joint = image_dim + hidden_dim
        self.image_side = _small_linear(joint, first_width)
        self.image_back = _small_linear(first_width, image_dim)
        self.hidden_side = _small_linear(joint, first_width)
        self.hidden_back = _small_linear(first_width, hidden_dim)
        self.output = _small_linear(joint, output_width)
        self.output_back = _small_linear(output_width, hidden_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (first_width, first_width, output_width))

    def merge(self, image: Tensor, hidden: Tensor, caption: Tensor, time: Tensor) -> Tensor:
        """See `_PositionMerging.merge`."""
        image_side = relu(self.norms[0](_joint_linear(self.image_side, image, hidden, caption)))
        new_image = self.image_back(image_side) + image.index_select(0, caption)  # (M, Dv)
        hidden_side = relu(self.norms[1](_joint_linear(self.hidden_side, image, hidden, caption)))
        new_hidden = self.hidden_back(hidden_side) + hidden  # (M, Dh)
        output = relu(self.norms[2](self.output(torch.cat([new_image, new_hidden], dim=1))))
        return cast(Tensor, self.output_back(output) + hidden)


class GRUMerging(Merging):
    """The published network with a GRU as its first hidden layer: z_t = GRU([v; h_t], z_(t-1)).

    The GRU keeps PyTorch's initialisation.

    Args:
        image_dim: Dv.
        hidden_dim: Dh.
        first_width: state of the GRU (paper: 384).
        second_width: numbers in z' (paper: 256).
        layers: of the GRU (paper: 2).
    """

    def __init__(
        self, image_dim: int, hidden_dim: int, first_width: int = 384, second_width: int = 256, layers: int = 2
    ) -> None:
        super().__init__()
        self.first = nn.GRU(image_dim + hidden_dim, first_width, layers, batch_first=True)
        self.first_back = _small_linear(first_width, hidden_dim)
        self.second = _small_linear(hidden_dim, second_width)
        self.second_back = _small_linear(second_width, hidden_dim)

    def forward(self, image: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """See `Merging.forward`; padding comes last, so the GRU reads it too late for any harm."""
        return self._run(image, hidden, None)[0]

    def step(self, image: Tensor, hidden: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Merging.step`; the state is the GRU's, `(B, layers, first_width)`."""
        before = None if state is None else state["gru"].transpose(0, 1).contiguous()
        merged, after = self._run(image, hidden.unsqueeze(1), before)
        return merged.squeeze(1), {"gru": after.transpose(0, 1)}

    def _run(self, image: Tensor, hidden: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Any number of time steps: `(N, T, Dh)` and the GRU's state `(layers, N, first_width)`."""
        joint = torch.cat([image.unsqueeze(1).expand(-1, hidden.shape[1], -1), hidden], dim=2)
        first, state = self.first(joint, state)
        middle = self.first_back(first) + hidden
        return self.second_back(relu(self.second(middle))) + middle, cast(Tensor, state)


def build_merging(
    variant: MergingVariant,
    image_dim: int,
    hidden_dim: int,
    *,
    first_width: int = 384,
    second_width: int = 256,
    output_width: int = 512,
    max_steps: int = 36,
) -> Merging:
    """Builds a merging network.

    Args:
        variant: "mlp" (published); "layer_norm", "batch_norm": the same with normalised hidden layers; "gru": with a
            GRU of two layers as the first hidden layer; "two_sided": the one that the paper proposes.
        image_dim: Dv.
        hidden_dim: Dh.
        first_width: first hidden layer.
        second_width: second hidden layer (not in "two_sided").
        output_width: last hidden layer of "two_sided".
        max_steps: longest caption for "batch_norm", tokens.

    Raises:
        UserError: the variant is unknown.
    """
    match variant:
        case "mlp":
            return MLPMerging(image_dim, hidden_dim, first_width, second_width)
        case "layer_norm" | "batch_norm":
            return MLPMerging(image_dim, hidden_dim, first_width, second_width, variant, max_steps)
        case "gru":
            return GRUMerging(image_dim, hidden_dim, first_width, second_width)
        case "two_sided":
            return TwoSidedMerging(image_dim, hidden_dim, first_width, output_width)
    raise UserError(f"merging {variant!r} is unknown; give mlp, layer_norm, batch_norm, gru or two_sided")


def _small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts small: Xavier normal with gain 0.1, no shift."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(layer.weight, gain=0.1)
    nn.init.zeros_(layer.bias)
    return layer


def _joint_linear(layer: nn.Linear, image: Tensor, hidden: Tensor, caption: Tensor) -> Tensor:
    """W [v; h] for M positions; the picture's part of the product is computed once for each caption."""
    dim = image.shape[1]
    seen = linear(image, layer.weight[:, :dim], layer.bias)
    return seen.index_select(0, caption) + linear(hidden, layer.weight[:, dim:])


def _norm(kind: Literal["none", "layer_norm", "batch_norm"], width: int, max_steps: int) -> nn.Module:
    """The normalisation of a hidden layer."""
    match kind:
        case "none":
            return nn.Identity()
        case "layer_norm":
            return nn.LayerNorm(width)
        case "batch_norm":
            return StepBatchNorm(width, max_steps)


def _normalised(norm: nn.Module, values: Tensor, time: Tensor) -> Tensor:
    """Applies it; only `StepBatchNorm` asks for the time step."""
    return cast(Tensor, norm(values, time) if isinstance(norm, StepBatchNorm) else norm(values))
