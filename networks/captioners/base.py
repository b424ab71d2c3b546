"""What every captioner offers, so that decoding is written once.

Letters: B rows (images, or images times beams), N captions, T tokens of the longest caption, M scored target tokens,
V vocabulary, R image regions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.batch import Batch
from networks.generation.retrieval import RetrievalIndex, RetrievedCaptions

Memory = dict[str, Tensor]
"""What the decoder may look at; every tensor has B rows first."""

State = dict[str, Tensor]
"""What the decoder carries from token to token (recurrent state, key-value cache); every tensor has B rows first."""


@dataclass
class CaptionOutput:
    """Result of a teacher-forced pass over N captions.

    Attributes:
        logits: scores of the next token at every scored position, `(M, V)`, in row-major order of the captions.
        targets: the tokens to be predicted there, `(M,)`, long.
        attention: weights over the regions at every time step, `(N, T - 1, R)`, zero behind a caption's end, or None
            when the model does not attend.
    """

    logits: Tensor
    targets: Tensor
    attention: Tensor | None = None


class Captioner(nn.Module, ABC):
    """A network that writes captions token by token.

    Attributes:
        vocab_size: number of tokens V, special ones included.
        bos_id: token before the first word; never predicted.
        eos_id: token after the last word.
        pad_id: filling; never predicted.
        unk_id: token that stands for unknown words, read but never predicted; None: there is none.
        bank: training captions that have a voice in decoding; set by whoever wants them.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int

    def __init__(self) -> None:
        super().__init__()
        self.unk_id: int | None = None
        self.retrieval_index: RetrievalIndex | None = None

    @abstractmethod
    def encode(self, batch: Batch) -> Memory:
        """Encodes the images of a batch, each once: a dict of tensors with B rows first."""

    def similarity_state(self, memory: Memory) -> Tensor | None:
        """What a picture is known by when similar ones are looked for, `(B, S)`, float32; None: nothing is.

        Args:
            memory: what `encode` returned, B rows.
        """
        del memory
        return None

    def retrieve(self, memory: Memory, count: int) -> RetrievedCaptions | None:
        """Captions of the training pictures most similar to the encoded ones; None: the network knows of none.

        Args:
            memory: what `encode` returned, B rows.
            count: training pictures for each image.
        """
        states = self.similarity_state(memory)
        if states is None or self.retrieval_index is None or not len(self.retrieval_index.states):
            return None
        return self.retrieval_index.nearest(states, count)

    @property
    def attends(self) -> bool:
        """Whether it looks at regions of a picture word by word, see `attention_maps`."""
        return False

    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """Where the network looks while it writes given captions, e.g. its own.

        Args:
            memory: what `encode` returned, B rows.
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`.
            image_index: row of `memory` of each caption, `(N,)`.

        Returns:
            Weights at the step that writes token t + 1, `(N, T - 1, R)`; zero behind a caption's end.

        Raises:
            NotImplementedError: it does not look at regions, see `attends`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not look at regions")

    @abstractmethod
    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next.

        Args:
            memory: what `encode` returned, B rows.
            token: last token of each row, `(B,)`, long; BOS at first.
            state: what the last call returned; None at first.

        Returns:
            Logits `(B, V)` and the new state.
        """

    @abstractmethod
    def forward(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> CaptionOutput:
        """Scores every real target token of the captions given the tokens before it (teacher forcing).

        Args:
            memory: what `encode` returned, B rows.
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`, long.
            image_index: row of `memory` that each caption belongs to, `(N,)`, long.
        """


def select_rows(tensors: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """Picks rows of every tensor of a memory or state: row i of the result is row ``index[i]``."""
    return {name: tensor.index_select(0, index) for name, tensor in tensors.items()}


def target_mask(caption_lengths: Tensor, max_length: int) -> Tensor:
    """Marks the positions with a real target.

    Args:
        caption_lengths: tokens with BOS and EOS, `(N,)`.
        max_length: T, tokens of the longest caption.

    Returns:
        `(N, T - 1)` bool: position t is True when token t + 1 is a word or EOS of the caption.

    >>> target_mask(torch.tensor([2, 3]), 3).tolist()
    [[True, False], [True, True]]
    """
    steps = torch.arange(max_length - 1, device=caption_lengths.device)
    return steps < (caption_lengths - 1).unsqueeze(1)
