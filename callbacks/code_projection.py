"""Codes of images and sentences in one plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, Stage, data_of, step_of, writes_files
from callbacks.pace import SHARE, Pace
from core.errors import UserError
from core.files import write_json
from core.spread import spread
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer
from lightning_modules.distillation import Distillation
from reporting.attention import seen_image
from reporting.dashboards import Cell, has_dashboard, log_figure, log_rows
from reporting.pictures import as_bytes, png_of, save_figure

_RETRIEVED = 3
"""Captions per image in ``retrieval.json``."""


class CodeProjection(EvaluationCallback):
    """Draws the codes of every validation or test in their first two principal components.

    Both are set to length 1 first, as retrieval by cosine sees them. Writes ``codes.png`` into the trainer's root
    folder and the figure to W&B and TensorBoard; and ``retrieval.json``, the captions nearest to some images.

    In training it works at the first and the last validation, and in between as `callbacks.pace` allows.

    Args:
        examples: number of images in ``retrieval.json``.
    """

    def __init__(self, *, examples: int = 10) -> None:
        self.examples = examples
        self.pace = Pace(SHARE)

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Draws."""
        if not isinstance(module, Distillation):
            raise UserError(f"CodeProjection draws the codes of Distillation, not of {type(module).__name__}")
        if trainer.sanity_checking or not trainer.is_global_zero or (codes := module.codes()) is None:
            return
        names, images, sentences = codes
        if min(len(images), len(sentences)) < 2:
            return
        from reporting.figures import code_sheet  # with the library that draws, for those who draw

        data = data_of(trainer)
        split = data.evaluation_split(stage)
        groups = data.classes(split)
        plane = principal_plane(F.normalize(torch.cat([images, sentences]).cpu(), dim=1)).numpy()
        points, texts = plane[: len(images)], plane[len(images) :]
        figure = code_sheet(points, texts, [groups.get(name, "") for name in names])
        drawn = png_of(figure)
        log_figure(trainer.loggers, f"{stage}/codes", drawn, step_of(trainer, module))
        if writes_files(trainer):
            folder = Path(trainer.default_root_dir)
            save_figure(drawn, folder, "codes")
            chosen = spread(names, self.examples)
            found = module.nearest_captions(chosen, _RETRIEVED)
            rows: list[dict[str, Any]] = [
                {"image_id": name, "retrieved": [_row(data.tokenizer, ids, own) for ids, own in captions]}
                for name, captions in zip(chosen, found, strict=True)
            ]
            write_json(folder / "retrieval.json", rows)
            self._send(trainer, rows, stage, step_of(trainer, module))

    def _send(self, trainer: Trainer, rows: Sequence[Mapping[str, Any]], stage: Stage, step: int) -> None:
        """Sends the captions that were found, each beside its image."""
        if not has_dashboard(trainer.loggers):
            return
        data = data_of(trainer)
        cells: list[list[Cell]] = []
        for row in rows:
            image = as_bytes(seen_image(data.transform, data.image(row["image_id"])))
            cells += [
                [row["image_id"], image, place + 1, found["caption"], "yes" if found["true"] else ""]
                for place, found in enumerate(row["retrieved"])
            ]
        columns = ["image_id", "image", "rank", "caption", "of this image"]
        log_rows(trainer.loggers, f"{stage}/retrieval", columns, cells, step)


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
