"""Codes of images and sentences in one plane."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from core.errors import UserError
from lightning_modules.distillation import Distillation

Points = np.ndarray[Any, np.dtype[np.float32]]


class CodeProjection(Callback):
    """Draws the codes of every validation or test in their first two principal components.

    Both are set to length 1 first, as retrieval by cosine sees them. Writes ``codes.png`` into the trainer's root
    folder and the figure to W&B and TensorBoard.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if not isinstance(module, Distillation):
            raise UserError(f"CodeProjection draws the codes of Distillation, not of {type(module).__name__}")
        if trainer.sanity_checking or not trainer.is_global_zero or (codes := module.codes()) is None:
            return
        names, images, sentences = codes
        if min(len(images), len(sentences)) < 2:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        split = datamodule.evaluation_split(stage)
        groups = datamodule.classes(split)
        plane = principal_plane(F.normalize(torch.cat([images, sentences]).cpu(), dim=1)).numpy()
        points, texts = plane[: len(images)], plane[len(images) :]
        figure = code_sheet(points, texts, [groups.get(name, "") for name in names])
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{stage}/codes", [figure], trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(f"{stage}/codes", figure, trainer.global_step)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / "codes.png", dpi=110)


def principal_plane(codes: Tensor) -> Tensor:
    """First two principal components: `(N, D)` to `(N, 2)`; signs are such that the largest loading is positive."""
    centred = (codes - codes.mean(dim=0)).double()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    axes = directions[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    plane: Tensor = (centred @ axes.t()).float()
    return plane


def code_sheet(images: Points, sentences: Points, groups: list[str]) -> Figure:
    """Draws images as crosses, coloured by their classes where these are known, and sentences as grey dots.

    Args:
        images: `(n, 2)`.
        sentences: `(m, 2)`.
        groups: class of each image, or empty texts.
    """
    figure = Figure(figsize=(8.5, 6.5), layout="constrained")
    axis = figure.subplots()
    axis.scatter(sentences[:, 0], sentences[:, 1], s=14, color="0.75", label="sentences", linewidths=0)
    names = sorted(set(groups))
    tab20 = colormaps["tab20"]
    for place, name in enumerate(names):
        rows = np.array([group == name for group in groups])
        own, colour = images[rows], tab20((place % 20 + 0.5) / 20)
        marker = "x+1"[place // 20 % 3]
        axis.scatter(own[:, 0], own[:, 1], s=34, color=colour, marker=marker, label=name or "images")
    axis.set(xlabel="first component", ylabel="second component", title="images (crosses) and sentences (dots)")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
