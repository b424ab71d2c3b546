"""What every recurrent decoder offers.

Letters: B images, N captions, T tokens of the longest one, M scored tokens, D start vector, R regions, V vocabulary.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from networks.layers.attention import Attention
from networks.layers.sequences import Memory, State


class RecurrentDecoder(nn.Module, ABC):
    """Writes a caption from one vector, word by word; with an attention it attends to regions at every word.

    With an attention, a memory has `features` `(B, R, E)`, `keys` `(B, R, A)` and, where regions are missing, `mask`
    `(B, R)`; what else it has, but a condition (see `networks.layers.conditions`), is ignored.

    Attributes:
        vocab_size: V.
        word_dim: width of a word that is read.
        attention: attention over regions, or None.
    """

    vocab_size: int
    word_dim: int
    attention: Attention | None

    @abstractmethod
    def start(self, vector: Tensor) -> State:
        """State before the first word, from vectors `(B, D)`; B rows."""

    @abstractmethod
    def step(self, memory: Memory, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads tokens `(B,)` and scores the next: logits `(B, V)` and the new state."""

    @abstractmethod
    def score(
        self,
        memory: Memory,
        start: State,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every real target token of given captions.

        Args:
            memory: B rows.
            start: state before BOS, B rows.
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`, long.
            image_index: row of `memory` and `start` that each caption belongs to, `(N,)`, long.
            scheduled_sampling: probability that a word read is the decoder's own prediction instead of the caption's.

        Returns:
            Logits `(M, V)` in row-major order of the captions, and weights of the regions `(N, T - 1, R)`, zero after a
            caption's end, or None without attention.
        """


def attended(memory: Memory) -> Memory:
    """The entries of a memory that an attention reads: `features`, `keys` and, where regions are missing, `mask`."""
    return {name: memory[name] for name in ("features", "keys", "mask") if name in memory}
