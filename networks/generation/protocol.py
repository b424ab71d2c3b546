"""What generation needs of a captioner.

Letters: B rows, V vocabulary.
"""

from typing import Protocol

from torch import Tensor

from networks.generation.retrieval import RetrievedCaptions
from networks.layers.sequences import Memory, State


class TokenModel(Protocol):
    """A model that scores the next token of captions, see `networks.captioners.base.Captioner`."""

    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int | None

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next: tokens `(B,)` to logits `(B, V)` and the new state."""

    def retrieve(self, memory: Memory, count: int) -> RetrievedCaptions | None:
        """Captions of the training images most similar to the encoded ones, or None."""
