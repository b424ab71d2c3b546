"""Image encoders by name, with the weights that a name or a file gives."""

import copy
from typing import Any

import timm
import torch
import torchvision  # type: ignore[import-untyped]  # publishes no types
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch import utils as efficientnet_utils
from torch import nn

from core.errors import UserError
from networks.encoders.base import ImageEncoder
from networks.encoders.detectors import build_detector
from networks.encoders.efficientnet import EfficientNetEncoder
from networks.encoders.small_conv import SmallConvEncoder
from networks.encoders.timm import TimmEncoder
from networks.encoders.torchvision import TorchvisionEncoder
from networks.encoders.views import EightViews
from networks.layers.checkpointing import freeze_in_recomputation
from networks.layers.weights import load_file, reached

EFFICIENTNETS = tuple(f"efficientnet-b{size}" for size in range(8))


def build_encoder(
    name: str, weights: str | None, *, gradient_checkpointing: bool = False, num_outputs: int | None = None
) -> ImageEncoder:
    """Builds an image encoder. With `weights` None nothing is ever downloaded or looked up.

    Args:
        name: "efficientnet-b0" .. "efficientnet-b7", "timm/NAME", "torchvision/NAME" (convolutional networks),
            "torchvision/fasterrcnn_NAME" for the boxes of a detector (see `networks.encoders.detectors`), or
            "small-conv". The prefix "eight-views/" averages over the dihedral transforms of an image (see
            `networks.encoders.views`).
        weights: None for random weights; a state-dict file (.pth, .pt, .safetensors); or, depending on the kind of
            encoder, "advprop" or "imagenet" (efficientnet), "pretrained" (timm), "imagenet" (torchvision), "coco"
            (torchvision's detectors).
        gradient_checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        num_outputs: D. None: EfficientNet's 1000 logits, 512 outputs of small-conv, the pooled features of all
            others. A number makes the vector the output of a classifier; a pretrained classifier is kept if it has
            this many outputs.

    Raises:
        UserError: unknown name or weights, or weights that cannot be reached or do not match the network.
    """
    kind, _, rest = name.partition("/")
    if kind == "eight-views" and rest:
        inner = build_encoder(rest, weights, gradient_checkpointing=gradient_checkpointing, num_outputs=num_outputs)
        return EightViews(encoder=inner)
    if name in EFFICIENTNETS:
        return _efficientnet(name, weights, num_outputs, gradient_checkpointing)
    if kind == "timm" and rest:
        return _timm(rest, weights, num_outputs, gradient_checkpointing)
    if kind == "torchvision" and rest.startswith("fasterrcnn"):
        return build_detector(rest, weights, gradient_checkpointing=gradient_checkpointing)
    if kind == "torchvision" and rest:
        return _torchvision(rest, weights, num_outputs, gradient_checkpointing)
    if name == "small-conv":
        encoder = SmallConvEncoder(num_outputs=num_outputs or 512, gradient_checkpointing=gradient_checkpointing)
        if weights is not None:
            load_file(encoder, weights, "a file of its own state dict")
        return encoder
    raise UserError(
        f"image encoder {name!r} is unknown; give efficientnet-b0 .. efficientnet-b7, timm/NAME, torchvision/NAME or "
        "small-conv"
    )


def _efficientnet(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> EfficientNetEncoder:
    """EfficientNet with dynamic padding: the library's default padding is right for one image size only."""
    network = EfficientNet.from_name(name, image_size=None)
    urls = {"advprop": efficientnet_utils.url_map_advprop, "imagenet": efficientnet_utils.url_map}
    if weights in urls:
        url = urls[weights][name]
        state = reached(
            weights, name, lambda: torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        )
        network.load_state_dict(state)
    elif weights is not None:
        load_file(network, weights, '"advprop" or "imagenet"')
    if num_outputs not in (None, network._fc.out_features):
        network._fc = nn.Linear(network._fc.in_features, num_outputs)
    return EfficientNetEncoder(network=network, gradient_checkpointing=checkpointing)


def _timm(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> TimmEncoder:
    """A timm backbone, without its classifier unless outputs are asked for."""
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:8]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; near: {near}")
    network: Any
    if weights == "pretrained":
        network = reached(weights, f"timm/{name}", lambda: timm.create_model(name, pretrained=True))
    else:
        network = timm.create_model(name, pretrained=False)
        if weights is not None:
            load_file(network, weights, '"pretrained"')
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
    return TimmEncoder(
        network=network, vector_dim=num_outputs or getattr(network, "head_hidden_size", network.num_features)
    )


def _torchvision(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> TorchvisionEncoder:
    """A torchvision network without its classifier."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(f"torchvision has no classification model {name!r}; e.g. resnet50, densenet121, squeezenet1_0")
    if weights == "imagenet":
        load = torchvision.models.get_model
        network = reached(weights, f"torchvision/{name}", lambda: load(name, weights="DEFAULT"))
    else:
        network = torchvision.models.get_model(name, weights=None)
        if weights is not None:
            load_file(network, weights, '"imagenet"')
    if isinstance(getattr(network, "features", None), nn.Sequential):
        blocks = list(network.features)
        if name.startswith("densenet"):
            blocks.append(nn.ReLU(inplace=True))  # DenseNet applies it in its forward function
    elif hasattr(network, "layer4"):
        stem = [network.conv1, network.bn1, network.relu, network.maxpool]
        blocks = [*stem, *network.layer1, *network.layer2, *network.layer3, *network.layer4]
    else:
        raise UserError(f"torchvision/{name} has no feature map; choose a convolutional network, or one of timm")
    ghost = copy.deepcopy(nn.Sequential(*blocks)).to("meta").eval()
    channels = ghost(torch.empty(1, 3, 224, 224, device="meta")).shape[1]
    return TorchvisionEncoder(
        blocks=blocks, grid_dim=channels, num_outputs=num_outputs, gradient_checkpointing=checkpointing
    )
