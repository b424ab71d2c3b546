"""Image encoders by name, with the weights that a name or a file gives."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch import utils as efficientnet_utils
from torch import Tensor, nn

from core.errors import UserError
from core.hub import asking, hub_weights, only_local
from networks.encoders.base import ImageEncoder
from networks.encoders.colour_boxes import NAME as COLOURS
from networks.encoders.colour_boxes import build_colour_boxes, colour_shape
from networks.encoders.efficientnet import EfficientNetEncoder
from networks.encoders.positions import PREFIX, WIDTH, positioned
from networks.encoders.small_conv import SmallConvEncoder
from networks.encoders.timm import TimmEncoder
from networks.encoders.torchvision import TorchvisionEncoder
from networks.encoders.views import EightViews
from networks.encoders.visual_genome.loading import NAME as GENOME
from networks.encoders.visual_genome.loading import PUBLISHED, build_genome, genome_files, genome_shape
from networks.layers.checkpointing import freeze_in_recomputation
from networks.layers.weights import load_file, reached

EFFICIENTNETS = tuple(f"efficientnet-b{size}" for size in range(8))


def build_encoder(
    name: str,
    weights: str | None,
    *,
    gradient_checkpointing: bool = False,
    num_outputs: int | None = None,
    whole_pictures: bool = False,
) -> ImageEncoder:
    """Builds an image encoder. With `weights` None nothing is ever downloaded or looked up.

    Args:
        name: "efficientnet-b0" .. "efficientnet-b7", "timm/NAME", "torchvision/NAME" (convolutional networks),
            "torchvision/fasterrcnn_NAME" for the boxes of a detector (see `networks.encoders.detectors`), "frcnn-vg"
            for those of the Visual Genome detector (see `networks.encoders.visual_genome`), "colour-boxes" for those
            of synthetic scenes (see `networks.encoders.colour_boxes`), or "small-conv". The
            prefix "eight-views/" averages over the dihedral transforms of an image (see `networks.encoders.views`),
            "positions/" tells the boxes of a detector where they are (see `networks.encoders.positions`).
        weights: None for random weights; a state-dict file (.pth, .pt, .safetensors); or, depending on the kind of
            encoder, "advprop" or "imagenet" (efficientnet), "pretrained" (timm), "imagenet" (torchvision), "coco"
            (torchvision's detectors), a hub id or folder (frcnn-vg).
        gradient_checkpointing: recompute blocks in the backward pass instead of keeping their activations.
        num_outputs: D. None: EfficientNet's 1000 logits, 512 outputs of small-conv, the pooled features of all
            others. A number makes the vector the output of a classifier; a pretrained classifier is kept if it has
            this many outputs.
        whole_pictures: the caller has pictures in their own proportions, so that encoders that read these may be built
            (see `networks.encoders.pictures`).

    Raises:
        UserError: unknown name or weights, an encoder that reads whole pictures where there are none, or weights that
            cannot be reached or do not match the network.
    """
    kind, _, rest = name.partition("/")
    if kind in ("positions", "eight-views") and rest:
        inner = partial(
            build_encoder, rest, weights, gradient_checkpointing=gradient_checkpointing, num_outputs=num_outputs
        )
        if kind == "positions":
            return positioned(inner(whole_pictures=whole_pictures), rest)
        return EightViews(encoder=inner())
    if reads_whole_pictures(name):
        return _of_whole_pictures(name, weights, whole_pictures)
    if name in EFFICIENTNETS:
        return _efficientnet(name, weights, num_outputs, gradient_checkpointing)
    if kind == "timm" and rest:
        return _timm(rest, weights, num_outputs, gradient_checkpointing)
    if kind == "torchvision" and rest.startswith("fasterrcnn"):
        from networks.encoders.detectors import build_detector

        return build_detector(rest, weights, gradient_checkpointing=gradient_checkpointing)
    if kind == "torchvision" and rest:
        return _torchvision(rest, weights, num_outputs, gradient_checkpointing)
    if name == "small-conv":
        encoder = SmallConvEncoder(num_outputs=num_outputs or 512, gradient_checkpointing=gradient_checkpointing)
        if weights is not None:
            load_file(encoder, weights, "a file of its own state dict")
        return encoder
    raise UserError(
        f"image encoder {name!r} is unknown; give efficientnet-b0 .. efficientnet-b7, timm/NAME, torchvision/NAME, "
        f"{GENOME}, {COLOURS} or small-conv"
    )


def _of_whole_pictures(name: str, weights: str | None, allowed: bool) -> ImageEncoder:
    """An encoder that reads whole pictures, where there are some."""
    if not allowed:
        raise UserError(
            f"image encoder {name!r} reads whole pictures, frozen: name it in data.init_args.encoder, so that its "
            f"regions are computed once ({GENOME} with encoder_weights: {PUBLISHED}), and set image_encoder to null"
        )
    return build_genome(name, weights) if name.startswith(GENOME) else build_colour_boxes(name, weights)


def reads_whole_pictures(name: str) -> bool:
    """Whether an encoder is a `networks.encoders.pictures.PictureEncoder`."""
    return name.removeprefix(PREFIX).partition("@")[0] in (GENOME, COLOURS)


def picture_shape(name: str, weights: str | None) -> tuple[int, int]:
    """Width and number of the regions of an encoder that reads whole pictures; nothing is downloaded."""
    plain = name.removeprefix(PREFIX)
    width, boxes = genome_shape(plain, weights) if plain.startswith(GENOME) else colour_shape(plain)
    return width + (WIDTH if name.startswith(PREFIX) else 0), boxes


def local_files(name: str, weights: str) -> list[Path]:
    """The files of this machine that weights consist of; none when they are known by name."""
    if Path(weights).is_file():
        return [Path(weights)]
    return genome_files(weights) if name.removeprefix(PREFIX).startswith(GENOME) else []


def _efficientnet(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> EfficientNetEncoder:
    """EfficientNet with dynamic padding: the library's default padding is right for one image size only."""
    network = EfficientNet.from_name(name, image_size=None)
    urls = {"advprop": efficientnet_utils.url_map_advprop, "imagenet": efficientnet_utils.url_map}
    if weights in urls:
        network.load_state_dict(_downloaded(urls[weights][name], weights, name))
    elif weights is not None:
        load_file(network, weights, '"advprop" or "imagenet"')
    if num_outputs not in (None, network._fc.out_features):
        network._fc = nn.Linear(network._fc.in_features, num_outputs)
    return EfficientNetEncoder(network=network, gradient_checkpointing=checkpointing)


def _downloaded(url: str, weights: str, name: str) -> dict[str, Tensor]:
    """A state dict from an address, kept in torch's cache.

    Raises:
        UserError: it cannot be reached, or the file in the cache is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    there = path.is_file()
    try:
        with asking(f"weights {weights!r} of {name!r}"):
            state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except UserError as error:
        if not path.is_file():
            raise
        # torch takes whatever came before the connection broke off for the file
        how = "is damaged" if there else "came incomplete or damaged"
        raise UserError(f"'{path}' {how}; remove it and start again, so that it is downloaded anew") from error
    return state


def _from_hub(name: str) -> nn.Module:
    """A timm network with its weights; those of the hub are compared with their digest."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id and not only_local():
        hub_weights(config.hf_hub_id)
    network: nn.Module = timm.create_model(name, pretrained=True)
    return network


def _timm(name: str, weights: str | None, num_outputs: int | None, checkpointing: bool) -> TimmEncoder:
    """A timm backbone, without its classifier unless outputs are asked for."""
    import timm  # a second, with what it imports in its turn; most commands need none of it

    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:8]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}; near: {near}")
    network: Any
    if weights == "pretrained":
        network = reached(weights, f"timm/{name}", lambda: _from_hub(name))
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
    import torchvision  # type: ignore[import-untyped]  # publishes no types

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
