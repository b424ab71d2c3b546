"""Labels that a captioner is conditioned on, such as an emotion: one learnt vector each, added to what it reads.

Without a condition nothing is added, so that a captioner without labels and one whose label is dropped are one network.

Letters: N rows, C labels, W width.
"""

import torch
from torch import Tensor, nn

from networks.layers.sequences import Memory

_ENTRY = "condition"
"""Entry of a memory: the vector of each row's condition, `(N, W)`, zero for none."""


class ConditionEmbedding(nn.Module):
    """Vectors of labels, which start at zero: an untrained condition changes nothing.

    Args:
        labels: C.
        width: W.
    """

    def __init__(self, *, labels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(labels, width))

    def forward(self, condition: Tensor) -> Tensor:
        """Labels `(N,)`, long in [0, C) or -1 for none, to vectors `(N, W)`, zero for none."""
        found = self.weight.index_select(0, condition.clamp_min(0))
        return found * (condition >= 0).unsqueeze(1)


def add_condition(memory: Memory, vectors: Tensor) -> Memory:
    """A memory with the vectors of the conditions of its rows, `(N, W)`."""
    return {**memory, _ENTRY: vectors}


def without_condition(memory: Memory) -> Memory:
    """A memory without conditions."""
    return {name: tensor for name, tensor in memory.items() if name != _ENTRY}


def condition_only(memory: Memory) -> Memory:
    """The condition of a memory alone, if it has one."""
    return {_ENTRY: memory[_ENTRY]} if _ENTRY in memory else {}


def conditioned(words: Tensor, memory: Memory, rows: Tensor | None = None) -> Tensor:
    """Adds the condition of each row, if the memory has one; else gives back the very tensor.

    Args:
        words: `(N, W)`, or `(N, T, W)`, where every time step gets it.
        memory: memory of the rows.
        rows: row of the memory that each of `words` belongs to, `(N,)`; None: they are in the same order.
    """
    if _ENTRY not in memory:
        return words
    vectors = memory[_ENTRY] if rows is None else memory[_ENTRY].index_select(0, rows)
    vectors = vectors.to(words.dtype)
    return words + (vectors if words.dim() == 2 else vectors.unsqueeze(1))
