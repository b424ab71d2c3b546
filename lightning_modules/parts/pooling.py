"""Finding the directions of covariance pooling when a run starts."""

from collections.abc import Callable

import torch
from torch import nn

from core.batch import Batch
from datamodules.base import CaptionDataModule
from networks.layers.pooling import CovariancePooling

IMAGES = 4000
"""Training images used at most, evenly spread, so that a large data set costs no more than a small one."""


@torch.no_grad()
def fit_pooling(
    module: nn.Module, forward: Callable[[Batch], object], data: CaptionDataModule, device: torch.device
) -> None:
    """Fits every `CovariancePooling` that has no directions yet on training images.

    Args:
        module: with such layers or without; its modes and torch's random state are left as they were.
        forward: passes a batch through them.
        data: whose training split is taken, the same on every rank.
        device: device of the module.

    Raises:
        UserError: see `CovariancePooling.finish_fit`.
    """
    layers = [part for part in module.modules() if isinstance(part, CovariancePooling) and not bool(part.fitted)]
    if not layers:
        return
    modes = {part: part.training for part in module.modules()}
    module.eval()
    for layer in layers:
        layer.start_fit()
    with torch.random.fork_rng(devices=[]):
        for batch in data.plain_train_dataloader(IMAGES):
            for key in ("image", "features", "feature_mask"):
                if key in batch:
                    batch[key] = batch[key].to(device)
            forward(batch)
    for layer in layers:
        layer.finish_fit()
    for part, training in modes.items():
        part.training = training
