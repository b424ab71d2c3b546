"""A recurrent decoder that writes a caption from one vector, its code.

Letters: N captions (B rows while decoding), T tokens of the longest one, M scored tokens, V vocabulary, W word width,
L layers, H state width, D code width (L H, or H), R image regions, E region width.
"""

import itertools
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from core.errors import UserError
from networks.captioners.base import Memory, State, select_rows, target_mask
from networks.decoders.base import RecurrentDecoder, seen_of
from networks.layers.attention import Attention
from networks.layers.recurrent import CellName

WordInput = Literal["embedding", "one_hot"]


class WordReader(nn.Module):
    """What a recurrent layer reads of a word: a learnt embedding, or a one in the place of the word.

    Args:
        kind: ``embedding`` or ``one_hot``.
        vocab_size: V.
        word_dim: width of the embedding; not used by ``one_hot``.

    Attributes:
        out_features: W.
    """

    def __init__(self, kind: WordInput, vocab_size: int, word_dim: int) -> None:
        super().__init__()
        if kind not in ("embedding", "one_hot"):
            raise UserError(f"words is {kind!r}: expected embedding or one_hot")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, word_dim) if kind == "embedding" else None
        self.out_features = word_dim if kind == "embedding" else vocab_size

    def forward(self, token: Tensor) -> Tensor:
        """`(...)` long to `(..., W)`."""
        if self.embedding is not None:
            return cast(Tensor, self.embedding(token))
        return F.one_hot(token, self.vocab_size).to(torch.get_default_dtype())


def recurrent_layers(cell: CellName, word_dim: int, state_dim: int, layers: int, dropout: float) -> nn.LSTM | nn.GRU:
    """Layers of an LSTM or GRU, dropout in between.

    The LSTM's forget gates start at bias 1 (Jozefowicz et al. 2015); all else starts as PyTorch does.

    Raises:
        UserError: unknown cell.
    """
    if cell not in ("lstm", "gru"):
        raise UserError(f"cell is {cell!r}: expected lstm or gru")
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    rnn: nn.LSTM | nn.GRU = kind(word_dim, state_dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
    if cell == "lstm":
        with torch.no_grad():
            for _, _, input_bias, hidden_bias in cast(list[list[Tensor]], rnn.all_weights):
                input_bias[state_dim : 2 * state_dim] = 1.0
                hidden_bias[state_dim : 2 * state_dim] = 0.0
    return rnn


class CodeDecoder(RecurrentDecoder):
    """An LSTM or GRU whose initial hidden and cell states are a code.

    A code of L H numbers gives every layer its own part; one of H numbers is given to all layers.

    With an attention, the output o_t of the upper layer looks at the regions of an image, and what it finds is added
    behind the recurrent layers: ``o_t + A [o_t, z_t]`` goes to the vocabulary layer. (Luong et al. 2015 put
    ``tanh(A [o_t, z_t])`` there.) ``A`` starts at zero: a decoder learnt from text alone goes on writing as before
    until the regions help, and all time steps are still computed in one call.

    Args:
        vocab_size: V.
        words: reader of words, which may be shared with an encoder.
        state_dim: H.
        layers: L.
        cell: ``lstm`` or ``gru``.
        dropout: share dropped from words, between layers and before the vocabulary layer.
        word_dropout: share of words read that are hidden as a whole, so that more has to come from the code (Bowman et
            al. 2016).
        attention: of widths E and H; None: no regions.
    """

    def __init__(
        self,
        vocab_size: int,
        words: WordReader,
        state_dim: int,
        layers: int = 2,
        cell: CellName = "lstm",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.word_dim = vocab_size, words.out_features
        self.state_dim, self.layers = state_dim, layers
        self.words = words
        self.rnn = recurrent_layers(cell, words.out_features, state_dim, layers, dropout)
        self.vocabulary = nn.Linear(state_dim, vocab_size)
        self.dropout = nn.Dropout(dropout)
        self.word_dropout = word_dropout
        self.attention = attention
        self.look: nn.Linear | None = None
        if attention is not None:
            self.look = nn.Linear(state_dim + attention.feature_dim, state_dim)
            nn.init.zeros_(self.look.weight)
            nn.init.zeros_(self.look.bias)

    @property
    def is_lstm(self) -> bool:
        """Whether there are cell states."""
        return isinstance(self.rnn, nn.LSTM)

    def start(self, vector: Tensor) -> State:
        """State before the first word: code `(B, D)` to `hidden` `(B, L, H)` and, in an LSTM, `cell` of that shape."""
        width = self.layers * self.state_dim
        if vector.shape[1] not in (width, self.state_dim):
            raise UserError(f"the code has {vector.shape[1]} numbers, the decoder takes {width} or {self.state_dim}")
        parts = vector.view(len(vector), -1, self.state_dim).expand(-1, self.layers, -1)
        return {"hidden": parts, "cell": parts} if self.is_lstm else {"hidden": parts}

    def zero(self, rows: int, device: torch.device) -> State:
        """State without a code, likewise."""
        nothing = torch.zeros(rows, self.layers, self.state_dim, device=device)
        return {"hidden": nothing, "cell": nothing} if self.is_lstm else {"hidden": nothing}

    def run(self, inputs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Runs the layers over time steps.

        Args:
            inputs: `(N, S, W)`.
            state: before the first step, N rows.
            lengths: steps of each row, `(N,)`, on the CPU; None: S. Rows are packed: nothing is computed behind a row's
                end, where outputs are zero, and its state is that at its end.

        Returns:
            Outputs of the upper layer `(N, S, H)` and the state behind the last step.
        """
        hidden = tuple(value.transpose(0, 1).to(inputs.dtype).contiguous() for value in state.values())
        packed: Tensor | PackedSequence = inputs
        if lengths is not None:
            packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        outputs, after = self.rnn(packed, hidden if self.is_lstm else hidden[0])
        if isinstance(outputs, PackedSequence):
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        after = after if self.is_lstm else (after,)
        return outputs, {name: value.transpose(0, 1) for name, value in zip(state, after, strict=True)}

    def step(self, memory: Memory, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `RecurrentDecoder.step`."""
        outputs, state = self.run(self.read(token).unsqueeze(1), state)
        return self.scores(outputs[:, 0], memory)[0], state

    def score(
        self,
        memory: Memory,
        start: State,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Scores every real target token, see `RecurrentDecoder.score`; `scheduled_sampling`: see `forced`."""
        state = select_rows(start, image_index)
        if self.attention is None:
            return self.scores(self.teacher_forced(state, caption_ids, caption_lengths, scheduled_sampling), {})[
                0
            ], None
        seen = seen_of(memory)
        looked_at = select_rows(seen, image_index) if scheduled_sampling > 0 else {}
        outputs = self.teacher_forced(state, caption_ids, caption_lengths, scheduled_sampling, looked_at)
        mask = target_mask(caption_lengths, caption_ids.shape[1])
        logits, weights = self.scores(outputs, select_rows(seen, image_index[mask.nonzero()[:, 0]]))
        assert weights is not None
        attention = weights.new_zeros(*mask.shape, weights.shape[1])
        attention[mask] = weights
        return logits, attention

    def scores(self, outputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Scores the next token.

        Args:
            outputs: of the upper layer, `(M, H)`.
            memory: with attention, `features`, `keys` and `mask` of what each row looks at; M rows.

        Returns:
            Logits `(M, V)` and, with attention, weights of the regions `(M, R)`.
        """
        outputs, weights = self._looked(outputs, memory)
        return self.vocabulary(self.dropout(outputs)), weights

    def _looked(self, outputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Outputs `(M, H)` with what the attention adds to them, and its weights."""
        if self.attention is None or self.look is None:
            return outputs, None
        context, weights = self.attention.attend(memory["features"], memory["keys"], outputs, memory.get("mask"))
        return outputs + self.look(torch.cat([outputs, context], dim=1)), weights

    def read(self, token: Tensor) -> Tensor:
        """Tokens that are read, `(...)`, as `(..., W)`; in training some are hidden."""
        words: Tensor = self.dropout(self.words(token))
        if self.training and self.word_dropout > 0:
            words = words * (torch.rand(token.shape, device=token.device) >= self.word_dropout).unsqueeze(-1)
        return words

    def teacher_forced(
        self,
        state: State,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        scheduled_sampling: float = 0.0,
        memory: Memory | None = None,
    ) -> Tensor:
        """Runs over given captions.

        Args:
            state: before BOS, N rows.
            caption_ids: `(N, T)`, long, each BOS .. EOS and then PAD.
            caption_lengths: tokens with BOS and EOS, `(N,)`.
            scheduled_sampling: probability, step by step and the same for all captions, that the decoder reads its own
                most
                probable words of the step before instead of the captions' (scheduled teacher forcing; published: 0.5).
                The steps between two such steps are computed in one call.
            memory: with an attention and `scheduled_sampling`, what it looks at; N rows.

        Returns:
            Outputs of the upper layer at the scored positions in row-major order, `(M, H)`.
        """
        mask = target_mask(caption_lengths, caption_ids.shape[1])
        if scheduled_sampling <= 0:
            outputs, _ = self.run(self.read(caption_ids[:, :-1]), state, (caption_lengths - 1).cpu())
            return outputs[mask]
        order = caption_lengths.argsort(descending=True, stable=True)
        ids, running = caption_ids[order], mask.sum(dim=0).tolist()
        state, memory = select_rows(state, order), select_rows(memory or {}, order)
        steps = len(running)
        own = [0, *(torch.rand(steps - 1) < scheduled_sampling).nonzero().flatten().add(1).tolist(), steps]
        pieces: list[Tensor] = []
        for begin, end in itertools.pairwise(own):
            rows = running[begin]  # the captions that have ended are the last rows
            tokens = ids[:rows, begin:end]
            if begin > 0:
                drawn = self._best_words(pieces[-1][:rows, -1], {name: value[:rows] for name, value in memory.items()})
                tokens = torch.cat([drawn.unsqueeze(1), tokens[:, 1:]], dim=1)
            state = {name: value[:rows] for name, value in state.items()}
            outputs, state = self.run(self.read(tokens), state)
            pieces.append(outputs)
        whole = torch.cat([F.pad(piece, (0, 0, 0, 0, 0, len(ids) - len(piece))) for piece in pieces], dim=1)
        return whole[order.argsort()][mask]

    @torch.no_grad()
    def _best_words(self, outputs: Tensor, memory: Memory) -> Tensor:
        """The most probable tokens after outputs `(N, H)`: `(N,)`, long."""
        return cast(Tensor, self.vocabulary(self._looked(outputs, memory)[0]).argmax(dim=1))
