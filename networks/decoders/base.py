"""What the recurrent decoders share with those who use them.

Letters: B images, N captions, T tokens of the longest one, M scored tokens, D start vector, R regions, V vocabulary.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from networks.captioners.base import Memory, State
from networks.layers.attention import Attention


class RecurrentDecoder(nn.Module, ABC):
    """Writes a caption from one vector, word by word; with an attention it looks at regions meanwhile.

    A memory has, with an attention, `features` `(B, R, E)`, `keys` `(B, R, A)` and, where regions are missing, `mask`
    `(B, R)`; what else it has is not looked at.

    Attributes:
        vocab_size: V.
        word_dim: width of a word that is read.
        attention: None: no regions.
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
            scheduled_sampling: share of the words read that are the decoder's own instead of the captions'.

        Returns:
            Logits `(M, V)` in row-major order of the captions, and weights of the regions `(N, T - 1, R)`, zero behind
            a caption's end, or None without attention.
        """


def seen_of(memory: Memory) -> Memory:
    """What an attention takes of a memory: `features`, `keys` and, where regions are missing, `mask`."""
    return {name: memory[name] for name in ("features", "keys", "mask") if name in memory}
