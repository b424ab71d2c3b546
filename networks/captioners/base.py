"""What every captioner offers, so that decoding is written once.

Letters: B rows (images, or images times beams), N captions, T tokens of the longest caption, S width of the vector that
similar images are found by, V vocabulary, R image regions.
"""

from abc import ABC, abstractmethod
from typing import TypedDict

from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.generation.retrieval import RetrievalIndex, RetrievedCaptions
from networks.layers.conditions import ConditionEmbedding, add_condition
from networks.layers.sequences import CaptionOutput, Memory, State, select_rows


class TokenIds(TypedDict):
    """The vocabulary as every captioner needs to know it."""

    vocab_size: int
    """Number of tokens V, special ones included."""
    bos_id: int
    """Token before the first word; never predicted."""
    eos_id: int
    """Token after the last word."""
    pad_id: int
    """Padding; never predicted."""


class Captioner(nn.Module, ABC):
    """A network that writes captions token by token.

    Subclasses take `TokenIds` as further keyword arguments and pass them on.

    Attributes:
        unk_id: token of unknown words, which may be read but is never predicted; None: there is none.
        retrieval_index: training captions that decoding may retrieve from; None: no retrieval.
        conditions: vectors of the labels that captions may be conditioned on; None: it knows none.

    Args:
        vocab_size: number of tokens V, special ones included.
        bos_id: token before the first word; never predicted.
        eos_id: token after the last word.
        pad_id: padding; never predicted.
    """

    def __init__(self, *, vocab_size: int, bos_id: int, eos_id: int, pad_id: int) -> None:
        super().__init__()
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = vocab_size, bos_id, eos_id, pad_id
        self.unk_id: int | None = None
        self.retrieval_index: RetrievalIndex | None = None
        self.conditions: ConditionEmbedding | None = None

    @abstractmethod
    def encode(self, batch: Batch) -> Memory:
        """Encodes the images of a batch, each once: a dict of tensors with B rows first."""

    def similarity_state(self, memory: Memory) -> Tensor | None:
        """The vector that similar training images are found by, `(B, S)`, float32; None: retrieval is not supported.

        Args:
            memory: what `encode` returned, B rows.
        """
        del memory
        return None

    def retrieve(self, memory: Memory, count: int) -> RetrievedCaptions | None:
        """Captions of the training images most similar to the encoded ones; None without a filled retrieval index.

        Args:
            memory: what `encode` returned, B rows.
            count: training images to retrieve for each image.
        """
        states = self.similarity_state(memory)
        if states is None or self.retrieval_index is None or not len(self.retrieval_index.states):
            return None
        return self.retrieval_index.nearest(states, count)

    @property
    def condition_dim(self) -> int:
        """Width of the vector that a condition is; a network that adds one where it reads a memory says so.

        Raises:
            UserError: this network cannot be conditioned.
        """
        raise UserError(f"{type(self).__name__} cannot be conditioned on labels")

    def add_conditions(self, labels: int) -> None:
        """Makes the vectors of so many labels; they start at zero, so nothing changes before they have learnt."""
        self.conditions = ConditionEmbedding(labels=labels, width=self.condition_dim)

    def under(self, memory: Memory, condition: Tensor, rows: Tensor | None = None) -> Memory:
        """A memory whose rows have a condition.

        Args:
            memory: what `encode` returned, B rows.
            condition: label of each row of the result, `(N,)`, long, -1 for none.
            rows: row of `memory` that each is about, `(N,)`, long; None: N = B, in order.
        """
        assert self.conditions is not None, "add_conditions comes first"
        return add_condition(memory if rows is None else select_rows(memory, rows), self.conditions(condition))

    @property
    def attends(self) -> bool:
        """Whether it attends to image regions at every word, see `attention_maps`."""
        return False

    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """Attention over the regions while given captions are read, for example the network's own.

        Args:
            memory: what `encode` returned, B rows.
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`.
            image_index: row of `memory` of each caption, `(N,)`.

        Returns:
            Weights at the step that predicts token t + 1, `(N, T - 1, R)`; zero after a caption's end.

        Raises:
            NotImplementedError: the network does not attend to regions, see `attends`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not attend to regions")

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
