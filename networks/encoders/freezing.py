"""Which parameters of an image encoder can be trained through its feature map."""

import copy

import torch

from networks.encoders.base import ImageEncoder

_GHOST_SIZE = 224
"""Pixels a side that every encoder accepts."""


def parameters_of_map(encoder: ImageEncoder) -> tuple[str, ...]:
    """Names of the parameters that the feature map depends on: all but those of pooling and classifier.

    The others get no gradient when only the map is used, and distributed training would wait for one.
    """
    ghost = copy.deepcopy(encoder).to("meta").eval().requires_grad_(True)
    names, parameters = zip(*ghost.named_parameters(), strict=True)
    with torch.enable_grad():
        total = ghost.grid(torch.empty(1, 3, _GHOST_SIZE, _GHOST_SIZE, device="meta")).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return tuple(name for name, gradient in zip(names, gradients, strict=True) if gradient is not None)


def train_only_map(encoder: ImageEncoder) -> None:
    """Turns gradients on for the parameters of `parameters_of_map` and off for all others."""
    of_map = set(parameters_of_map(encoder))
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name in of_map)
