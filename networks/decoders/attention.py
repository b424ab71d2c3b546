"""The decoder of the attention RNN: a GRU or LSTM layer that attends to regions before it reads the next word.

At step t the attention compares the regions with s_t, the layer's output of the step before, and their weighted mean
z_t enters the layer together with the embedding of the previous word (Xu et al. 2015, "Show, Attend and Tell").

Letters: B images, R regions, E their width, H width of the recurrent state, W word width, P width of the start vector,
N captions, T tokens of the longest one, M scored tokens, V vocabulary, n captions that have not ended at a time step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from networks.decoders.base import RecurrentDecoder, attended
from networks.decoders.word_vectors import read_word_vectors
from networks.layers.attention import Attention
from networks.layers.checkpointing import Runner
from networks.layers.conditions import condition_only, conditioned
from networks.layers.recurrent import CellName, CellWeights, ContextCell
from networks.layers.sequences import (
    Memory,
    State,
    on_device,
    on_host,
    select_rows,
    target_mask,
    target_places,
    true_places,
)


@dataclass(kw_only=True)
class _Packing:
    """Positions of the tokens of padded captions when they are packed: step by step, longest caption first.

    Attributes:
        rows: caption at each rank, `(N,)`.
        sizes: captions that have not ended at each time step, in falling order; its sum is M.
        rank: rank of the caption of each packed place, `(M,)`.
        steps: time step of each packed place, `(M,)`.
        places: packed place of each scored position in row-major order of the captions, `(M,)`.
        targets: place of each scored position in `(N, T - 1)`, row by row, `(M,)`.
    """

    rows: Tensor
    sizes: list[int]
    rank: Tensor
    steps: Tensor
    places: Tensor
    targets: Tensor

    @staticmethod
    def of(caption_lengths: Tensor, max_length: int) -> "_Packing":
        """Sorts captions by length and counts those that have not ended at each step."""
        steps = [length - 1 for length in on_host(caption_lengths)]
        mask = target_mask(caption_lengths, max_length)
        rows = caption_lengths.argsort(descending=True, stable=True)
        # the captions that have not ended have the first ranks, so the packed places are in this order
        packed = true_places(mask[rows].t(), sum(steps))
        step, rank = packed // len(steps), packed % len(steps)
        place_of = torch.empty_like(mask, dtype=torch.long)
        place_of[rows[rank], step] = torch.arange(len(packed), device=mask.device)
        targets = target_places(caption_lengths, max_length)
        sizes = [sum(length > t for length in steps) for t in range(max(steps))]
        return _Packing(
            rows=rows, sizes=sizes, rank=rank, steps=step, places=place_of.flatten()[targets], targets=targets
        )


class _Trace(NamedTuple):
    """Intermediate results of a pass over captions, packed.

    Attributes:
        words: embeddings of the words read, `(M, W)`.
        outputs: outputs of the recurrent layer, `(M, H)`.
        contexts: its inputs from the attention, `(M, E)`.
        weights: weights of the attention, `(M, R)`.
    """

    words: Tensor
    outputs: Tensor
    contexts: Tensor
    weights: Tensor

    def last(self, rows: int) -> "_Trace":
        """The last time step, which has so many rows."""
        return _Trace(*(tensor[-rows:] for tensor in self))


class AttentionDecoder(RecurrentDecoder):
    """A GRU or LSTM layer with attention over regions.

    Initial state: tanh of a linear map of a vector. Output: a linear map of state, context and previous word to width
    W, tanh, then the vocabulary layer (Xu et al.'s deep output; each word of the vocabulary has W instead of H + E
    weights). Dropout is applied to the words that are read and before the vocabulary layer.

    Args:
        attention: any of `networks.layers.attention`; its widths are E and H (published: 256 and 512).
        vocab_size: V.
        start_dim: P.
        cell: ``lstm`` or ``gru``.
        word_dim: W; equal to the width of the file when pretrained word vectors are loaded.
        dropout: dropout probability of words and before the vocabulary layer.
        gated: scale the context by ``sigmoid(f(s_t))``, one number a step (Xu et al. 2015, beta).
        tied_embeddings: the vocabulary layer shares its weights with the embedding (Press and Wolf 2017).
        never_read: tokens that are not drawn by scheduled sampling, because decoding never reads them after BOS.
        gradient_checkpointing: recompute the time steps, in segments, and what makes the vocabulary layer's input of
            them in the backward pass.

    Raises:
        UserError: unknown cell.
    """

    attention: Attention

    def __init__(
        self,
        *,
        attention: Attention,
        vocab_size: int,
        start_dim: int,
        cell: CellName = "lstm",
        word_dim: int = 256,
        dropout: float = 0.3,
        gated: bool = False,
        tied_embeddings: bool = False,
        never_read: Sequence[int] = (),
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size, self.word_dim, self.never_read = vocab_size, word_dim, list(never_read)
        region_dim, hidden_dim = attention.region_dim, attention.hidden_dim
        self.attention = attention
        self.cell = ContextCell(cell=cell, word_dim=word_dim, context_dim=region_dim, hidden_dim=hidden_dim)
        self.initial = nn.Linear(start_dim, hidden_dim * (2 if cell == "lstm" else 1))
        self.gate = nn.Linear(hidden_dim, 1) if gated else None
        self.embedding = nn.Embedding(vocab_size, word_dim)
        self.merge = nn.Linear(hidden_dim + region_dim + word_dim, word_dim)
        self.vocabulary = nn.Linear(word_dim, vocab_size)
        # A tied matrix must start small because it makes the scores; words are then scaled by sqrt(W) when read
        self.word_scale = math.sqrt(word_dim) if tied_embeddings else 1.0
        if tied_embeddings:
            nn.init.normal_(self.embedding.weight, std=1 / self.word_scale)
            self.vocabulary.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)
        self._run = Runner(gradient_checkpointing)

    def load_word_vectors(self, path: str, words: Mapping[str, int]) -> float:
        """Initialises the embedding from pretrained vectors; words without one keep their random values.

        All vectors are scaled by one factor to the size of the random values (GloVe's are half as large, word2vec's a
        tenth).

        Args:
            path: text file in GloVe's or word2vec's format.
            words: id of each word of the vocabulary, without special tokens.

        Returns:
            Share of `words` that has a vector, in [0, 1].

        Raises:
            DataError: see `read_word_vectors`.
            UserError: see `read_word_vectors`.
        """
        found = read_word_vectors(path, words, self.word_dim)
        if len(found.ids):
            device = self.embedding.weight.device
            scale = 1 / (self.word_scale * found.vectors.square().mean().sqrt().clamp_min(1e-12))
            with torch.no_grad():
                self.embedding.weight[found.ids.to(device)] = (found.vectors * scale).to(device)
        return found.share

    def start(self, vector: Tensor) -> State:
        """State before the first word, from vectors `(B, P)`; in single precision."""
        initial = self.initial(vector).float().tanh()
        if not self.cell.is_lstm:
            return {"hidden": initial}
        hidden, cell = initial.chunk(2, dim=1)
        return {"hidden": hidden, "cell": cell}

    def step(self, memory: Memory, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `RecurrentDecoder.step`."""
        weights = self.cell.weights()
        words = conditioned(self._read(token), memory)
        context, _ = self._attend(memory, state)
        state = self.cell.update(self.cell.word_gates(words, weights), context, state, weights)
        return self._scores(state["hidden"], context, words), state

    def score(
        self,
        memory: Memory,
        start: State,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Scores every real target token given the tokens before it, see `RecurrentDecoder.score`.

        With probability `scheduled_sampling` a word read is replaced by a draw from the decoder's own prediction
        (Bengio et al. 2015); no gradient passes through a draw. 0 is teacher forcing.
        """
        packing = _Packing.of(caption_lengths, caption_ids.shape[1])
        trace = self._unroll(memory, start, caption_ids, image_index, packing, scheduled_sampling)
        merged = self._run(self._merged, trace.outputs, trace.contexts, trace.words)
        logits = self.vocabulary(self.dropout(merged.index_select(0, packing.places)))
        return logits, _spread(trace.weights, packing, caption_ids.shape[1] - 1)

    def maps(
        self, memory: Memory, start: State, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """The attention weights alone, without the cost of the vocabulary layer; arguments as in `score`."""
        packing = _Packing.of(caption_lengths, caption_ids.shape[1])
        weights = self._unroll(memory, start, caption_ids, image_index, packing, 0.0).weights
        return _spread(weights, packing, caption_ids.shape[1] - 1)

    def _read(self, token: Tensor) -> Tensor:
        """Embeds tokens of any shape: `(...)` to `(..., W)`."""
        words = self.embedding(token)
        return cast(Tensor, self.dropout(words * self.word_scale if self.word_scale != 1 else words))

    def _attend(self, memory: Memory, state: State) -> tuple[Tensor, Tensor]:
        """Context `(B, E)`, gated if wanted, and weights `(B, R)`."""
        hidden = state["hidden"]
        context, weights = self.attention.attend(memory["features"], memory["keys"], hidden, memory.get("mask"))
        if self.gate is not None:
            context = context * self.gate(hidden).sigmoid()
        return context, weights

    def _merged(self, output: Tensor, context: Tensor, words: Tensor) -> Tensor:
        """State `(M, H)`, context `(M, E)` and previous word `(M, W)` to the vocabulary layer's input `(M, W)`."""
        return cast(Tensor, self.merge(torch.cat([output, context, words], dim=1)).tanh())

    def _scores(self, output: Tensor, context: Tensor, words: Tensor) -> Tensor:
        """The same, followed by the vocabulary layer: logits `(M, V)`."""
        return cast(Tensor, self.vocabulary(self.dropout(self._merged(output, context, words))))

    def _unroll(
        self,
        memory: Memory,
        state: State,
        caption_ids: Tensor,
        image_index: Tensor,
        packing: _Packing,
        scheduled_sampling: float,
    ) -> _Trace:
        """Runs over the captions; only the operations that depend on the state are computed step by step."""
        tokens = caption_ids[packing.rows[packing.rank], packing.steps]  # (M,)
        images = image_index[packing.rows]
        if self.attention.constant and self.gate is None and scheduled_sampling == 0:
            return _Trace(*self._run(self._unroll_fused, memory, state, tokens, images, packing))
        memory, state = select_rows(attended(memory) | condition_only(memory), images), select_rows(state, images)
        weights = self.cell.weights()
        # outside of the segments, so that dropout draws the same numbers with and without
        words = conditioned(self._read(tokens), memory, packing.rank)
        segment = self._run.segment(len(packing.sizes))
        pieces: list[_Trace] = []
        begun = 0
        for first in range(0, len(packing.sizes), segment):
            sizes = packing.sizes[first : first + segment]
            places = slice(begun, begun + sum(sizes))
            begun = places.stop
            before = pieces[-1].last(packing.sizes[first - 1]) if pieces else None
            *found, state = self._run(
                self._steps, memory, state, tokens[places], words[places], sizes, weights, scheduled_sampling, before
            )
            pieces.append(_Trace(*found))
        return _joined(pieces)

    def _steps(
        self,
        memory: Memory,
        state: State,
        tokens: Tensor,
        words: Tensor,
        sizes: list[int],
        weights: CellWeights,
        scheduled_sampling: float,
        before: "_Trace | None",
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, State]:
        """Some time steps in a row; `before` is the step before them, of which words are drawn."""
        gates = torch.split(self.cell.word_gates(words, weights), sizes)
        steps: list[_Trace] = []
        for token, word, gate in zip(torch.split(tokens, sizes), torch.split(words, sizes), gates, strict=True):
            running = len(token)
            if running < len(state["hidden"]):  # the captions that have ended are the last rows
                memory, state = _first(memory, running), _first(state, running)
            if before is not None and scheduled_sampling > 0:
                word = conditioned(self._read(self._with_draws(token, before, scheduled_sampling)), memory)
                gate = self.cell.word_gates(word, weights)
            context, attention = self._attend(memory, state)
            state = self.cell.update(gate, context, state, weights)
            before = _Trace(word, state["hidden"], context, attention)
            steps.append(before)
        return *_joined(steps), state

    def _unroll_fused(self, memory: Memory, state: State, tokens: Tensor, images: Tensor, packing: _Packing) -> _Trace:
        """The same in one call of the recurrent layer, for a context that does not depend on the state."""
        context, attention = self._attend(memory, state)  # (B, E), (B, R)
        image = images[packing.rank]  # (M,)
        words, contexts = conditioned(self._read(tokens), memory, image), context.index_select(0, image)
        outputs = self.cell.fused(words, contexts, packing.sizes, select_rows(state, images))
        return _Trace(words, outputs, contexts, attention.index_select(0, image))

    @torch.no_grad()
    def _with_draws(self, token: Tensor, before: _Trace, probability: float) -> Tensor:
        """Replaces some of the words read at this step by draws from the prediction of the step before.

        `never_read` are never drawn.

        Args:
            token: the captions' own words, `(n,)`.
            before: results of the step before, whose first n rows belong to these captions.
            probability: probability that a word is replaced.
        """
        places = (torch.rand(len(token)) < probability).nonzero().squeeze(1).tolist()  # on the host: see `on_host`
        if not places:
            return token
        chosen = on_device(places, token.device)
        logits = self._scores(before.outputs[chosen], before.contexts[chosen], before.words[chosen]).float()
        for token_id in self.never_read:  # a list as index would be sent to the device
            logits[:, token_id] = -torch.inf
        # as torch.multinomial draws, which waits for the device to check the probabilities
        shares = logits.softmax(dim=1)
        drawn = (shares / torch.empty_like(shares).exponential_()).argmax(dim=1)
        return token.index_copy(0, chosen, drawn)


def _joined(steps: Sequence[_Trace]) -> _Trace:
    """Consecutive time steps as one."""
    return _Trace(*(torch.cat(tensors) for tensors in zip(*steps, strict=True)))


def _first(tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The first rows of every tensor, as views."""
    return {name: tensor[:count] for name, tensor in tensors.items()}


def _spread(weights: Tensor, packing: _Packing, steps: int) -> Tensor:
    """Packed attention `(M, R)` to `(N, T - 1, R)`, zero where there is no target."""
    spread = weights.new_zeros(len(packing.rows) * steps, weights.shape[1])
    spread = spread.index_copy(0, packing.targets, weights.index_select(0, packing.places))
    return spread.view(len(packing.rows), steps, -1)
