"""Image towers by name, under one interface.

Letters: B images, H x W pixels, R regions of the last feature map (row by row), C its channels, D width of the vector.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import timm
import torch
import torch.nn.functional as F
import torchvision  # type: ignore[import-untyped]  # publishes no types
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch import utils as efficientnet_utils
from efficientnet_pytorch.model import MBConvBlock
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.checkpointing import freeze_in_recomputation, runner
from networks.layers.weights import WAYS_OUT, load_state

T = TypeVar("T")


class ImageEncoder(nn.Module, ABC):
    """A network from pictures to one vector each, or to a grid of region features.

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
        """Makes the vector out of the feature map: `(B, C, h, w)` to `(B, D)`."""

    def vector(self, image: Tensor) -> Tensor:
        """One vector for each picture: `(B, 3, H, W)` to `(B, D)`."""
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
        """Rows and columns of the grid for square pictures of this many pixels a side; computes nothing."""
        ghost = copy.deepcopy(self).to("meta").eval()
        with torch.no_grad():
            regions = ghost.grid(torch.empty(1, 3, image_size, image_size, device="meta")).shape[1]
        return math.isqrt(regions), math.isqrt(regions)


class SmallConvEncoder(ImageEncoder):
    """A strided convolutional tower that learns from scratch within minutes on a CPU, for pictures of about 64 pixels.

    Four 3 x 3 convolutions (5 x 5 at first) with BatchNorm and ReLU, the first three with stride 2. The vector is
    computed from the whole map laid flat, not from its mean, so that positions survive. A LayerNorm sets its scale; the
    merging networks' small first weights learn faster with it.

    Args:
        num_outputs: D.
        gradient_checkpointing: recompute each layer in the backward pass.
    """

    grid_dim = 128

    def __init__(self, num_outputs: int = 512, gradient_checkpointing: bool = False) -> None:
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
        self._run = runner(gradient_checkpointing)

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


class _SameConv2d(nn.Conv2d):
    """TensorFlow's "same" padding for any picture size, without the copy of the picture where it is symmetric."""

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
        """The same convolution with other parameters."""
        sizes = zip(image.shape[2:], self.kernel_size, self.stride, strict=True)
        height, width = (max((math.ceil(size / step) - 1) * step + kernel - size, 0) for size, kernel, step in sizes)
        if height % 2 or width % 2:
            image = F.pad(image, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(image, weight, bias, self.stride, (height // 2, width // 2), groups=self.groups)


def _folded(conv: nn.Module, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Convolution and evaluated BatchNorm as one convolution."""
    assert isinstance(conv, _SameConv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.convolve(features, conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)


def _evaluated(block: MBConvBlock, inputs: Tensor) -> Tensor:
    """What an MBConv block of efficientnet-pytorch computes in eval mode, with folded norms and nothing kept."""
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
    """EfficientNet (Tan and Le 2019) as efficientnet-pytorch has it; the vector is its classifier's logits.

    The network is the library's; its padding ("same" for every picture size) and activation are replaced by faster
    ones with the same values, and it runs in channels-last layout.

    Args:
        network: the library's network.
        gradient_checkpointing: recompute each MBConv block in the backward pass.
    """

    def __init__(self, network: EfficientNet, gradient_checkpointing: bool = False) -> None:
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
        self._run = runner(gradient_checkpointing)

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, H / 32, W / 32)`, rounded up."""
        network = self.network
        features = image.contiguous(memory_format=torch.channels_last)
        if not (self.training or torch.is_grad_enabled()):
            features = F.silu(_folded(network._conv_stem, network._bn0, features), inplace=True)
            for block in network._blocks:
                features = _evaluated(block, features)
            return F.silu(_folded(network._conv_head, network._bn1, features), inplace=True)
        features = network._swish(network._bn0(network._conv_stem(features)))
        for index, block in enumerate(network._blocks):
            # stochastic depth: later blocks are dropped more often
            rate = network._global_params.drop_connect_rate * index / len(network._blocks)
            features = self._run(block, features, rate)
        return cast(Tensor, network._swish(network._bn1(network._conv_head(features))))

    def pool(self, features: Tensor) -> Tensor:
        """Mean over the map, dropout, classifier: `(B, C, h, w)` to `(B, D)`."""
        return cast(Tensor, self.network._fc(self.network._dropout(features.mean(dim=(2, 3)))))


class TimmEncoder(ImageEncoder):
    """Any backbone of timm; the vector is what it pools before its classifier, or the logits of a classifier.

    Args:
        network: the backbone, with or without its classifier.
        vector_dim: D, what the network returns.
    """

    def __init__(self, network: nn.Module, vector_dim: int) -> None:
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
        """`(B, 3, H, W)` to `(B, R, C)`; class and register tokens are left out."""
        features = self.feature_map(image)
        if features.ndim == 3:
            return features[:, getattr(self.network, "num_prefix_tokens", 0) :]
        if features.shape[1] == self.grid_dim:
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2)  # (B, h, w, C) already


class TorchvisionEncoder(ImageEncoder):
    """A convolutional network of torchvision without its classifier.

    The vector is the mean of the last map, or a new linear layer on it.

    Args:
        blocks: what makes the map, in order.
        grid_dim: C.
        num_outputs: outputs of a new linear layer on the mean; None for the mean itself.
        gradient_checkpointing: recompute each block in the backward pass.
    """

    def __init__(
        self,
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
        self._run = runner(gradient_checkpointing)
        if gradient_checkpointing:
            # A block's input is kept for the recomputation, so no activation may overwrite it
            for module in self.blocks.modules():
                if getattr(module, "inplace", False):
                    module.inplace = False  # type: ignore[assignment]  # a plain attribute of the activations

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, h, w)`."""
        features = image.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            features = self._run(block, features)
        return features

    def pool(self, features: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, D)`."""
        return cast(Tensor, self.project(features.mean(dim=(2, 3))))


EFFICIENTNETS = tuple(f"efficientnet-b{size}" for size in range(8))


def build_encoder(
    name: str, weights: str | None, *, gradient_checkpointing: bool = False, num_outputs: int | None = None
) -> ImageEncoder:
    """Builds an image tower. With `weights` None nothing is ever looked up on the network.

    Args:
        name: "efficientnet-b0" .. "efficientnet-b7", "timm/NAME", "torchvision/NAME" (convolutional ones),
            "torchvision/fasterrcnn_NAME" for the boxes of a detector (see `networks.encoders.detectors`) or
            "small-conv". With
            "eight-views/" before it, the mean over a picture turned and mirrored (see `networks.encoders.views`).
        weights: None for random ones; a state-dict file (.pth, .pt, .safetensors); or by kind of tower "advprop" or
            "imagenet" (efficientnet), "pretrained" (timm), "imagenet" (torchvision), "coco" (its detectors).
        gradient_checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        num_outputs: D. None: EfficientNet's 1000 logits, 512 of small-conv, the pooled features of all others. A
            number makes it the output of a classifier; a pretrained one is kept if it has this many outputs.

    Raises:
        UserError: unknown name or weights, weights that cannot be reached or do not fit.
    """
    kind, _, rest = name.partition("/")
    if kind == "eight-views" and rest:
        from networks.encoders.views import EightViews  # it is an `ImageEncoder` itself

        inner = build_encoder(rest, weights, gradient_checkpointing=gradient_checkpointing, num_outputs=num_outputs)
        return EightViews(inner)
    if name in EFFICIENTNETS:
        return _efficientnet(name, weights, num_outputs, gradient_checkpointing)
    if kind == "timm" and rest:
        return _timm(rest, weights, num_outputs, gradient_checkpointing)
    if kind == "torchvision" and rest.startswith("fasterrcnn"):
        from networks.encoders.detectors import build_detector  # it is an `ImageEncoder` itself

        return build_detector(rest, weights, gradient_checkpointing=gradient_checkpointing)
    if kind == "torchvision" and rest:
        return _torchvision(rest, weights, num_outputs, gradient_checkpointing)
    if name == "small-conv":
        encoder = SmallConvEncoder(num_outputs or 512, gradient_checkpointing)
        if weights is not None:
            _load_file(encoder, weights, "a file of its own state dict")
        return encoder
    raise UserError(
        f"image encoder {name!r} is unknown; give efficientnet-b0 .. efficientnet-b7, timm/NAME, torchvision/NAME or "
        "small-conv"
    )


def _load_file(network: nn.Module, weights: str, known: str) -> None:
    """Loads a local file; a word that is neither a known name nor a file gets an error with both."""
    if not Path(weights).is_file():
        raise UserError(f"encoder weights {weights!r} are neither {known} nor an existing file; or set weights to null")
    load_state(network, Path(weights), prefixes=("network.", "module."))


def _reached(weights: str, name: str, load: Callable[[], T]) -> T:
    """What `load` downloads or finds in a cache."""
    try:
        return load()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"weights {weights!r} of {name!r} cannot be reached; {WAYS_OUT}") from error


def _efficientnet(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> EfficientNetEncoder:
    """EfficientNet with dynamic padding: the library's default is right for one picture size only."""
    network = EfficientNet.from_name(name, image_size=None)
    urls = {"advprop": efficientnet_utils.url_map_advprop, "imagenet": efficientnet_utils.url_map}
    if weights in urls:
        url = urls[weights][name]
        state = _reached(
            weights, name, lambda: torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        )
        network.load_state_dict(state)
    elif weights is not None:
        _load_file(network, weights, '"advprop" or "imagenet"')
    if num_outputs not in (None, network._fc.out_features):
        network._fc = nn.Linear(network._fc.in_features, num_outputs)
    return EfficientNetEncoder(network, checkpointing)


def _timm(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> TimmEncoder:
    """A timm backbone; its classifier is cut off unless outputs are asked for."""
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:8]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; near: {near}")
    network: Any
    if weights == "pretrained":
        network = _reached(weights, f"timm/{name}", lambda: timm.create_model(name, pretrained=True))
    else:
        network = timm.create_model(name, pretrained=False)
        if weights is not None:
            _load_file(network, weights, '"pretrained"')
    if num_outputs != network.num_classes:
        network.reset_classifier(num_outputs or 0)
    if checkpointing:
        try:
            network.set_grad_checkpointing()
        except AssertionError as error:
            raise UserError(
                f"timm/{name} has no gradient checkpointing; set gradient_checkpointing to false"
            ) from error
        freeze_in_recomputation(network)
    return TimmEncoder(network, num_outputs or getattr(network, "head_hidden_size", network.num_features))


def _torchvision(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> TorchvisionEncoder:
    """A torchvision network cut before its classifier."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(f"torchvision has no classification model {name!r}; e.g. resnet50, densenet121, squeezenet1_0")
    if weights == "imagenet":
        load = torchvision.models.get_model
        network = _reached(weights, f"torchvision/{name}", lambda: load(name, weights="DEFAULT"))
    else:
        network = torchvision.models.get_model(name, weights=None)
        if weights is not None:
            _load_file(network, weights, '"imagenet"')
    if isinstance(getattr(network, "features", None), nn.Sequential):
        blocks = list(network.features)
        if name.startswith("densenet"):
            blocks.append(nn.ReLU(inplace=True))  # DenseNet has it in its forward function
    elif hasattr(network, "layer4"):
        stem = [network.conv1, network.bn1, network.relu, network.maxpool]
        blocks = [*stem, *network.layer1, *network.layer2, *network.layer3, *network.layer4]
    else:
        raise UserError(f"torchvision/{name} has no feature map; give a convolutional network, or one of timm's")
    ghost = copy.deepcopy(nn.Sequential(*blocks)).to("meta").eval()
    channels = ghost(torch.empty(1, 3, 224, 224, device="meta")).shape[1]
    return TorchvisionEncoder(blocks, channels, num_outputs, checkpointing)
