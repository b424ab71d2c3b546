"""Any backbone of timm as an image encoder.

Letters: B images, H x W pixels, R regions, C channels of the feature map, D width of the vector.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from networks.encoders.base import ImageEncoder


class TimmEncoder(ImageEncoder):
    """Any backbone of timm; the vector is its pooled features, or the logits of its classifier if it has one.

    Args:
        network: the backbone, with or without its classifier.
        vector_dim: D, width of the network's output.
    """

    def __init__(self, *, network: nn.Module, vector_dim: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.vector_dim = vector_dim
        self.grid_dim = cast(int, network.num_features)

    def feature_map(self, image: Tensor) -> Tensor:
        """What `forward_features` of the network returns: a map in either layout, or tokens `(B, R + prefix, C)`."""
        features = image.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, cast(Any, self.network).forward_features(features))

    def pool(self, features: Tensor) -> Tensor:
        """The network's own pooling, and its classifier if it has one: `(B, D)`."""
        return cast(Tensor, cast(Any, self.network).forward_head(features))

    def grid(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, R, C)`; class and register tokens are dropped."""
        features = self.feature_map(image)
        if features.ndim == 3:
            return features[:, getattr(self.network, "num_prefix_tokens", 0) :]
        if features.shape[1] == self.grid_dim:
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2)  # (B, h, w, C) already
