"""EfficientNet of efficientnet-pytorch, made faster with the same values.

Letters: B images, H x W pixels, C channels of the feature map, D width of the vector.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch import utils as efficientnet_utils
from efficientnet_pytorch.model import MBConvBlock
from torch import Tensor, nn

from networks.encoders.base import ImageEncoder
from networks.layers.checkpointing import Runner, stage


class _SameConv2d(nn.Conv2d):
    """TensorFlow's "same" padding for any image size, without copying the image where the padding is symmetric."""

    @staticmethod
    def of(conv: nn.Conv2d) -> "_SameConv2d":
        """The same convolution with the same parameters."""
        same = _SameConv2d(
            conv.in_channels,
            conv.out_channels,
            cast(tuple[int, int], conv.kernel_size),
            cast(tuple[int, int], conv.stride),
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        same.weight, same.bias = conv.weight, conv.bias
        return same

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """`(B, C, H, W)` to `(B, C', H / stride rounded up, W / stride rounded up)`."""
        return self.convolve(input, self.weight, self.bias)

    def convolve(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same convolution with the given parameters."""
        sizes = zip(image.shape[2:], self.kernel_size, self.stride, strict=True)
        height, width = (max((math.ceil(size / step) - 1) * step + kernel - size, 0) for size, kernel, step in sizes)
        if height % 2 or width % 2:
            image = F.pad(image, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(image, weight, bias, self.stride, (height // 2, width // 2), groups=self.groups)


def _folded(conv: nn.Module, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """A convolution and its BatchNorm in evaluation mode as one convolution."""
    assert isinstance(conv, _SameConv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.convolve(features, conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)


def _evaluated(block: MBConvBlock, inputs: Tensor) -> Tensor:
    """An MBConv block of efficientnet-pytorch in evaluation mode, with folded BatchNorm and in-place operations."""
    features = inputs
    if block._block_args.expand_ratio != 1:
        features = F.silu(_folded(block._expand_conv, block._bn0, features), inplace=True)
    features = F.silu(_folded(block._depthwise_conv, block._bn1, features), inplace=True)
    if block.has_se:
        squeezed = block._se_expand(F.silu(block._se_reduce(features.mean(dim=(2, 3), keepdim=True))))
        features = features.mul_(squeezed.sigmoid())
    features = _folded(block._project_conv, block._bn2, features)
    if block.id_skip and block._block_args.stride == 1 and features.shape[1] == inputs.shape[1]:
        features = features.add_(inputs)
    return features


class EfficientNetEncoder(ImageEncoder):
    """EfficientNet (Tan and Le 2019) of efficientnet-pytorch; the vector is the logits of its classifier.

    The padding ("same" for every image size) and the activation of the library's network are replaced by faster ones
    with the same values, and it runs in channels-last layout.

    Args:
        network: the library's network.
        gradient_checkpointing: recompute stem, MBConv blocks and head in the backward pass.
    """

    def __init__(self, *, network: EfficientNet, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Conv2d):
                    setattr(module, name, _SameConv2d.of(child))
                elif isinstance(child, efficientnet_utils.MemoryEfficientSwish):
                    setattr(module, name, nn.SiLU())
        self.network = network.to(memory_format=torch.channels_last)
        self.grid_dim = network._conv_head.out_channels
        self.vector_dim = network._fc.out_features
        self._run = Runner(gradient_checkpointing)

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, H / 32, W / 32)`, rounded up."""
        network = self.network
        features = image.contiguous(memory_format=torch.channels_last)
        if not (self.training or torch.is_grad_enabled()):
            features = F.silu(_folded(network._conv_stem, network._bn0, features), inplace=True)
            for block in network._blocks:
                features = _evaluated(block, features)
            return F.silu(_folded(network._conv_head, network._bn1, features), inplace=True)
        features = self._run(stage(network._conv_stem, network._bn0, network._swish), features)
        for index, block in enumerate(network._blocks):
            # stochastic depth: later blocks are dropped more often
            rate = network._global_params.drop_connect_rate * index / len(network._blocks)
            features = self._run(block, features, rate)
        head: Tensor = self._run(stage(network._conv_head, network._bn1, network._swish), features)
        return head

    def pool(self, features: Tensor) -> Tensor:
        """Mean over the map, dropout, classifier: `(B, C, h, w)` to `(B, D)`."""
        return cast(Tensor, self.network._fc(self.network._dropout(features.mean(dim=(2, 3)))))
