"""A recurrent captioner with attention over image regions, after Xu et al. 2015 ("Show, Attend and Tell").

The regions of a CNN's last feature map are projected and normalised; `networks.decoders.attention` attends to them.

Letters: B images, R regions, C channels of the CNN's map, E region width, P width of the vector that the initial state
is computed from, H width of the recurrent state, N captions, T tokens of the longest one, M scored tokens.
"""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, TokenIds
from networks.decoders.attention import AttentionDecoder
from networks.encoders.base import ImageEncoder
from networks.encoders.source import image_regions
from networks.layers.attention import Attention
from networks.layers.pooling import Pooling, RegionPooling
from networks.layers.positions import pooled, sinusoidal_grid, with_grid_positions
from networks.layers.recurrent import CellName
from networks.layers.sequences import CaptionOutput, Memory, State, targets_of


class AttentionRNNCaptioner(Captioner):
    """A GRU or LSTM with attention over the regions of an image.

    Regions go through a linear projection and layer normalisation (features of CNNs are unbounded; this also brings
    them to the scale of the positional encoding), without a non-linearity. The decoder starts from the mean region, or
    from the CNN's regions pooled in another way.

    Args:
        attention: any of `networks.layers.attention`; its widths are E and H (published: 256 and 512).
        feature_dim: C.
        encoder: computes the grid of an image; None: batches bring `features`.
        cell: ``lstm`` or ``gru``.
        word_dim: width of word embeddings; equal to the width of the file when pretrained word vectors are loaded.
        dropout: dropout probability of words and before the vocabulary layer.
        region_dropout: dropout probability of the projected regions.
        normalize: layer normalisation of the projected regions (published: none).
        gated: scale the context by ``sigmoid(f(s_t))``, one number a step (Xu et al. 2015, beta).
        positions: add a 2-D sinusoidal encoding to the projected regions, which must form a square grid.
        tied_embeddings: the vocabulary layer shares its weights with the embedding (Press and Wolf 2017).
        pooled_side: first average a square grid to this many rows and columns; None: no averaging.
        start_pooling: what the initial state is computed from: the mean of the projected regions (``None``,
            published), or the CNN's regions pooled by this method, see `networks.layers.pooling`, with dropout.
        gradient_checkpointing: recompute the decoder's time steps in the backward pass.
        token_ids: size of the vocabulary and the special tokens, see `TokenIds`.

    Raises:
        UserError: the encoder's channels differ from `feature_dim`, E is not a multiple of 4 with `positions`, or the
            cell is unknown.
    """

    def __init__(
        self,
        *,
        attention: Attention,
        feature_dim: int,
        encoder: ImageEncoder | None = None,
        cell: CellName = "lstm",
        word_dim: int = 256,
        dropout: float = 0.3,
        region_dropout: float = 0.0,
        normalize: bool = True,
        gated: bool = False,
        positions: bool = False,
        tied_embeddings: bool = False,
        pooled_side: int | None = None,
        start_pooling: Pooling | None = None,
        gradient_checkpointing: bool = False,
        **token_ids: Unpack[TokenIds],
    ) -> None:
        super().__init__(**token_ids)
        if encoder is not None and encoder.grid_dim != feature_dim:
            raise UserError(
                f"feature_dim={feature_dim}, but the encoder's map has {encoder.grid_dim} channels; set it to that"
            )
        width = attention.region_dim
        if positions:
            sinusoidal_grid(1, 1, width)  # fails now, not at the first batch
        self.encoder, self.positions, self.pooled_side = encoder, positions, pooled_side
        self.project = nn.Linear(feature_dim, width)
        self.normalise = nn.LayerNorm(width) if normalize else nn.Identity()
        self.feature_dropout = nn.Dropout(region_dropout)
        self.pooling = None if start_pooling is None else RegionPooling(pooling=start_pooling, feature_dim=feature_dim)
        self.start_dropout = nn.Dropout(dropout)
        self.decoder = AttentionDecoder(
            attention=attention,
            vocab_size=self.vocab_size,
            start_dim=width if self.pooling is None else self.pooling.out_features,
            cell=cell,
            word_dim=word_dim,
            dropout=dropout,
            gated=gated,
            tied_embeddings=tied_embeddings,
            never_read=(self.bos_id, self.eos_id, self.pad_id),
            gradient_checkpointing=gradient_checkpointing,
        )

    def load_word_vectors(self, path: str, words: Mapping[str, int]) -> float:
        """Initialises the embedding from pretrained vectors, see `AttentionDecoder.load_word_vectors`."""
        return self.decoder.load_word_vectors(path, words)

    def encode(self, batch: Batch) -> Memory:
        """Projects the regions of a batch and computes the attention's keys, once for each image.

        Args:
            batch: with `features` `(B, R, C)` and, where regions are missing, `feature_mask` `(B, R)`; or `image`.

        Returns:
            `features` `(B, R, E)`, `keys` `(B, R, A)`, `pooled` `(B, P)`, which the initial state is computed from (by
            default the mean region, P = E), and `mask` `(B, R)` if there is one.

        Raises:
            UserError: see `networks.encoders.source.image_regions`; or `positions` with regions that are not a square
                grid.
        """
        grid, mask = image_regions(
            batch, self.encoder, feature_dim=self.project.in_features, dtype=self.project.weight.dtype
        )
        whole = None if self.pooling is None else self.start_dropout(self.pooling(grid, mask))
        if self.pooled_side is not None:
            grid, mask = pooled(grid, mask, self.pooled_side)
        projected: Tensor = self.normalise(self.project(grid))
        features: Tensor = self.feature_dropout(with_grid_positions(projected) if self.positions else projected)
        memory = {"features": features, "keys": self.decoder.attention.keys(features)}
        if mask is None:
            return memory | {"pooled": features.mean(1) if whole is None else whole}
        if whole is None:
            share = mask / mask.sum(1, keepdim=True)  # (B, R)
            whole = torch.bmm(share.to(features.dtype).unsqueeze(1), features).squeeze(1)
        return memory | {"pooled": whole, "mask": mask}

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Reads one token per row and scores the next, see `Captioner.step`."""
        return self.decoder.step(memory, token, self.decoder.start(memory["pooled"]) if state is None else state)

    def forward(
        self,
        memory: Memory,
        caption_ids: Tensor,
        caption_lengths: Tensor,
        image_index: Tensor,
        scheduled_sampling: float = 0.0,
    ) -> CaptionOutput:
        """Scores every real target token given the tokens before it, see `Captioner.forward`.

        Args:
            memory: what `encode` returned, B rows.
            caption_ids: `(N, T)`, long.
            caption_lengths: `(N,)`, long, at least 2.
            image_index: `(N,)`, long in [0, B).
            scheduled_sampling: probability that a word read is replaced by a draw from the model's own prediction, see
                `AttentionDecoder.score`; 0 is teacher forcing.

        Returns:
            Logits and targets of the M scored tokens, attention `(N, T - 1, R)`.
        """
        start = self.decoder.start(memory["pooled"])
        logits, attention = self.decoder.score(
            memory, start, caption_ids, caption_lengths, image_index, scheduled_sampling
        )
        return CaptionOutput(logits=logits, targets=targets_of(caption_ids, caption_lengths), attention=attention)

    @property
    def condition_dim(self) -> int:
        """A condition is added to every word that is read."""
        return self.decoder.word_dim

    @property
    def attends(self) -> bool:
        """Always true."""
        return True

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`."""
        start = self.decoder.start(memory["pooled"])
        return self.decoder.maps(memory, start, caption_ids, caption_lengths, image_index)

    def similarity_state(self, memory: Memory) -> Tensor:
        """The recurrent state before the first word, `(B, H)`, float32."""
        return self.decoder.start(memory["pooled"])["hidden"]
