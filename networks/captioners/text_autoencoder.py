"""An autoencoder of captions: a recurrent encoder, a code, a recurrent decoder (Qu-style sentence codes).

Letters: N captions, T tokens of the longest one, V vocabulary, W word width, L layers, H state width, D code width.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, CaptionOutput, Memory, State, target_mask
from networks.decoders.code import CodeDecoder, WordInput, WordReader, recurrent_layers
from networks.layers.checkpointing import runner
from networks.layers.recurrent import CellName

CodeKind = Literal["states", "output"]


class TextEncoder(nn.Module):
    """Reads captions, without BOS, with EOS, and gives each a code.

    Captions are packed: padding does not enter the code.

    Args:
        words: reader of words.
        state_dim: H.
        layers: L.
        cell: ``lstm`` or ``gru``.
        dropout: share dropped from words and between layers.
        backwards: read from the last word to the first, so that the decoder begins with what was read last (Sutskever
            et al. 2014).
        code: ``states``: the final cell states (hidden states of a GRU) of all layers, D = L H; ``output``: the last
            output of the upper layer, D = H.

    Raises:
        UserError: unknown cell or code.
    """

    def __init__(
        self,
        words: WordReader,
        state_dim: int,
        layers: int = 2,
        cell: CellName = "lstm",
        dropout: float = 0.5,
        backwards: bool = False,
        code: CodeKind = "states",
    ) -> None:
        super().__init__()
        if code not in ("states", "output"):
            raise UserError(f"code is {code!r}: expected states or output")
        self.code = code
        self.words = words
        self.rnn = recurrent_layers(cell, words.out_features, state_dim, layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.backwards = backwards
        self.code_dim = layers * state_dim if code == "states" else state_dim

    def forward(self, caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
        """Codes of captions.

        Args:
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`.

        Returns:
            `(N, D)`, float, not bounded.
        """
        if len(caption_ids) == 0:
            return next(iter(self.rnn.parameters())).new_zeros(0, self.code_dim)
        ids = reversed_rows(caption_ids[:, 1:], caption_lengths - 1) if self.backwards else caption_ids[:, 1:]
        words = self.dropout(self.words(ids))
        packed = pack_padded_sequence(words, (caption_lengths - 1).cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.rnn(packed)
        hidden, cell = last if isinstance(self.rnn, nn.LSTM) else (last, last)
        return cast(Tensor, cell.transpose(0, 1).flatten(1) if self.code == "states" else hidden[-1])


def reversed_rows(ids: Tensor, lengths: Tensor) -> Tensor:
    """Turns the first ``lengths[n]`` entries of every row around; what stands behind them stays.

    >>> reversed_rows(torch.tensor([[5, 6, 2], [7, 2, 0]]), torch.tensor([3, 2])).tolist()
    [[2, 6, 5], [2, 7, 0]]
    """
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    mirrored = lengths.unsqueeze(1) - 1 - place
    return ids.gather(1, torch.where(mirrored >= 0, mirrored, place))


class TextAutoencoder(Captioner):
    """Writes a caption again from its code. A row of the memory is a caption, not an image.

    Args:
        vocab_size: V.
        words: ``embedding`` or ``one_hot``; encoder and decoder share the embeddings.
        word_dim: W (published: 300).
        state_dim: H (published: 1024).
        layers: L (published: 2).
        cell: ``lstm`` (published) or ``gru``.
        code: see `TextEncoder`.
        dropout: see `TextEncoder` and `CodeDecoder`.
        word_dropout: see `CodeDecoder`.
        backwards: see `TextEncoder`.
        code_dropout: share of the code dropped in training.
        gradient_checkpointing: keep no activations of the encoder; they are computed again in the backward pass.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling.
    """

    def __init__(
        self,
        vocab_size: int,
        words: WordInput = "embedding",
        word_dim: int = 300,
        state_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        code: CodeKind = "states",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        backwards: bool = False,
        code_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
    ) -> None:
        super().__init__()
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = vocab_size, bos_id, eos_id, pad_id
        reader = WordReader(words, vocab_size, word_dim)
        self.encoder = TextEncoder(reader, state_dim, layers, cell, dropout, backwards, code)
        self.decoder = CodeDecoder(vocab_size, reader, state_dim, layers, cell, dropout, word_dropout)
        self.code_dropout = nn.Dropout(code_dropout)
        self._run = runner(gradient_checkpointing)

    def encode(self, batch: Batch) -> Memory:
        """Codes of the captions of a batch, `code` `(N, D)`."""
        code = self._run(self.encoder, batch["caption_ids"], batch["caption_lengths"])
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
            image_index: row of the memory of each caption, `(N,)`: ``arange(N)`` to write them again.
            scheduled_sampling: probability of reading the decoder's own words.
        """
        start = self.decoder.start(memory["code"])
        logits, _ = self.decoder.score(memory, start, caption_ids, caption_lengths, image_index, scheduled_sampling)
        return CaptionOutput(logits, caption_ids[:, 1:][target_mask(caption_lengths, caption_ids.shape[1])])
