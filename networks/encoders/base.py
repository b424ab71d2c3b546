"""What every image encoder offers.

Letters: B images, H x W pixels, R regions of the last feature map (row by row), C its channels, D width of the vector.
"""

import copy
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ImageEncoder(nn.Module, ABC):
    """A network that turns an image into one vector or into a grid of region features.

    Attributes:
        vector_dim: D.
        grid_dim: C.
    """

    vector_dim: int
    grid_dim: int

    @abstractmethod
    def feature_map(self, image: Tensor) -> Tensor:
        """The last feature map: `(B, 3, H, W)` to `(B, C, h, w)`."""

    @abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """Pools the feature map into the vector: `(B, C, h, w)` to `(B, D)`."""

    def vector(self, image: Tensor) -> Tensor:
        """One vector for each image: `(B, 3, H, W)` to `(B, D)`."""
        return self.pool(self.feature_map(image))

    def grid(self, image: Tensor) -> Tensor:
        """Features of the regions, row by row from the top left: `(B, 3, H, W)` to `(B, R, C)`."""
        return self.feature_map(image).flatten(2).transpose(1, 2)

    def regions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the regions and which of them are real: `(B, 3, H, W)` to `(B, R, C)` and `(B, R)`, bool.

        All regions of a grid are real; a detector may find fewer than R boxes, and the others are zero.
        """
        features = self.grid(image)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def forward(self, image: Tensor) -> Tensor:
        """The same as `vector`."""
        return self.vector(image)

    def grid_shape(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of the grid for square images of this many pixels a side; no data is computed."""
        ghost = copy.deepcopy(self).to("meta").eval()
        with torch.no_grad():
            regions = ghost.grid(torch.empty(1, 3, image_size, image_size, device="meta")).shape[1]
        return math.isqrt(regions), math.isqrt(regions)
