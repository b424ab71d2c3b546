"""Codes of images and sentences in one plane."""

from pathlib import Path

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, Stage, data_of, writes_files
from core.errors import UserError
from lightning_modules.distillation import Distillation
from reporting.figures import code_sheet, save_figure
from reporting.loggers import log_figure


class CodeProjection(EvaluationCallback):
    """Draws the codes of every validation or test in their first two principal components.

    Both are set to length 1 first, as retrieval by cosine sees them. Writes ``codes.png`` into the trainer's root
    folder and the figure to W&B and TensorBoard.
    """

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Draws."""
        if not isinstance(module, Distillation):
            raise UserError(f"CodeProjection draws the codes of Distillation, not of {type(module).__name__}")
        if trainer.sanity_checking or not trainer.is_global_zero or (codes := module.codes()) is None:
            return
        names, images, sentences = codes
        if min(len(images), len(sentences)) < 2:
            return
        data = data_of(trainer)
        split = data.evaluation_split(stage)
        groups = data.classes(split)
        plane = principal_plane(F.normalize(torch.cat([images, sentences]).cpu(), dim=1)).numpy()
        points, texts = plane[: len(images)], plane[len(images) :]
        figure = code_sheet(points, texts, [groups.get(name, "") for name in names])
        log_figure(trainer.loggers, f"{stage}/codes", figure, trainer.global_step)
        if writes_files(trainer):
            save_figure(figure, Path(trainer.default_root_dir), "codes")


def principal_plane(codes: Tensor) -> Tensor:
    """First two principal components: `(N, D)` to `(N, 2)`; signs are such that the largest loading is positive."""
    centred = (codes - codes.mean(dim=0)).double()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    axes = directions[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    plane: Tensor = (centred @ axes.t()).float()
    return plane
