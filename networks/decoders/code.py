"""A recurrent decoder that writes a caption from one vector, its code.

Letters: N captions (B rows while decoding), T tokens of the longest one, M scored tokens, V vocabulary, W word width,
L layers, H width of the recurrent state, D code width (L H, or H), R image regions, E region width.
"""

import itertools
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from core.errors import UserError
from networks.decoders.base import RecurrentDecoder, attended
from networks.layers.attention import Attention
from networks.layers.checkpointing import Runner
from networks.layers.recurrent import CellName, packed, run_layers
from networks.layers.sequences import Memory, State, on_host, select_rows, steps_of, target_places

WordInput = Literal["embedding", "one_hot"]


class WordReader(nn.Module):
    """Turns a token into the input of a recurrent layer: a learnt embedding or a one-hot vector.

    Args:
        word_input: ``embedding`` or ``one_hot``.
        vocab_size: V.
        word_dim: width of the embedding; ignored by ``one_hot``.

    Attributes:
        out_features: W.
    """

    def __init__(self, *, word_input: WordInput, vocab_size: int, word_dim: int) -> None:
        super().__init__()
        if word_input not in ("embedding", "one_hot"):
            raise UserError(f"word_input is {word_input!r}: expected embedding or one_hot")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, word_dim) if word_input == "embedding" else None
        self.out_features = word_dim if word_input == "embedding" else vocab_size

    def forward(self, token: Tensor) -> Tensor:
        """`(...)` long to `(..., W)`."""
        if self.embedding is not None:
            return cast(Tensor, self.embedding(token))
        return F.one_hot(token, self.vocab_size).to(torch.get_default_dtype())


def recurrent_layers(
    *, cell: CellName, word_dim: int, hidden_dim: int, layers: int, dropout: float
) -> nn.LSTM | nn.GRU:
    """Layers of an LSTM or GRU with dropout between them.

    The bias of the LSTM's forget gates is initialised to 1 (Jozefowicz et al. 2015), all else as by PyTorch.

    Raises:
        UserError: unknown cell.
    """
    if cell not in ("lstm", "gru"):
        raise UserError(f"cell is {cell!r}: expected lstm or gru")
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    rnn: nn.LSTM | nn.GRU = kind(word_dim, hidden_dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
    if cell == "lstm":
        with torch.no_grad():
            for _, _, input_bias, hidden_bias in cast(list[list[Tensor]], rnn.all_weights):
                input_bias[hidden_dim : 2 * hidden_dim] = 1.0
                hidden_bias[hidden_dim : 2 * hidden_dim] = 0.0
    return rnn


class CodeDecoder(RecurrentDecoder):
    """An LSTM or GRU whose initial hidden and cell states are a code.

    A code of width L H is split among the layers; one of width H is given to all of them.

    With an attention, the output o_t of the top layer attends to the regions of an image, and the result is added
    after the recurrent layers: the vocabulary layer reads ``o_t + A [o_t, z_t]``. (Luong et al. 2015 have
    ``tanh(A [o_t, z_t])`` there.) ``A`` is initialised to zero, so that a decoder trained on text alone writes as
    before until the regions help, and all time steps are still computed in one call.

    Args:
        vocab_size: V.
        words: input of words, which may be shared with an encoder.
        hidden_dim: H.
        layers: L.
        cell: ``lstm`` or ``gru``.
        dropout: dropout probability of words, between layers and before the vocabulary layer.
        word_dropout: probability that a word read is replaced by zeros, so that the decoder relies more on the code
            (Bowman et al. 2016).
        attention: attention of widths E and H; None: the decoder does not attend to regions.
        gradient_checkpointing: recompute the recurrent layers and the attention in the backward pass.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        words: WordReader,
        hidden_dim: int,
        layers: int = 2,
        cell: CellName = "lstm",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        attention: Attention | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size, self.word_dim = vocab_size, words.out_features
        self.hidden_dim, self.layers = hidden_dim, layers
        self.words = words
        self.rnn = recurrent_layers(
            cell=cell, word_dim=words.out_features, hidden_dim=hidden_dim, layers=layers, dropout=dropout
        )
        self.vocabulary = nn.Linear(hidden_dim, vocab_size)
        self.dropout = nn.Dropout(dropout)
        self.word_dropout = word_dropout
        self._run = Runner(gradient_checkpointing)
        self.attention = attention
        self.look: nn.Linear | None = None
        if attention is not None:
            self.look = nn.Linear(hidden_dim + attention.region_dim, hidden_dim)
            nn.init.zeros_(self.look.weight)
            nn.init.zeros_(self.look.bias)

    @property
    def is_lstm(self) -> bool:
        """Whether there are cell states."""
        return isinstance(self.rnn, nn.LSTM)

    def start(self, vector: Tensor) -> State:
        """State before the first word: code `(B, D)` to `hidden` `(B, L, H)` and, in an LSTM, `cell` of that shape."""
        width = self.layers * self.hidden_dim
        if vector.shape[1] not in (width, self.hidden_dim):
            raise UserError(f"the code has width {vector.shape[1]}, the decoder expects {width} or {self.hidden_dim}")
        parts = vector.view(vector.shape[0], -1, self.hidden_dim).expand(-1, self.layers, -1)
        return {"hidden": parts, "cell": parts} if self.is_lstm else {"hidden": parts}

    def zero(self, rows: int, device: torch.device) -> State:
        """State of zeros, in the same format as that of `start`."""
        zeros = torch.zeros(rows, self.layers, self.hidden_dim, device=device)
        return {"hidden": zeros, "cell": zeros} if self.is_lstm else {"hidden": zeros}

    def run(self, inputs: Tensor, state: State, lengths: list[int] | None = None) -> tuple[Tensor, State]:
        """Runs the layers over time steps.

        Args:
            inputs: `(N, S, W)`.
            state: before the first step, N rows.
            lengths: steps of each row, N numbers; None: S. Rows are packed: nothing is computed after the
                end of a row, where outputs are zero, and its final state is that of its last step.

        Returns:
            Outputs of the top layer `(N, S, H)` and the state after the last step.
        """
        hidden = tuple(value.transpose(0, 1).to(inputs.dtype).contiguous() for value in state.values())
        read = inputs if lengths is None else packed(inputs, lengths)
        outputs, after = run_layers(self.rnn, read, hidden)
        if isinstance(outputs, PackedSequence):
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
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
        """Scores every real target token, see `RecurrentDecoder.score`; `scheduled_sampling`: see `teacher_forced`."""
        state = select_rows(start, image_index)
        if self.attention is None:
            outputs = self.teacher_forced(state, caption_ids, caption_lengths, scheduled_sampling)
            return self.scores(outputs, {})[0], None
        regions = attended(memory)
        read = select_rows(regions, image_index) if scheduled_sampling > 0 else {}
        outputs = self.teacher_forced(state, caption_ids, caption_lengths, scheduled_sampling, read)
        count, steps = caption_ids.shape[0], caption_ids.shape[1] - 1
        places = target_places(caption_lengths, caption_ids.shape[1])
        logits, weights = self.scores(outputs, select_rows(regions, image_index[places // steps]))
        assert weights is not None
        attention = weights.new_zeros(count * steps, weights.shape[1]).index_copy(0, places, weights)
        return logits, attention.view(count, steps, -1)

    def scores(self, outputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Scores the next token.

        Args:
            outputs: outputs of the top layer, `(M, H)`.
            memory: with attention, `features`, `keys` and `mask` of the regions of each row; M rows.

        Returns:
            Logits `(M, V)` and, with attention, weights of the regions `(M, R)`.
        """
        weights: Tensor | None
        outputs, weights = self._run(self._attend, outputs, memory)
        return self.vocabulary(self.dropout(outputs)), weights

    def _attend(self, outputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Outputs `(M, H)` plus the result of the attention, and its weights."""
        if self.attention is None or self.look is None:
            return outputs, None
        context, weights = self.attention.attend(memory["features"], memory["keys"], outputs, memory.get("mask"))
        return outputs + self.look(torch.cat([outputs, context], dim=1)), weights

    def read(self, token: Tensor) -> Tensor:
        """Input of tokens `(...)`, `(..., W)`; in training some are replaced by zeros."""
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
            scheduled_sampling: probability, drawn once a step for all captions, that the decoder reads its own most
                probable words of the step before instead of the captions' (published: 0.5). The steps between two such
                steps are computed in one call.
            memory: with an attention and `scheduled_sampling`, the regions of each row; N rows.

        Returns:
            Outputs of the top layer at the scored positions in row-major order, `(M, H)`.
        """
        places, tokens_read = target_places(caption_lengths, caption_ids.shape[1]), on_host(steps_of(caption_lengths))
        if scheduled_sampling <= 0:
            whole: Tensor
            whole, _ = self._run(self._read_and_run, caption_ids[:, :-1], state, tokens_read)
            return whole.flatten(0, 1).index_select(0, places)
        order = caption_lengths.argsort(descending=True, stable=True)
        ids = caption_ids[order]
        running = [sum(length > step for length in tokens_read) for step in range(caption_ids.shape[1] - 1)]
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
            outputs, state = self._run(self._read_and_run, tokens, state)
            pieces.append(outputs)
        whole = torch.cat([F.pad(piece, (0, 0, 0, 0, 0, len(ids) - len(piece))) for piece in pieces], dim=1)
        return whole[order.argsort()].flatten(0, 1).index_select(0, places)

    def _read_and_run(self, tokens: Tensor, state: State, lengths: list[int] | None = None) -> tuple[Tensor, State]:
        """Runs the layers over tokens `(N, S)`, see `run`."""
        return self.run(self.read(tokens), state, lengths)

    @torch.no_grad()
    def _best_words(self, outputs: Tensor, memory: Memory) -> Tensor:
        """The most probable tokens after outputs `(N, H)`: `(N,)`, long."""
        return cast(Tensor, self.vocabulary(self._attend(outputs, memory)[0]).argmax(dim=1))
