"""Codes of images and sentences in one plane."""

from pathlib import Path

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, Stage, data_of, writes_files
from core.errors import UserError
from core.files import write_json
from core.spread import spread
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer
from lightning_modules.distillation import Distillation
from reporting.figures import code_sheet, save_figure
from reporting.loggers import log_figure

_RETRIEVED = 3
"""Captions per image in ``retrieval.json``."""


class CodeProjection(EvaluationCallback):
    """Draws the codes of every validation or test in their first two principal components.

    Both are set to length 1 first, as retrieval by cosine sees them. Writes ``codes.png`` into the trainer's root
    folder and the figure to W&B and TensorBoard; and ``retrieval.json``, the captions nearest to some images.

    Args:
        examples: number of images in ``retrieval.json``.
    """

    def __init__(self, *, examples: int = 10) -> None:
        self.examples = examples

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
            folder = Path(trainer.default_root_dir)
            save_figure(figure, folder, "codes")
            chosen = spread(names, self.examples)
            found = module.nearest_captions(chosen, _RETRIEVED)
            rows = [
                {"image_id": name, "retrieved": [_row(data.tokenizer, ids, own) for ids, own in captions]}
                for name, captions in zip(chosen, found, strict=True)
            ]
            write_json(folder / "retrieval.json", rows)


def _row(tokenizer: WordTokenizer | BPETokenizer, ids: tuple[int, ...], own: bool) -> dict[str, str | bool]:
    return {"caption": tokenizer.decode(list(ids)), "true": own}


def principal_plane(codes: Tensor) -> Tensor:
    """First two principal components: `(N, D)` to `(N, 2)`; signs are such that the largest loading is positive."""
    centred = (codes - codes.mean(dim=0)).double()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    axes = directions[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    plane: Tensor = (centred @ axes.t()).float()
    return plane
