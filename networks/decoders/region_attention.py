"""Cross-attention of a language model's hidden states to the regions of an image.

Letters: B images, N captions, T time steps, R regions, F width of their features, D hidden width, h heads, d = D / h.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.attention import RegionProjection, masked_softmax


class RegionAttention(nn.Module):
    """Adds to every hidden state what it finds in the regions of the image.

    ``h' = h + W (attention of LN(h) over the regions)``. W starts small (Xavier normal, gain .1), as the merging
    networks do, so that at first the predictions of the language model hardly change.

    Args:
        feature_dim: F.
        hidden_dim: D, a multiple of `heads` and, with `positions`, of 4.
        heads: h.
        positions: 2-D encoding of the regions' positions, which must form a square grid.

    Raises:
        UserError: D cannot be shared among the heads.
    """

    def __init__(self, *, feature_dim: int, hidden_dim: int, heads: int, positions: bool) -> None:
        super().__init__()
        if heads < 1 or hidden_dim % heads:
            raise UserError(
                f"region_heads={heads} does not divide the language model's width {hidden_dim}; give a divisor of it"
            )
        self.heads = heads
        self.regions = RegionProjection(
            feature_dim=feature_dim, region_dim=hidden_dim, pooled_side=None, dropout=0.0, positions=positions
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key_value = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.merge = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_normal_(self.merge.weight, gain=0.1)
        nn.init.zeros_(self.merge.bias)

    def keys_values(self, regions: Tensor, mask: Tensor | None) -> Tensor:
        """What words look into, once for each image: regions `(B, R, F)` to `(B, 2, h, R, d)`.

        Args:
            regions: zero where masked, as `networks.encoders.source.image_regions` returns them.
            mask: True where a region is real, `(B, R)`; None: all are.
        """
        projected, _ = self.regions(regions, mask)
        return self._split(self.key_value(projected))

    def forward(self, hidden: Tensor, keys_values: Tensor, mask: Tensor | None) -> Tensor:
        """All time steps.

        Args:
            hidden: `(N, T, D)`.
            keys_values: keys and values of the image of each caption, `(N, 2, h, R, d)`.
            mask: `(N, R)`, bool; None: all regions are real.

        Returns:
            `(N, T, D)`.
        """
        keys, values = keys_values.unbind(1)
        real = None if mask is None else mask[:, None, None]
        seen = F.scaled_dot_product_attention(self._queries(hidden), keys, values, attn_mask=real)
        found: Tensor = self.merge(seen.transpose(1, 2).flatten(2))
        return hidden + found

    def weights(self, hidden: Tensor, keys_values: Tensor, mask: Tensor | None) -> Tensor:
        """The attention, mean over the heads, `(N, T, R)`; arguments as for `forward`."""
        query, keys = self._queries(hidden), keys_values[:, 0]
        scores = query @ keys.transpose(2, 3) / math.sqrt(query.shape[3])
        return masked_softmax(scores, None if mask is None else mask[:, None, None]).mean(1)

    def _queries(self, hidden: Tensor) -> Tensor:
        return self._split(self.query(self.norm(hidden)))[:, 0]

    def _split(self, projected: Tensor) -> Tensor:
        """Shares projections among the heads: `(N, T, parts * D)` to `(N, parts, h, T, d)`."""
        width = self.query.in_features // self.heads
        return projected.reshape(*projected.shape[:2], -1, self.heads, width).permute(0, 2, 3, 1, 4)
