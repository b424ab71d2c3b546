"""Merging networks, which combine the image vector with the hidden states of the language model.

All variants have a skip connection from the hidden state to the output and small initial weights (Xavier normal, gain
0.1), so that at first the predictions of the language model hardly change.

Letters: N captions, B rows while decoding, T time steps, M real positions of all captions, Dv width of the image vector
v, Dh width of the hidden states h.
"""

from abc import ABC, abstractmethod
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from core.errors import UserError
from networks.layers.recurrent import run_layers
from networks.layers.sequences import State, length_mask, on_host, true_places

MergingVariant = Literal["mlp", "layer_norm", "batch_norm", "gru", "gru_published", "two_sided"]


class Merging(nn.Module, ABC):
    """Turns v and h_t into o_t, from which the language model's embedding computes the scores of the next token."""

    @abstractmethod
    def forward(self, image: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """All time steps of N captions.

        Args:
            image: v of each caption, `(N, Dv)`.
            hidden: `(N, T, Dh)`.
            lengths: real time steps of each caption, `(N,)`; positions after them have no influence.

        Returns:
            `(N, T, Dh)`; unspecified but finite after a caption's end.
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
    """BatchNorm with separate statistics for each time step, over the captions that are at least that long.

    Time steps are never mixed and padding is never counted. A step with a single caption, and evaluation, use the
    running statistics; a step that did not occur in training uses those of the last one that did. Running statistics
    are plain means over the first ten batches and exponential averages after that. Scale and shift are shared by all
    steps. Each process of a distributed run has its own statistics.

    Args:
        num_features: C.
        max_steps: time steps with statistics of their own; later ones share those of the last.
        momentum: weight of a new batch in the running statistics.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, *, num_features: int, max_steps: int = 36, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("mean", torch.zeros(max_steps, num_features))
        self.register_buffer("variance", torch.ones(max_steps, num_features))
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
    """A merging network that processes every position independently; only real positions are computed."""

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
        """See `Merging.forward`; zero after a caption's end."""
        steps = hidden.shape[1]
        place = true_places(length_mask(lengths, steps), sum(on_host(lengths)))
        caption, time = place // steps, place % steps
        merged = self.merge(image, hidden.flatten(0, 1).index_select(0, place), caption, time)
        result = merged.new_zeros(hidden.shape[0] * steps, hidden.shape[2])
        return result.index_copy(0, place, merged).view_as(hidden)

    def step(self, image: Tensor, hidden: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Merging.step`."""
        time = torch.zeros_like(image[:, 0], dtype=torch.long) if state is None else state["time"]
        rows = torch.arange(image.shape[0], device=image.device)
        return self.merge(image, hidden, rows, time), {"time": time + 1}


class MLPMerging(_PositionMerging):
    """The published network.

    z = ReLU(W1 [v; h]), m = W2 z + h, z' = ReLU(W3 m), o = W4 z' + m; the variants normalise W1 [v; h] and W3 m before
    the ReLU.

    Args:
        image_dim: Dv.
        hidden_dim: Dh.
        first_dim: width of z (paper: 384).
        second_dim: width of z' (paper: 256).
        norm: normalisation in both hidden layers.
        max_steps: time steps with BatchNorm statistics of their own.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        hidden_dim: int,
        first_dim: int = 384,
        second_dim: int = 256,
        norm: Literal["none", "layer_norm", "batch_norm"] = "none",
        max_steps: int = 36,
    ) -> None:
        super().__init__()
        self.first = _small_linear(image_dim + hidden_dim, first_dim)
        self.first_back = _small_linear(first_dim, hidden_dim)
        self.second = _small_linear(hidden_dim, second_dim)
        self.second_back = _small_linear(second_dim, hidden_dim)
        self.norms = nn.ModuleList(_norm(norm, width, max_steps) for width in (first_dim, second_dim))

    def merge(self, image: Tensor, hidden: Tensor, caption: Tensor, time: Tensor) -> Tensor:
        """See `_PositionMerging.merge`."""
        first = relu(_normalised(self.norms[0], _joint_linear(self.first, image, hidden, caption), time))
        middle = self.first_back(first) + hidden
        second = relu(_normalised(self.norms[1], self.second(middle), time))
        return cast(Tensor, self.second_back(second) + middle)


class TwoSidedMerging(_PositionMerging):
    """The network that the paper proposes but did not fully train: both sides are updated, then joined.

    a = Wa' ReLU(LN(Wa [v; h])) + v, b = Wb' ReLU(LN(Wb [v; h])) + h, o = Wo' ReLU(LN(Wo [a; b])) + h, as in the figure
    of the paper; the authors' code joins [v; h] instead of [a; b] at the end.

    Args:
        image_dim: Dv, width of v and a.
        hidden_dim: Dh, width of h and b.
        first_dim: width of the hidden layer of both sides (paper: 384).
        output_dim: width of the hidden layer of the last step (paper: 512).
    """

    def __init__(self, *, image_dim: int, hidden_dim: int, first_dim: int = 384, output_dim: int = 512) -> None:
        super().__init__()
        joint = image_dim + hidden_dim
        self.image_side = _small_linear(joint, first_dim)
        self.image_back = _small_linear(first_dim, image_dim)
        self.hidden_side = _small_linear(joint, first_dim)
        self.hidden_back = _small_linear(first_dim, hidden_dim)
        self.output = _small_linear(joint, output_dim)
        self.output_back = _small_linear(output_dim, hidden_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (first_dim, first_dim, output_dim))

    def merge(self, image: Tensor, hidden: Tensor, caption: Tensor, time: Tensor) -> Tensor:
        """See `_PositionMerging.merge`."""
        image_side = relu(self.norms[0](_joint_linear(self.image_side, image, hidden, caption)))
        new_image = self.image_back(image_side) + image.index_select(0, caption)  # (M, Dv)
        hidden_side = relu(self.norms[1](_joint_linear(self.hidden_side, image, hidden, caption)))
        new_hidden = self.hidden_back(hidden_side) + hidden  # (M, Dh)
        output = relu(self.norms[2](self.output(torch.cat([new_image, new_hidden], dim=1))))
        return cast(Tensor, self.output_back(output) + hidden)


class GRUMerging(Merging):
    """A GRU as the first hidden layer: z_t = GRU([v; h_t], z_(t-1)), m = W2 z + h, and the published second stage.

    Without the second stage, o = m, it is the authors' network, whose GRU also starts with small weights. With it, the
    GRU keeps PyTorch's initialisation.

    Args:
        image_dim: Dv.
        hidden_dim: Dh.
        first_dim: width of the GRU's state (paper: 384).
        second_dim: width of z' (paper: 256); None: no second stage.
        layers: layers of the GRU (paper: 2).
    """

    def __init__(
        self, *, image_dim: int, hidden_dim: int, first_dim: int = 384, second_dim: int | None = 256, layers: int = 2
    ) -> None:
        super().__init__()
        self.first = nn.GRU(image_dim + hidden_dim, first_dim, layers, batch_first=True)
        self.first_back = _small_linear(first_dim, hidden_dim)
        self.second = None if second_dim is None else _small_linear(hidden_dim, second_dim)
        self.second_back = None if second_dim is None else _small_linear(second_dim, hidden_dim)
        if second_dim is None:
            for weight in self.first.parameters():
                if weight.dim() == 2:
                    nn.init.xavier_normal_(weight, gain=0.1)

    def forward(self, image: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """See `Merging.forward`; padding comes last, so it cannot influence real positions."""
        return self._run(image, hidden, None)[0]

    def step(self, image: Tensor, hidden: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Merging.step`; the state is the GRU's, `(B, layers, first_dim)`."""
        before = None if state is None else state["gru"].transpose(0, 1).contiguous()
        merged, after = self._run(image, hidden.unsqueeze(1), before)
        return merged.squeeze(1), {"gru": after.transpose(0, 1)}

    def _run(self, image: Tensor, hidden: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Any number of time steps: `(N, T, Dh)` and the GRU's state `(layers, N, first_dim)`."""
        joint = torch.cat([image.unsqueeze(1).expand(-1, hidden.shape[1], -1), hidden], dim=2)
        first, (state,) = run_layers(self.first, joint, None if state is None else (state,))
        assert isinstance(first, Tensor)
        return self._second_stage(self.first_back(first) + hidden), state

    def _second_stage(self, middle: Tensor) -> Tensor:
        """O from m."""
        if self.second is None or self.second_back is None:
            return middle
        return cast(Tensor, self.second_back(relu(self.second(middle))) + middle)


def build_merging(
    variant: MergingVariant,
    *,
    image_dim: int,
    hidden_dim: int,
    first_dim: int = 384,
    second_dim: int = 256,
    output_dim: int = 512,
    max_steps: int = 36,
) -> Merging:
    """Builds a merging network.

    Args:
        variant: "mlp" (published); "layer_norm", "batch_norm": the same with normalised hidden layers; "gru": with a
            GRU of two layers as the first hidden layer; "gru_published": the authors' trial, without the second hidden
            layer; "two_sided": proposed by the paper.
        image_dim: Dv.
        hidden_dim: Dh.
        first_dim: width of the first hidden layer.
        second_dim: width of the second hidden layer (not in "two_sided").
        output_dim: width of the last hidden layer of "two_sided".
        max_steps: longest caption for "batch_norm", tokens.

    Raises:
        UserError: the variant is unknown.
    """
    match variant:
        case "mlp":
            return MLPMerging(image_dim=image_dim, hidden_dim=hidden_dim, first_dim=first_dim, second_dim=second_dim)
        case "layer_norm" | "batch_norm":
            return MLPMerging(
                image_dim=image_dim,
                hidden_dim=hidden_dim,
                first_dim=first_dim,
                second_dim=second_dim,
                norm=variant,
                max_steps=max_steps,
            )
        case "gru":
            return GRUMerging(image_dim=image_dim, hidden_dim=hidden_dim, first_dim=first_dim, second_dim=second_dim)
        case "gru_published":
            return GRUMerging(image_dim=image_dim, hidden_dim=hidden_dim, first_dim=first_dim, second_dim=None)
        case "two_sided":
            return TwoSidedMerging(
                image_dim=image_dim, hidden_dim=hidden_dim, first_dim=first_dim, output_dim=output_dim
            )
    raise UserError(f"merging {variant!r} is unknown; choose {', '.join(get_args(MergingVariant))}")


def _small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with small initial weights: Xavier normal with gain 0.1, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(layer.weight, gain=0.1)
    nn.init.zeros_(layer.bias)
    return layer


def _joint_linear(layer: nn.Linear, image: Tensor, hidden: Tensor, caption: Tensor) -> Tensor:
    """W [v; h] for M positions; the image's part of the product is computed once for each caption."""
    dim = image.shape[1]
    seen = linear(image, layer.weight[:, :dim], layer.bias)
    return seen.index_select(0, caption) + linear(hidden, layer.weight[:, dim:])


def _norm(kind: Literal["none", "layer_norm", "batch_norm"], width: int, max_steps: int) -> nn.Module:
    """The normalisation of a hidden layer, by name."""
    match kind:
        case "none":
            return nn.Identity()
        case "layer_norm":
            return nn.LayerNorm(width)
        case "batch_norm":
            return StepBatchNorm(num_features=width, max_steps=max_steps)


def _normalised(norm: nn.Module, values: Tensor, time: Tensor) -> Tensor:
    """Applies a normalisation; only `StepBatchNorm` needs the time step."""
    return cast(Tensor, norm(values, time) if isinstance(norm, StepBatchNorm) else norm(values))
