"""A Transformer decoder with cross-attention to the regions of an image, after Vaswani et al. 2017.

Letters: B images, R regions, N captions, T tokens of the longest one, D width, h heads, d = D / h.
"""

import math
from collections.abc import Sequence
from typing import Unpack, cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from networks.captioners.base import Captioner, TokenIds
from networks.decoders.transformer import DecoderBlock
from networks.encoders.base import ImageEncoder
from networks.encoders.source import all_real, image_regions
from networks.layers.attention import RegionProjection
from networks.layers.checkpointing import Runner
from networks.layers.conditions import conditioned
from networks.layers.pooling import RegionPooling, masked_mean
from networks.layers.positions import sinusoidal
from networks.layers.sequences import CaptionOutput, Memory, State, target_mask, target_places, targets_of


class TransformerCaptioner(Captioner):
    """A Transformer decoder over projected regions, with sinusoidal positions of the words.

    Its attention is the cross-attention of the last block, mean over the heads.

    Args:
        regions: projects the regions to D.
        blocks: at least one, of width D, an even number.
        encoder: computes the grid of an image; None: batches bring `features`.
        pooling: the pooled regions, projected, are added to every word; None: only cross-attention sees the image.
        dropout: dropout probability of words and pooled regions.
        tied_embeddings: the vocabulary layer shares its weights with the embedding.
        gradient_checkpointing: recompute each block in the backward pass.
        token_ids: size of the vocabulary and the special tokens, see `TokenIds`.
    """

    def __init__(
        self,
        *,
        regions: RegionProjection,
        blocks: Sequence[DecoderBlock],
        encoder: ImageEncoder | None = None,
        pooling: RegionPooling | None = None,
        dropout: float = 0.1,
        tied_embeddings: bool = True,
        gradient_checkpointing: bool = False,
        **token_ids: Unpack[TokenIds],
    ) -> None:
        super().__init__(**token_ids)
        width = regions.project.out_features
        self.encoder, self.regions, self.pooling = encoder, regions, pooling
        if pooling is not None:
            self.summary = nn.Sequential(nn.Linear(pooling.out_features, width), nn.LayerNorm(width))
        self.embedding = nn.Embedding(self.vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=0.5 / math.sqrt(width))
        self.blocks = cast(Sequence[DecoderBlock], nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(width)
        self.vocabulary = nn.Linear(width, self.vocab_size)
        if tied_embeddings:
            self.vocabulary.weight = self.embedding.weight
        self.dropout, self._run = nn.Dropout(dropout), Runner(gradient_checkpointing)

    def encode(self, batch: Batch) -> Memory:
        """Projects the regions of a batch to keys and values of every block, once for each image.

        Returns:
            `regions` `(B, blocks, 2, h, R, d)`, `summary` `(B, D)`: the pooled regions as they are added to words, or
            the mean of the projected ones, and `mask` `(B, R)` if there is one.

        Raises:
            UserError: see `networks.encoders.source.image_regions` and `RegionProjection`.
        """
        project = self.regions.project
        found, mask = image_regions(
            batch, self.encoder, feature_dim=project.in_features, dtype=self.vocabulary.weight.dtype
        )
        vector = None if self.pooling is None else self.summary(self.dropout(self.pooling(found, mask)))
        regions, mask = self.regions(found, mask)
        if vector is None:
            vector = masked_mean(regions, all_real(regions) if mask is None else mask)
        memory = {"regions": torch.stack([block.split(block.regions(regions)) for block in self.blocks], dim=1)}
        return memory | {"summary": vector} | ({} if mask is None else {"mask": mask})

    def similarity_state(self, memory: Memory) -> Tensor:
        """The summary of the image, `(B, D)`, float32."""
        return memory["summary"].float()

    def step(self, memory: Memory, token: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `Captioner.step`; the state is the key-value cache of every block."""
        words = self._embedded(token.unsqueeze(1), memory, 0 if state is None else state["0"].shape[3])
        new: State = {}
        for index, block in enumerate(self.blocks):
            past = None if state is None else state[str(index)]
            words, new[str(index)], _ = block.read(words, memory["regions"][:, index], memory.get("mask"), past)
        return self.vocabulary(self.norm(words[:, 0])), new

    def forward(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> CaptionOutput:
        """See `Captioner.forward`; no token sees what follows it, so padding needs no mask."""
        memory = {name: tensor.index_select(0, image_index) for name, tensor in memory.items()}
        words, regions, mask = self._embedded(caption_ids[:, :-1], memory), memory["regions"], memory.get("mask")
        for index, block in enumerate(self.blocks[:-1]):
            words = self._run(block, words, regions[:, index], mask)
        words, _, attention = self._run(self.blocks[-1].read_attention, words, regions[:, -1], mask)
        assert attention is not None
        real = target_mask(caption_lengths, caption_ids.shape[1])
        scored = words.flatten(0, 1).index_select(0, target_places(caption_lengths, caption_ids.shape[1]))
        logits = self.vocabulary(self.norm(scored))
        return CaptionOutput(
            logits=logits, targets=targets_of(caption_ids, caption_lengths), attention=attention * real.unsqueeze(2)
        )

    @property
    def condition_dim(self) -> int:
        """A condition is added to every word that is read."""
        return self.embedding.embedding_dim

    @property
    def attends(self) -> bool:
        """Always true."""
        return True

    @torch.no_grad()
    def attention_maps(
        self, memory: Memory, caption_ids: Tensor, caption_lengths: Tensor, image_index: Tensor
    ) -> Tensor:
        """See `Captioner.attention_maps`."""
        weights = self.forward(memory, caption_ids, caption_lengths, image_index).attention
        assert weights is not None
        return weights

    def _embedded(self, token_ids: Tensor, memory: Memory, start: int = 0) -> Tensor:
        """Tokens `(N, T)` from position `start` on, with their positions and the pooled image: `(N, T, D)`."""
        width = self.embedding.embedding_dim
        # the embedding starts small for the scores' sake, as it is tied to them
        words = self.embedding(token_ids) * math.sqrt(width)
        words = words + sinusoidal(start + words.shape[1], width, words.device)[start:].to(words.dtype)
        words = conditioned(words, memory)
        embedded: Tensor = self.dropout(words if self.pooling is None else words + memory["summary"].unsqueeze(1))
        return embedded
