"""Convolutional networks of torchvision as image encoders.

Letters: B images, H x W pixels, C channels of the feature map, D width of the vector.
"""

from typing import cast

import torch
from torch import Tensor, nn

from networks.encoders.base import ImageEncoder
from networks.layers.checkpointing import Runner, stage


class TorchvisionEncoder(ImageEncoder):
    """A convolutional network of torchvision without its classifier.

    The vector is the mean of the last feature map, or the output of a new linear layer on that mean.

    Args:
        blocks: modules that compute the feature map, in order.
        grid_dim: C.
        num_outputs: outputs of a new linear layer on the mean; None for the mean itself.
        gradient_checkpointing: recompute each block, or single layers up to a pooling layer, in the backward pass.
    """

    def __init__(
        self,
        *,
        blocks: list[nn.Module],
        grid_dim: int,
        num_outputs: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks).to(memory_format=torch.channels_last)
        self.grid_dim = grid_dim
        self.vector_dim = num_outputs or grid_dim
        self.project = nn.Linear(grid_dim, num_outputs) if num_outputs else nn.Identity()
        self._run = Runner(gradient_checkpointing)
        if gradient_checkpointing:
            # A block's input is kept for the recomputation, so no activation may overwrite it
            for module in self.blocks.modules():
                if getattr(module, "inplace", False):
                    module.inplace = False  # type: ignore[assignment]  # a plain attribute of the activations

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, h, w)`."""
        features = image.contiguous(memory_format=torch.channels_last)
        for block in self._stages() if self._run.recomputes else self.blocks:
            features = self._run(block, features)
        return features

    def _stages(self) -> list[nn.Module]:
        """Blocks that are recomputed together: the input of each is kept, so single layers are not worth one each."""
        stages: list[list[nn.Module]] = [[]]
        for block in self.blocks:
            alone = next(block.children(), None) is not None
            if alone and stages[-1]:
                stages.append([])
            stages[-1].append(block)
            if alone or isinstance(block, nn.MaxPool2d):
                stages.append([])
        return [stage(*blocks) for blocks in stages if blocks]

    def pool(self, features: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, D)`."""
        return cast(Tensor, self.project(features.mean(dim=(2, 3))))
