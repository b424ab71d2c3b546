"""Recurrent layers run one by one, and in float32 where the CPU has nothing else."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from networks.layers.recurrent import run_layer_by_layer, run_layers


def inputs(packed):
    words = torch.randn(4, 6, 5)
    return pack_padded_sequence(words, torch.tensor([3, 6, 1, 4]), True, enforce_sorted=False) if packed else words


def states(rnn, rows=4):
    count = 2 if isinstance(rnn, nn.LSTM) else 1
    return tuple(torch.randn(rnn.num_layers, rows, rnn.hidden_size) for _ in range(count))


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_layer_by_layer_is_the_same_with_the_same_dropout(kind, packed, given):
    rnn = kind(5, 7, 3, batch_first=True, dropout=0.4)
    words, start = inputs(packed), None
    start = states(rnn) if given else None
    torch.manual_seed(1)
    expected, after = rnn(words, None if start is None else (start if kind is nn.LSTM else start[0]))
    torch.manual_seed(1)
    found, last = run_layer_by_layer(rnn, words, start)
    if packed:
        assert isinstance(found, PackedSequence)
        assert torch.equal(found.batch_sizes, expected.batch_sizes)
        assert torch.equal(found.sorted_indices, expected.sorted_indices)
        expected, found = expected.data, found.data
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(last, after if kind is nn.LSTM else (after,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_mixed_precision_on_the_cpu_is_single_in_recurrent_layers(kind, dtype):
    rnn = kind(5, 7, 2, batch_first=True)
    words, start = torch.randn(4, 6, 5).to(dtype), tuple(one.to(dtype) for one in states(rnn))
    with torch.autocast("cpu", dtype):
        found, last = run_layers(rnn, words, start)
    assert found.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in last)
    expected, _ = run_layers(rnn, words.float(), tuple(one.float() for one in start))
    assert torch.equal(found, expected)
