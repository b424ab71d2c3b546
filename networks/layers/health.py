"""Units that have stopped learning, found in what an optimiser keeps anyway."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_GONE = 1e-25
"""Adam's mean gradient of a unit that gets none falls below this within 500 steps."""


def dead_units(network: nn.Module, state: Mapping[Tensor, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Counts the units of linear and convolution layers that get no gradient any more, such as dead ReLUs.

    Nothing is run for it: a row of Adam's mean gradient that is zero belongs to a unit that no loss has reached
    for hundreds of steps. Embeddings are left out, since rare words are no dead units.

    Args:
        network: that is trained.
        state: state of the optimiser, as torch's optimisers have it; parameters without a mean gradient are left out.

    Returns:
        Layer to (dead units, all units), for layers that have dead ones.
    """
    found: dict[str, tuple[int, int]] = {}
    waiting: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) and isinstance(weight, Tensor):
            mean = state.get(weight, {}).get("exp_avg")
            if isinstance(mean, Tensor) and mean.dim() > 1:
                waiting[name] = (mean.flatten(1).abs().amax(dim=1) < _GONE).sum()
    if not waiting:
        return found
    # one look at the GPU for all layers
    counts = torch.stack([count.float() for count in waiting.values()]).tolist()
    for (name, _), count in zip(waiting.items(), counts, strict=True):
        if count:
            weight = network.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            found[name] = (int(count), len(weight))
    return found
