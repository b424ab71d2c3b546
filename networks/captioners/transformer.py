"""A Transformer decoder with cross-attention to the regions of an image, after Vaswani et al. 2017.

Letters: B images, R regions, N captions, T tokens of the longest one, D width, h heads, d = D / h.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.captioners.base import Captioner, TokenIds
from networks.encoders.base import ImageEncoder
from networks.encoders.source import all_real, image_regions
from networks.layers.attention import RegionProjection, masked_softmax
from networks.layers.checkpointing import Runner
from networks.layers.pooling import RegionPooling, masked_mean
from networks.layers.positions import sinusoidal
from networks.layers.sequences import CaptionOutput, Memory, State, target_mask, target_places, targets_of


class Reading(NamedTuple):
    """What a block returns: words `(N, T, D)`, key-value cache `(N, 2, h, t, d)`, attention `(N, T, R)` if wanted."""

    words: Tensor
    cache: Tensor
    attention: Tensor | None


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to regions, feed-forward network; each on normalised input (pre-norm).

    Args:
        hidden_dim: D, a multiple of `heads`.
        heads: h.
        feedforward_dim: width of the feed-forward network.
        dropout: dropout probability of each part's output and within the feed-forward network.

    Raises:
        UserError: D cannot be shared among the heads.
    """

    def __init__(self, *, hidden_dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or hidden_dim % heads:
            raise UserError(f"hidden_dim={hidden_dim} cannot be shared among heads={heads}; give a divisor of it")
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(3))
        self.words = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.merge_words = nn.Linear(hidden_dim, hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.regions = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.merge_regions = nn.Linear(hidden_dim, hidden_dim)
        widen, narrow = nn.Linear(hidden_dim, feedforward_dim), nn.Linear(feedforward_dim, hidden_dim)
        self.feedforward = nn.Sequential(widen, nn.GELU(), nn.Dropout(dropout), narrow)
        self.dropout = nn.Dropout(dropout)

    def split(self, projected: Tensor) -> Tensor:
        """Shares projections among the heads: `(N, T, parts * D)` to `(N, parts, h, T, d)`."""
        width = self.query.in_features // self.heads
        return projected.reshape(*projected.shape[:2], -1, self.heads, width).permute(0, 2, 3, 1, 4)

    def forward(self, words: Tensor, regions: Tensor, mask: Tensor | None) -> Tensor:
        """The words alone; arguments as for `read`."""
        return self.read(words, regions, mask).words

    def read_attention(self, words: Tensor, regions: Tensor, mask: Tensor | None) -> Reading:
        """The words with the attention; arguments as for `read`."""
        return self.read(words, regions, mask, attention=True)

    def read(
        self, words: Tensor, regions: Tensor, mask: Tensor | None, past: Tensor | None = None, attention: bool = False
    ) -> Reading:
        """Reads words.

        Args:
            words: captions from their first token on, `(N, T, D)`; with `past` one more token, `(N, 1, D)`.
            regions: keys and values, `(N, 2, h, R, d)`.
            mask: True where a region is real, `(N, R)`; None: all are.
            past: cache of the tokens before.
            attention: also return the weights of the cross-attention, mean over the heads.
        """
        query, own = torch.split(self.split(self.words(self.norms[0](words))), [1, 2], dim=1)
        cache = own if past is None else torch.cat([past, own], dim=3)
        seen = F.scaled_dot_product_attention(query[:, 0], cache[:, 0], cache[:, 1], is_causal=past is None)
        words = words + self.dropout(self.merge_words(seen.transpose(1, 2).flatten(2)))
        query = self.split(self.query(self.norms[1](words)))[:, 0]
        (keys, values), real, weights = regions.unbind(1), None if mask is None else mask[:, None, None], None
        if attention:
            heads = masked_softmax(query @ keys.transpose(2, 3) / math.sqrt(query.shape[3]), real)  # (N, h, T, R)
            seen, weights = heads @ values, heads.mean(1)
        else:
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=real)
        words = words + self.dropout(self.merge_regions(seen.transpose(1, 2).flatten(2)))
        return Reading(words + self.dropout(self.feedforward(self.norms[2](words))), cache, weights)


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
        token_ids: see `TokenIds`.
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
        embedded: Tensor = self.dropout(words if self.pooling is None else words + memory["summary"].unsqueeze(1))
        return embedded
