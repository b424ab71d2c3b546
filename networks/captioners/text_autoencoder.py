"""An autoencoder of captions: a recurrent encoder, a code, a recurrent decoder.

Letters: N captions, T tokens of the longest one, V vocabulary, W word width, L layers, H width of the recurrent
state, D code width.
"""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, TokenIds
from networks.decoders.code import CodeDecoder, WordInput, WordReader, recurrent_layers
from networks.layers.checkpointing import Runner
from networks.layers.recurrent import CellName, packed, run_layers
from networks.layers.sequences import CaptionOutput, Memory, State, on_host, steps_of, targets_of

CodeKind = Literal["states", "output"]


class TextEncoder(nn.Module):
    """Reads captions, without BOS but with EOS, and computes a code of each.

    Captions are packed, so padding does not influence the code.

    Args:
        words: embedding of words.
        hidden_dim: H.
        layers: L.
        cell: ``lstm`` or ``gru``.
        dropout: dropout probability of words and between layers.
        reverse_input: read from the last word to the first, so that the decoder starts with the word that was read last
            (Sutskever et al. 2014).
        code: ``states``: the final cell states (hidden states of a GRU) of all layers, D = L H; ``output``: the last
            output of the top layer, D = H.
        gradient_checkpointing: recompute everything in the backward pass instead of keeping activations.

    Raises:
        UserError: unknown cell or code.
    """

    def __init__(
        self,
        *,
        words: WordReader,
        hidden_dim: int,
        layers: int = 2,
        cell: CellName = "lstm",
        dropout: float = 0.5,
        reverse_input: bool = False,
        code: CodeKind = "states",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if code not in ("states", "output"):
            raise UserError(f"code is {code!r}: expected states or output")
        self.code = code
        self.words = words
        self.rnn = recurrent_layers(
            cell=cell, word_dim=words.out_features, hidden_dim=hidden_dim, layers=layers, dropout=dropout
        )
        self.dropout = nn.Dropout(dropout)
        self.reverse_input = reverse_input
        self._run = Runner(gradient_checkpointing)
        self.code_dim = layers * hidden_dim if code == "states" else hidden_dim

    def forward(self, caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
        """Codes of captions.

        Args:
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`.

        Returns:
            `(N, D)`, float, unbounded.
        """
        if len(caption_ids) == 0:
            return next(iter(self.rnn.parameters())).new_zeros(0, self.code_dim)
        codes: Tensor = self._run(self._codes, caption_ids, caption_lengths)
        return codes

    def _codes(self, caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
        """Codes of at least one caption."""
        ids = reversed_rows(caption_ids[:, 1:], caption_lengths - 1) if self.reverse_input else caption_ids[:, 1:]
        words = self.dropout(self.words(ids))
        _, last = run_layers(self.rnn, packed(words, on_host(steps_of(caption_lengths))))
        return last[-1].transpose(0, 1).flatten(1) if self.code == "states" else last[0][-1]


def reversed_rows(ids: Tensor, lengths: Tensor) -> Tensor:
    """Reverses the first ``lengths[n]`` entries of every row; those after them stay in place.

    >>> reversed_rows(torch.tensor([[5, 6, 2], [7, 2, 0]]), torch.tensor([3, 2])).tolist()
    [[2, 6, 5], [2, 7, 0]]
    """
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    mirrored = lengths.unsqueeze(1) - 1 - place
    return ids.gather(1, torch.where(mirrored >= 0, mirrored, place))


class TextAutoencoder(Captioner):
    """Reconstructs a caption from its code. A row of the memory is a caption, not an image.

    Args:
        word_input: ``embedding`` or ``one_hot``; encoder and decoder share the embedding.
        word_dim: W (published: 300).
        hidden_dim: H (published: 1024).
        layers: L (published: 2).
        cell: ``lstm`` (published) or ``gru``.
        code: see `TextEncoder`.
        dropout: see `TextEncoder` and `CodeDecoder`.
        word_dropout: see `CodeDecoder`.
        reverse_input: see `TextEncoder`.
        code_dropout: dropout probability of the code.
        gradient_checkpointing: recompute the recurrent layers of both sides in the backward pass instead of keeping
            their activations.
        token_ids: size of the vocabulary and the special tokens, see `TokenIds`.
    """

    def __init__(
        self,
        *,
        word_input: WordInput = "embedding",
        word_dim: int = 300,
        hidden_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        code: CodeKind = "states",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        reverse_input: bool = False,
        code_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        **token_ids: Unpack[TokenIds],
    ) -> None:
        super().__init__(**token_ids)
        reader = WordReader(word_input=word_input, vocab_size=self.vocab_size, word_dim=word_dim)
        self.encoder = TextEncoder(
            words=reader,
            hidden_dim=hidden_dim,
            layers=layers,
            cell=cell,
            dropout=dropout,
            reverse_input=reverse_input,
            code=code,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.decoder = CodeDecoder(
            vocab_size=self.vocab_size,
            words=reader,
            hidden_dim=hidden_dim,
            layers=layers,
            cell=cell,
            dropout=dropout,
            word_dropout=word_dropout,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.code_dropout = nn.Dropout(code_dropout)

    def encode(self, batch: Batch) -> Memory:
        """Codes of the captions of a batch, `code` `(N, D)`."""
        code = self.encoder(batch["caption_ids"], batch["caption_lengths"])
        return {"code": self.code_dropout(code)}

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        if state is None:
            state = self.decoder.start(memory["code"])
        return self.decoder.step(memory, token, state)

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token, see `Captioner.forward`.

        Args:
            memory: what `encode` returned.
            caption_ids: `(N, T)`.
            caption_lengths: `(N,)`.
            image_index: row of the memory of each caption, `(N,)`: ``arange(N)`` to reconstruct them.
            scheduled_sampling: probability of reading the decoder's own words, see `CodeDecoder.teacher_forced`.
        """
        start = self.decoder.start(memory["code"])
        logits, _ = self.decoder.score(memory, start, caption_ids, caption_lengths, image_index, scheduled_sampling)
        return CaptionOutput(logits=logits, targets=targets_of(caption_ids, caption_lengths))
