"""A recurrent captioner that looks at the regions of an image, after Xu et al. 2015 ("Show, Attend and Tell").

The regions of a CNN's last map are projected to E and normalised. At step t the attention compares them with s_t, the
output of the recurrent layer before this step, and their weighted mean z_t goes into the layer together with the
embedding of the previous word.

Letters: B images, R regions, C channels of the CNN's map, E region width, H state width, W embedding width,
N captions, T tokens of the longest one, M scored tokens, V vocabulary, n captions that still run at a time step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from networks.attention import Attention
from networks.batch import Batch
from networks.captioner import Captioner, CaptionOutput, Memory, State, select_rows, target_mask
from networks.encoders import ImageEncoder
from networks.errors import UserError
from networks.pooling import Pooling, RegionPooling
from networks.positions import pooled, sinusoidal_grid, square_side
from networks.recurrent import CellName, ContextCell
from networks.word_vectors import read_word_vectors


@dataclass
class _Packing:
    """Where the tokens of padded captions lie when they are packed: step by step, longest caption first.

    Attributes:
        rows: caption at each rank, `(N,)`.
        sizes: captions that still run at each time step, falling; its sum is M.
        rank: rank of the caption of each packed place, `(M,)`.
        places: packed place of each scored position in row-major order of the captions, `(M,)`.
        mask: positions with a real target, `(N, T - 1)`.
    """

    rows: Tensor
    sizes: list[int]
    rank: Tensor
    places: Tensor
    mask: Tensor

    @staticmethod
    def of(caption_lengths: Tensor, max_length: int) -> "_Packing":
        """Sorts captions by length and counts who still runs; one transfer from the device."""
        steps = [length - 1 for length in caption_lengths.tolist()]
        mask = target_mask(caption_lengths, max_length)
        rows = caption_lengths.argsort(descending=True, stable=True)
        # the captions that run at a time step have the first ranks, so the packed places are in this order
        step, rank = mask[rows].t().nonzero(as_tuple=True)
        place_of = torch.empty_like(mask, dtype=torch.long)
        place_of[rows[rank], step] = torch.arange(len(step), device=mask.device)
        sizes = [sum(length > t for length in steps) for t in range(max(steps))]
        return _Packing(rows, sizes, rank, place_of[mask], mask)


@dataclass
class _Trace:
    """What a pass over captions leaves behind, packed.

    Attributes:
        words: embeddings that were read, `(M, W)`.
        outputs: of the recurrent layer, `(M, H)`.
        contexts: as they went into it, `(M, E)`.
        weights: of the attention, `(M, R)`.
    """

    words: Tensor
    outputs: Tensor
    contexts: Tensor
    weights: Tensor


class AttentionRNNCaptioner(Captioner):
    """A GRU or LSTM with attention over the regions of an image.

    Regions: linear projection and layer normalisation (CNN features are not bounded; this also sets them level with
    the positional encoding), no further non-linearity. Initial state: tanh of a linear map of the mean region, or of
    the CNN's regions pooled in another way. Output: a linear map of state, context and previous word to W, tanh, then
    the vocabulary layer (Xu et al.'s deep output; W instead of H + E columns for each word of the vocabulary). Dropout
    on the words that are read and before the vocabulary layer.

    Args:
        attention: any of `networks.attention`; its widths are E and H (published: 256 and 512).
        vocab_size: V.
        feature_dim: C.
        encoder: makes the grid of a picture; None when batches bring `features`.
        cell: ``lstm`` or ``gru``.
        embedding_dim: W; equal to the width of the file when pretrained word vectors are loaded.
        dropout: share dropped from words and before the vocabulary layer.
        feature_dropout: share dropped from the projected regions.
        gated: scale the context by ``sigmoid(f(s_t))``, one number a step (Xu et al. 2015, beta).
        positions: add a 2-D sinusoidal encoding to the projected regions, which must form a square grid.
        tied: the vocabulary layer's weights are the embedding (Press and Wolf 2017).
        pooled_side: average a square grid into this many rows and columns first; None: as it comes.
        start_pooling: what the initial state is made of: the mean of the projected regions (``None``, published), or
            the CNN's regions pooled in another way, see `networks.pooling`, with dropout on the result.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling.

    Raises:
        UserError: the encoder's channels differ from `feature_dim`, E is not a multiple of 4 with `positions`, or
            unknown cell.
    """

    def __init__(
        self,
        attention: Attention,
        vocab_size: int,
        feature_dim: int,
        encoder: ImageEncoder | None = None,
        cell: CellName = "lstm",
        embedding_dim: int = 256,
        dropout: float = 0.3,
        feature_dropout: float = 0.0,
        gated: bool = False,
        positions: bool = False,
        tied: bool = False,
        pooled_side: int | None = None,
        start_pooling: Pooling | None = None,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
    ) -> None:
        super().__init__()
        if encoder is not None and encoder.grid_dim != feature_dim:
            raise UserError(
                f"feature_dim={feature_dim}, but the encoder's map has {encoder.grid_dim} channels; give these"
            )
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = vocab_size, bos_id, eos_id, pad_id
        width, state_dim = attention.feature_dim, attention.state_dim
        if positions:
            sinusoidal_grid(1, 1, width)  # fails now, not at the first batch
        self.encoder, self.attention, self.positions = encoder, attention, positions
        self.pooled_side = pooled_side
        self.project = nn.Linear(feature_dim, width)
        self.normalise = nn.LayerNorm(width)
        self.cell = ContextCell(cell, embedding_dim, width, state_dim)
        self.pooling = None if start_pooling is None else RegionPooling(start_pooling, feature_dim)
        start_width = width if self.pooling is None else self.pooling.out_features
        self.start = nn.Linear(start_width, state_dim * (2 if cell == "lstm" else 1))
        self.gate = nn.Linear(state_dim, 1) if gated else None
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.merge = nn.Linear(state_dim + width + embedding_dim, embedding_dim)
        self.vocabulary = nn.Linear(embedding_dim, vocab_size)
        # A tied matrix has to start small for the scores' sake; words are then read times sqrt(W)
        self.word_scale = math.sqrt(embedding_dim) if tied else 1.0
        if tied:
            nn.init.normal_(self.embedding.weight, std=1 / self.word_scale)
            self.vocabulary.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)
        self.feature_dropout = nn.Dropout(feature_dropout)

    def load_word_vectors(self, path: str, words: Mapping[str, int]) -> float:
        """Starts the embedding from pretrained vectors; words without one keep their random start.

        The vectors are scaled, all alike, to the size of the random start (GloVe's are half, word2vec's a tenth of it).

        Args:
            path: text file in GloVe's or word2vec's format.
            words: id of each word of the vocabulary, special tokens left out.

        Returns:
            Share of `words` that has a vector, in [0, 1].

        Raises:
            DataError: see `read_word_vectors`.
            UserError: likewise.
        """
        found = read_word_vectors(path, words, self.embedding.embedding_dim)
        if len(found.ids):
            device = self.embedding.weight.device
            scale = 1 / (self.word_scale * found.vectors.square().mean().sqrt().clamp_min(1e-12))
            with torch.no_grad():
                self.embedding.weight[found.ids.to(device)] = (found.vectors * scale).to(device)
        return found.share

    def encode(self, batch: Batch) -> Memory:
        """Projects the regions of a batch and makes the attention's keys, once for an image.

        Args:
            batch: with `features` `(B, R, C)` and, where regions are missing, `feature_mask` `(B, R)`; else `image`.

        Returns:
            `features` `(B, R, E)`, `keys` `(B, R, A)`, `pooled` regions `(B, P)` that the initial state is made of
            (their mean: P = E), and `mask` `(B, R)` if there is one.

        Raises:
            UserError: neither features nor an encoder, another number of channels, an image without real regions, or
                `positions` with regions that are no square grid.
        """
        grid, mask = self._grid(batch)
        whole = None if self.pooling is None else self.dropout(self.pooling(grid, mask))
        if self.pooled_side is not None:
            grid, mask = pooled(grid, mask, self.pooled_side)
        features: Tensor = self.feature_dropout(self._placed(self.normalise(self.project(grid))))
        memory = {"features": features, "keys": self.attention.keys(features)}
        if mask is None:
            return memory | {"pooled": features.mean(1) if whole is None else whole}
        if whole is None:
            share = mask / mask.sum(1, keepdim=True)  # (B, R)
            whole = torch.bmm(share.to(features.dtype).unsqueeze(1), features).squeeze(1)
        return memory | {"pooled": whole, "mask": mask}

    def _grid(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Region features `(B, R, C)` and mask `(B, R)`: stored ones, or computed now."""
        if "features" not in batch:
            if self.encoder is None or "image" not in batch:
                raise UserError(
                    "the batch has no features and the captioner no image encoder for its images; switch the feature "
                    "store on, or give an encoder"
                )
            return self.encoder.grid(batch["image"]), None
        grid, mask = batch["features"], batch.get("feature_mask")
        if grid.shape[2] != self.project.in_features:
            raise UserError(
                f"features have {grid.shape[2]} channels and the captioner expects {self.project.in_features}; set "
                "feature_dim to the encoder's, or build the feature store again"
            )
        grid = grid.to(self.project.weight.dtype)  # the store holds half precision
        if mask is not None:
            if not bool(mask.any(1).all()):
                raise UserError("feature_mask hides every region of an image; leave at least one")
            # whatever stands there, even NaN, must not reach the projection: 0 times NaN is NaN
            grid = grid.masked_fill(~mask.unsqueeze(2), 0.0)
        return grid, mask

    def _placed(self, features: Tensor) -> Tensor:
        """Adds the positional encoding, if wanted."""
        if not self.positions:
            return features
        side = square_side(features.shape[1])
        return features + sinusoidal_grid(side, side, features.shape[2], features.device).to(features.dtype)

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        if state is None:
            state = self._initial(memory["pooled"])
        weights = self.cell.weights()
        words = self._read(token)
        context, _ = self._look(memory, state)
        state = self.cell.update(self.cell.word_gates(words, weights), context, state, weights)
        return self._scores(state["hidden"], context, words), state

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        sampling_probability: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token given the tokens before it, see `Captioner.forward`.

        Args:
            memory: what `encode` returned, B rows.
            caption_ids: `(N, T)`, long.
            caption_lengths: `(N,)`, long, at least 2.
            image_index: `(N,)`, long in [0, B).
            sampling_probability: share of the words read that are replaced by draws from the model's own prediction
                (scheduled sampling, Bengio et al. 2015); no gradient passes through a draw. 0 is teacher forcing.

        Returns:
            Logits and targets of the M scored tokens, attention `(N, T - 1, R)`.
        """
        packing = _Packing.of(caption_lengths, caption_ids.shape[1])
        trace = self._unroll(memory, caption_ids, image_index, packing, sampling_probability)
        merged = self._merged(trace.outputs, trace.contexts, trace.words)
        logits = self.vocabulary(self.dropout(merged.index_select(0, packing.places)))
        return CaptionOutput(logits, caption_ids[:, 1:][packing.mask], _spread(trace.weights, packing))

    @property
    def attends(self) -> bool:
        """It does."""
        return True

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`; without the cost of the vocabulary."""
        packing = _Packing.of(caption_lengths, caption_ids.shape[1])
        return _spread(self._unroll(memory, caption_ids, image_index, packing, 0.0).weights, packing)

    def similarity_state(self, memory: Memory) -> Tensor:
        """What the decoder's output is before the first word, `(B, H)`, float32."""
        return self._initial(memory["pooled"])["hidden"]

    def _initial(self, whole: Tensor) -> State:
        """State before the first word, from the pooled regions `(B, P)`; in single precision."""
        start = self.start(whole).float().tanh()
        if not self.cell.is_lstm:
            return {"hidden": start}
        hidden, cell = start.chunk(2, dim=1)
        return {"hidden": hidden, "cell": cell}

    def _read(self, token: Tensor) -> Tensor:
        """Embeds tokens of any shape: `(...)` to `(..., W)`."""
        words = self.embedding(token)
        return cast(Tensor, self.dropout(words * self.word_scale if self.word_scale != 1 else words))

    def _look(self, memory: Memory, state: State) -> tuple[Tensor, Tensor]:
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
        """The same up to the logits `(M, V)`."""
        return cast(Tensor, self.vocabulary(self.dropout(self._merged(output, context, words))))

    def _unroll(
        self, memory: Memory, caption_ids: Tensor, image_index: Tensor, packing: _Packing, sampling_probability: float
    ) -> _Trace:
        """Runs over the captions; only what depends on the state is computed step by step."""
        tokens = caption_ids[packing.rows, :-1].t()[packing.mask[packing.rows].t()]  # (M,)
        images = image_index[packing.rows]
        if self.attention.constant and self.gate is None and sampling_probability == 0:
            return self._unroll_fused(memory, tokens, images, packing)
        memory = select_rows(memory, images)
        state = self._initial(memory.pop("pooled"))
        weights = self.cell.weights()
        words = self._read(tokens)
        gates = torch.split(self.cell.word_gates(words, weights), packing.sizes)
        steps: list[_Trace] = []
        for token, word, gate in zip(
            torch.split(tokens, packing.sizes), torch.split(words, packing.sizes), gates, strict=True
        ):
            running = len(token)
            if running < len(state["hidden"]):  # the captions that have ended are the last rows
                memory, state = _first(memory, running), _first(state, running)
            if steps and sampling_probability > 0:
                word = self._read(self._with_draws(token, steps[-1], sampling_probability))
                gate = self.cell.word_gates(word, weights)
            context, attention = self._look(memory, state)
            state = self.cell.update(gate, context, state, weights)
            steps.append(_Trace(word, state["hidden"], context, attention))
        return _Trace(
            torch.cat([step.words for step in steps]),
            torch.cat([step.outputs for step in steps]),
            torch.cat([step.contexts for step in steps]),
            torch.cat([step.weights for step in steps]),
        )

    def _unroll_fused(self, memory: Memory, tokens: Tensor, images: Tensor, packing: _Packing) -> _Trace:
        """The same in one call of the recurrent layer, for a context that does not depend on the state."""
        state = self._initial(memory["pooled"])
        context, attention = self._look(memory, state)  # (B, E), (B, R)
        image = images[packing.rank]  # (M,)
        words, contexts = self._read(tokens), context.index_select(0, image)
        outputs = self.cell.fused(words, contexts, packing.sizes, select_rows(state, images))
        return _Trace(words, outputs, contexts, attention.index_select(0, image))

    @torch.no_grad()
    def _with_draws(self, token: Tensor, before: _Trace, probability: float) -> Tensor:
        """Replaces some of the words that are read now by draws from the prediction of the step before.

        BOS, PAD and EOS are never drawn: in decoding none of them is read here.

        Args:
            token: the captions' own words, `(n,)`.
            before: what the step before computed, its first n rows belong to these captions.
            probability: share replaced.
        """
        chosen = (torch.rand(len(token), device=token.device) < probability).nonzero().squeeze(1)
        if len(chosen) == 0:
            return token
        logits = self._scores(before.outputs[chosen], before.contexts[chosen], before.words[chosen]).float()
        logits[:, [self.bos_id, self.eos_id, self.pad_id]] = -torch.inf
        drawn = torch.multinomial(logits.softmax(dim=1), 1).squeeze(1)
        return token.index_copy(0, chosen, drawn)


def _first(tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The first rows of every tensor, as views."""
    return {name: tensor[:count] for name, tensor in tensors.items()}


def _spread(weights: Tensor, packing: _Packing) -> Tensor:
    """Packed attention `(M, R)` to `(N, T - 1, R)`, zero where there is no target."""
    spread = weights.new_zeros(*packing.mask.shape, weights.shape[1])
    spread[packing.mask] = weights.index_select(0, packing.places)
    return spread
