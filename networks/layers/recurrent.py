"""A GRU or LSTM layer that reads a word and a context, step by step or a whole packed batch at once.

Both ways use the parameters of one `nn.GRU` or `nn.LSTM` and give the same numbers. The step-by-step way is for
contexts that depend on the state; the words' contribution to the gates is computed for all steps beforehand.

Letters: B rows, n rows of a time step, M packed positions, W word width, E context width, H width of the recurrent
state, G width of the gates (3 H in a GRU, 4 H in an LSTM).
"""

from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from core.errors import UserError
from networks.layers.sequences import State, on_device

CellName = Literal["gru", "lstm"]


def packed(inputs: Tensor, lengths: list[int]) -> PackedSequence:
    """Packs rows, whatever their order; the host does not wait for a GPU, as PyTorch's own function does.

    Args:
        inputs: `(N, S, W)`.
        lengths: lengths of the rows, N numbers of at least 1.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    places = sorted(range(len(order)), key=order.__getitem__)
    chosen, back = (on_device(rows, inputs.device) for rows in (order, places))
    steps = torch.tensor([lengths[row] for row in order])
    data, sizes, *_ = pack_padded_sequence(inputs.index_select(0, chosen), steps, batch_first=True)
    return PackedSequence(data, sizes, chosen, back)


def run_layers(
    rnn: nn.LSTM | nn.GRU, inputs: Tensor | PackedSequence, start: tuple[Tensor, ...] | None = None
) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]]:
    """Runs recurrent layers; dropout between them follows torch's generator on every device.

    On a CPU they run in float32 in mixed precision, too: it has no LSTM in float16, and one in bfloat16 only where the
    processor has instructions for it.

    On CUDA, cuDNN draws that dropout from a state of its own, which neither a seed nor a recomputation in the backward
    pass brings back. There, each layer is a call of its own.

    Args:
        rnn: layers in one direction, with biases and ``batch_first``.
        inputs: `(N, S, W)`, or packed.
        start: hidden states, and in an LSTM cell states, each `(L, N, H)`; None: zeros.

    Returns:
        Outputs of the top layer, as the inputs, and the states after the last step.
    """
    device = inputs.data.device if isinstance(inputs, PackedSequence) else inputs.device
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            start = None if start is None else tuple(value.float() for value in start)
            single = inputs._replace(data=inputs.data.float()) if isinstance(inputs, PackedSequence) else inputs.float()
            return run_layers(rnn, single, start)
    if device.type == "cpu" or not (rnn.training and rnn.dropout > 0 and rnn.num_layers > 1):
        state = None if start is None else (start if isinstance(rnn, nn.LSTM) else start[0])
        outputs, after = rnn(inputs, state)
        return outputs, after if isinstance(rnn, nn.LSTM) else (after,)
    return run_layer_by_layer(rnn, inputs, start)


def run_layer_by_layer(
    rnn: nn.LSTM | nn.GRU, inputs: Tensor | PackedSequence, start: tuple[Tensor, ...] | None = None
) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]]:
    """The same with one call for each layer, and dropout between them; arguments as for `run_layers`."""
    packed = inputs if isinstance(inputs, PackedSequence) else None
    data = inputs.data if isinstance(inputs, PackedSequence) else inputs
    if start is None:
        rows = len(data) if packed is None else int(packed.batch_sizes[0])
        zeros = data.new_zeros(rnn.num_layers, rows, rnn.hidden_size)
        start = (zeros, zeros) if isinstance(rnn, nn.LSTM) else (zeros,)
    elif packed is not None and packed.sorted_indices is not None:
        start = tuple(value.index_select(1, packed.sorted_indices) for value in start)
    call: Any = torch.lstm if isinstance(rnn, nn.LSTM) else torch.gru
    after: list[tuple[Tensor, ...]] = []
    for layer, weights in enumerate(cast(list[list[Tensor]], rnn.all_weights)):
        if layer:
            data = F.dropout(data, rnn.dropout, rnn.training)
        state = tuple(value[layer : layer + 1].contiguous() for value in start)
        given = state if isinstance(rnn, nn.LSTM) else state[0]
        settings = (True, 1, 0.0, rnn.training, False)  # biases, layers, dropout, training, one direction
        if packed is None:
            data, *last = call(data, given, weights, *settings, True)
        else:
            data, *last = call(data, packed.batch_sizes, given, weights, *settings)
        after.append(tuple(last))
    states = tuple(torch.cat(values) for values in zip(*after, strict=True))
    if packed is None:
        return data, states
    if packed.unsorted_indices is not None:
        states = tuple(value.index_select(1, packed.unsorted_indices) for value in states)
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), states


class CellWeights(NamedTuple):
    """The layer's parameters as a time step needs them, split once for a whole caption."""

    word: Tensor  # (G, W)
    context: Tensor  # (G, E)
    hidden: Tensor  # (G, H)
    word_bias: Tensor  # (G,)
    hidden_bias: Tensor  # (G,)


class ContextCell(nn.Module):
    """One recurrent layer whose input is a word's embedding and a context.

    The bias of the LSTM's forget gates is initialised to 1 (Jozefowicz et al. 2015), all else as by PyTorch.

    Args:
        cell: ``gru`` (Cho et al. 2014) or ``lstm`` (Hochreiter and Schmidhuber 1997).
        word_dim: W.
        context_dim: E.
        hidden_dim: H.

    Raises:
        UserError: unknown cell.
    """

    def __init__(self, *, cell: CellName, word_dim: int, context_dim: int, hidden_dim: int) -> None:
        super().__init__()
        if cell not in ("gru", "lstm"):
            raise UserError(f"cell {cell!r} is unknown; choose gru or lstm")
        self.split = [word_dim, context_dim]
        layer = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn: nn.LSTM | nn.GRU = layer(word_dim + context_dim, hidden_dim, batch_first=True)
        self.is_lstm = cell == "lstm"
        if self.is_lstm:
            weights = self.weights()
            with torch.no_grad():
                weights.word_bias[hidden_dim : 2 * hidden_dim] = 1.0
                weights.hidden_bias[hidden_dim : 2 * hidden_dim] = 0.0

    def weights(self) -> CellWeights:
        """Splits the parameters, once for all steps, because the gradient of a slice is as large as the whole."""
        input_weight, hidden_weight, word_bias, hidden_bias = cast(list[Tensor], self.rnn.all_weights[0])
        word, context = torch.split(input_weight, self.split, dim=1)
        return CellWeights(word, context, hidden_weight, word_bias, hidden_bias)

    def word_gates(self, words: Tensor, weights: CellWeights) -> Tensor:
        """The words' contribution to the gates, for any number of steps at once: `(M, W)` to `(M, G)`."""
        # The LSTM adds all biases in one sum; the GRU's reset gate multiplies its hidden bias
        bias = weights.word_bias + weights.hidden_bias if self.is_lstm else weights.word_bias
        return F.linear(words, weights.word, bias)

    def update(self, word_gates: Tensor, context: Tensor, state: State, weights: CellWeights) -> State:
        """One time step.

        Args:
            word_gates: what `word_gates` returned for the words of this step, `(n, G)`.
            context: `(n, E)`.
            state: `hidden` `(n, H)`, and `cell` `(n, H)` in an LSTM.
            weights: what `weights` returned.

        Returns:
            The new state; its `hidden` is the output.
        """
        hidden = state["hidden"]
        gates = word_gates + F.linear(context, weights.context)
        if self.is_lstm:
            gates = gates + F.linear(hidden, weights.hidden)
            # states stay in single precision under autocast, because they are sums over many steps
            enter, forget, new, leave = gates.float().chunk(4, dim=1)
            cell = forget.sigmoid() * state["cell"] + enter.sigmoid() * new.tanh()
            return {"hidden": leave.sigmoid() * cell.tanh(), "cell": cell}
        recurrent = F.linear(hidden, weights.hidden, weights.hidden_bias).float()
        width = 2 * hidden.shape[1]
        gates = gates.float()
        reset, keep = (gates[:, :width] + recurrent[:, :width]).sigmoid().chunk(2, dim=1)
        new = (gates[:, width:] + reset * recurrent[:, width:]).tanh()
        return {"hidden": torch.lerp(new, hidden.float(), keep)}

    def fused(self, words: Tensor, contexts: Tensor, batch_sizes: list[int], state: State) -> Tensor:
        """All time steps in one call, for contexts that do not depend on the state.

        Args:
            words: packed (time step by time step, longest caption first), `(M, W)`.
            contexts: packed alike, `(M, E)`.
            batch_sizes: captions that have not ended at each time step, in falling order.
            state: initial state, one row for each caption, longest first.

        Returns:
            Outputs, packed, `(M, H)`.
        """
        inputs = PackedSequence(torch.cat([words, contexts], dim=1), torch.tensor(batch_sizes))
        start = tuple(value.unsqueeze(0).to(inputs.data.dtype) for value in state.values())
        output, _ = run_layers(self.rnn, inputs, start)
        assert isinstance(output, PackedSequence)
        return output.data
