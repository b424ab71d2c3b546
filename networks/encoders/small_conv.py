"""A small convolutional encoder that learns from scratch on a CPU.

Letters: B images, H x W pixels, C channels of the feature map, D width of the vector.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.encoders.base import ImageEncoder
from networks.layers.checkpointing import Runner


class SmallConvEncoder(ImageEncoder):
    """A strided CNN that learns from scratch within minutes on a CPU, for images of about 64 pixels.

    Four 3 x 3 convolutions (the first one 5 x 5) with BatchNorm and ReLU, the first three with stride 2. The vector is
    computed from the flattened map, not from its mean, so that positions survive. A LayerNorm sets its scale: merging
    networks, whose initial weights are small, learn faster with it.

    Args:
        num_outputs: D.
        gradient_checkpointing: recompute each layer in the backward pass.
    """

    grid_dim = 128

    def __init__(self, *, num_outputs: int = 512, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.vector_dim = num_outputs
        widths, strides = (3, 32, 64, 128, self.grid_dim), (2, 2, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 5 if before == 3 else 3, stride, 2 if before == 3 else 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.squeeze = nn.Conv2d(self.grid_dim, 32, 1)
        self.project = nn.Linear(32 * 8 * 8, num_outputs)
        self.norm = nn.LayerNorm(num_outputs)
        self._run = Runner(gradient_checkpointing)

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, 128, H / 8, W / 8)`."""
        features = image.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            features = self._run(layer, features)
        return features

    def pool(self, features: Tensor) -> Tensor:
        """`(B, 128, h, w)` to `(B, D)`; maps of another size than 8 x 8 are averaged to it."""
        squeezed = F.relu(self.squeeze(features))
        return cast(Tensor, self.norm(self.project(F.adaptive_avg_pool2d(squeezed, 8).flatten(1))))
