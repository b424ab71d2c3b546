"""Which parameters of a CNN there are to be trained."""

import copy

import torch

from networks.encoders.build import ImageEncoder

_GHOST_SIZE = 224
"""Pixels a side that every CNN takes."""


def parameters_of_map(encoder: ImageEncoder) -> tuple[str, ...]:
    """Names of the parameters that make the map of a CNN: all but those of its pooling and classifier.

    The others never get a gradient here, and several processes would wait for it.
    """
    ghost = copy.deepcopy(encoder).to("meta").eval().requires_grad_(True)
    names, parameters = zip(*ghost.named_parameters(), strict=True)
    with torch.enable_grad():
        total = ghost.grid(torch.empty(1, 3, _GHOST_SIZE, _GHOST_SIZE, device="meta")).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return tuple(name for name, gradient in zip(names, gradients, strict=True) if gradient is not None)
