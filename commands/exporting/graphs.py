"""A captioner as two graphs of plain tensors: the encoder, which also reads BOS, and the step.

    encoder: pixels (B, 3, S, S), with conditions also labels (B,) -> logits (B, V), memory ..., state ...
    step:    tokens (N,), memory ..., state ...                     -> logits (N, V), state ...

The encoder reads BOS, too, so that no graph has a state that may be missing. N rows are images or images times beams;
the rows and the length of a key-value cache are free, the size of the image, and with it that of the memory, is that of
the training.

Letters: B images, N rows, S pixels, V vocabulary.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from networks.captioners.base import Captioner
from networks.encoders.base import ImageEncoder
from networks.layers.conditions import condition_only
from networks.layers.sequences import Memory, State

_ROWS = 3
"""Rows of the examples: a size of 1 would be taken for a constant."""
_MOST_ROWS, _MOST_TOKENS = 1 << 16, 1 << 16


class EncoderGraph(nn.Module):
    """From pixels to what decoding starts from.

    Args:
        captioner: the network.
        encoder: frozen encoder whose features it reads; None: it has its own.
        memory: entries of the memory that are given out; None: all.
    """

    def __init__(
        self, captioner: Captioner, encoder: ImageEncoder | None, *, memory: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.captioner, self.encoder, self.memory = captioner, encoder, memory

    def start(self, pixels: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Memory, State]:
        """Logits after BOS, memory and state."""
        # all regions of a grid are real, so there is no mask
        batch = {"image": pixels} if self.encoder is None else {"features": self.encoder.grid(pixels)}
        memory = self.captioner.encode(cast(Batch, batch))
        if labels is not None:
            memory = self.captioner.under(memory, labels)
        bos = torch.full_like(pixels[:, 0, 0, 0], self.captioner.bos_id, dtype=torch.long)
        logits, state = self.captioner.step(memory, bos, None)
        return logits, memory, state

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """The same as a flat tuple."""
        logits, memory, state = self.start(pixels, labels)
        return logits, *(memory[name] for name in self.memory or memory), *state.values()


class StepGraph(nn.Module):
    """From tokens, memory and state to scores and the next state.

    Args:
        captioner: the network.
        memory: names of the memory's entries, in order.
        state: names of the state's.
    """

    def __init__(self, captioner: Captioner, *, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.captioner, self.memory, self.state = captioner, list(memory), list(state)

    def forward(self, tokens: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """See above."""
        memory = dict(zip(self.memory, flat[: len(self.memory)], strict=True))
        state = dict(zip(self.state, flat[len(self.memory) :], strict=True))
        logits, state = self.captioner.step(memory, tokens, state)
        return logits, *(state[name] for name in self.state)


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """A captured captioner.

    Attributes:
        encoder: see above.
        step: see above.
        memory: names of the memory's entries.
        state: names of the state's.
        conditioned: the encoder takes labels.
    """

    encoder: torch.export.ExportedProgram
    step: torch.export.ExportedProgram
    memory: list[str]
    state: list[str]
    conditioned: bool

    @property
    def inputs(self) -> tuple[list[str], list[str]]:
        """Names of the inputs of encoder and step."""
        first = ["pixels", *(["labels"] if self.conditioned else [])]
        return first, ["tokens", *(f"memory_{name}" for name in self.memory), *(f"state_{n}" for n in self.state)]

    @property
    def outputs(self) -> tuple[list[str], list[str]]:
        """Names of the outputs of encoder and step."""
        memory = [f"memory_{name}" for name in self.memory]
        new = [f"new_{name}" for name in self.state]
        return ["logits", *(f"{name}_out" for name in memory), *(f"{name}_out" for name in new)], ["logits", *new]


def capture(captioner: Captioner, encoder: ImageEncoder | None, size: int) -> Graphs:
    """Captures a captioner in evaluation mode.

    Args:
        captioner: on the CPU.
        encoder: frozen encoder of square images whose features it reads; None: it reads images.
        size: pixels of their sides.
    """
    conditioned = captioner.conditions is not None
    first = EncoderGraph(captioner, encoder).eval()
    pixels = torch.rand(_ROWS, 3, size, size)
    labels = (torch.zeros(_ROWS, dtype=torch.long),) if conditioned else ()
    with torch.no_grad():
        _, memory, state = first.start(pixels, *labels)
        tokens = torch.full((_ROWS,), captioner.eos_id)
        first.memory = _read_again(captioner, memory, tokens, state)
        step = StepGraph(captioner, memory=first.memory, state=list(state)).eval()
        kept = [memory[name] for name in first.memory]
        # two steps on: a cache of one token would have the size 1
        _, *later = step(tokens, *kept, *state.values())
        _, *latest = step(tokens, *kept, *later)
    rows = torch.export.Dim("rows", min=1, max=_MOST_ROWS)
    length = torch.export.Dim("length", min=1, max=_MOST_TOKENS)
    growing = [{0: rows} | _differing(one, other, length) for one, other in zip(later, latest, strict=True)]
    # gradients stay enabled, though nothing asks for one: without them language models score in parts, for a cache
    # that a graph knows nothing of
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Graphs(
            encoder=torch.export.export(
                first, (pixels, *labels), dynamic_shapes=tuple({0: rows} for _ in (pixels, *labels)), strict=False
            ),
            step=torch.export.export(
                step,
                (tokens, *kept, *latest),
                dynamic_shapes=({0: rows}, (*({0: rows} for _ in kept), *growing)),
                strict=False,
            ),
            memory=first.memory,
            state=list(state),
            conditioned=conditioned,
        )


def _read_again(captioner: Captioner, memory: Memory, tokens: Tensor, state: State) -> list[str]:
    """Entries of the memory that a step reads; others serve the first step or retrieval only."""
    names = []
    for name in memory:
        try:
            captioner.step({key: value for key, value in memory.items() if key != name}, tokens, state)
        except KeyError:
            names.append(name)
    return [*names, *(name for name in condition_only(memory) if name not in names)]


def _differing(one: Tensor, other: Tensor, length: Any) -> dict[int, Any]:
    """The places of two shapes that differ, as a free length."""
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return {place: length for place, (before, after) in pairs if before != after}
