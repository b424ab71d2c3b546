"""A recurrent captioner that looks at the regions of an image, after Xu et al. 2015 ("Show, Attend and Tell").

The regions of a CNN's last map are projected to E and normalised; `networks.decoders.attention` looks at them while it
writes.

Letters: B images, R regions, C channels of the CNN's map, E region width, P width of what the initial state is made of,
H state width, N captions, T tokens of the longest one, M scored tokens, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, CaptionOutput, Memory, State, target_mask
from networks.decoders.attention import AttentionDecoder
from networks.encoders.build import ImageEncoder
from networks.layers.attention import Attention
from networks.layers.pooling import Pooling, RegionPooling
from networks.layers.positions import pooled, sinusoidal_grid, square_side
from networks.layers.recurrent import CellName


class AttentionRNNCaptioner(Captioner):
    """A GRU or LSTM with attention over the regions of an image.

    Regions: linear projection and layer normalisation (CNN features are not bounded; this also sets them level with
    the positional encoding), no further non-linearity. The decoder starts from the mean region, or from the CNN's
    regions pooled in another way.

    Args:
        attention: any of `networks.layers.attention`; its widths are E and H (published: 256 and 512).
        vocab_size: V.
        feature_dim: C.
        encoder: makes the grid of a picture; None when batches bring `features`.
        cell: ``lstm`` or ``gru``.
        embedding_dim: width of words; equal to the width of the file when pretrained word vectors are loaded.
        dropout: share dropped from words and before the vocabulary layer.
        feature_dropout: share dropped from the projected regions.
        gated: scale the context by ``sigmoid(f(s_t))``, one number a step (Xu et al. 2015, beta).
        positions: add a 2-D sinusoidal encoding to the projected regions, which must form a square grid.
        tied: the vocabulary layer's weights are the embedding (Press and Wolf 2017).
        pooled_side: average a square grid into this many rows and columns first; None: as it comes.
        start_pooling: what the initial state is made of: the mean of the projected regions (``None``, published), or
            the CNN's regions pooled in another way, see `networks.layers.pooling`, with dropout on the result.
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
        width = attention.feature_dim
        if positions:
            sinusoidal_grid(1, 1, width)  # fails now, not at the first batch
        self.encoder, self.positions, self.pooled_side = encoder, positions, pooled_side
        self.project = nn.Linear(feature_dim, width)
        self.normalise = nn.LayerNorm(width)
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.pooling = None if start_pooling is None else RegionPooling(start_pooling, feature_dim)
        self.start_dropout = nn.Dropout(dropout)
        start_dim = width if self.pooling is None else self.pooling.out_features
        special = (bos_id, eos_id, pad_id)
        self.decoder = AttentionDecoder(
            attention, vocab_size, start_dim, cell, embedding_dim, dropout, gated, tied, special
        )

    def load_word_vectors(self, path: str, words: Mapping[str, int]) -> float:
        """Starts the embedding from pretrained vectors, see `AttentionDecoder.load_word_vectors`."""
        return self.decoder.load_word_vectors(path, words)

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
        whole = None if self.pooling is None else self.start_dropout(self.pooling(grid, mask))
        if self.pooled_side is not None:
            grid, mask = pooled(grid, mask, self.pooled_side)
        features: Tensor = self.feature_dropout(self._placed(self.normalise(self.project(grid))))
        memory = {"features": features, "keys": self.decoder.attention.keys(features)}
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
        return self.decoder.step(memory, token, self.decoder.start(memory["pooled"]) if state is None else state)

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
            sampling_probability: share of the words read that are replaced by draws from the model's own prediction,
                see `AttentionDecoder.score`; 0 is teacher forcing.

        Returns:
            Logits and targets of the M scored tokens, attention `(N, T - 1, R)`.
        """
        start = self.decoder.start(memory["pooled"])
        logits, attention = self.decoder.score(
            memory, start, caption_ids, caption_lengths, image_index, sampling_probability
        )
        targets = caption_ids[:, 1:][target_mask(caption_lengths, caption_ids.shape[1])]
        return CaptionOutput(logits, targets, attention)

    @property
    def attends(self) -> bool:
        """It does."""
        return True

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`."""
        start = self.decoder.start(memory["pooled"])
        return self.decoder.maps(memory, start, caption_ids, caption_lengths, image_index)

    def similarity_state(self, memory: Memory) -> Tensor:
        """What the decoder's output is before the first word, `(B, H)`, float32."""
        return self.decoder.start(memory["pooled"])["hidden"]
