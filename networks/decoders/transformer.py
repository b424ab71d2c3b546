"""A block of a Transformer decoder that attends to the regions of an image, with a key-value cache.

Letters: N captions, T tokens of the longest one, t tokens so far, R regions, D width, h heads, d = D / h.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.attention import masked_softmax


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
