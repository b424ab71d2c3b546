"""Images with their generated captions, in the loggers and as a figure in the run folder."""

import math
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from callbacks.evaluation import EvaluationCallback, Stage, data_of, writes_files
from core.batch import Batch
from core.spread import spread
from reporting.figures import ImageArray, caption_sheet, save_figure
from reporting.loggers import log_captioned_images


class CaptionSamples(EvaluationCallback):
    """Shows some images of every evaluation, spread evenly over it, with the generated caption and a reference.

    Writes ``samples.png`` into the trainer's root folder, and the images with their captions to W&B and TensorBoard.

    Args:
        count: images shown.
    """

    def __init__(self, *, count: int = 8) -> None:
        self.count = count
        self._images: list[ImageArray] = []
        self._captions: list[str] = []
        self._references: list[str] = []

    def start(self) -> None:
        """Empties the collection."""
        self._images, self._captions, self._references = [], [], []

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Takes this batch's share of the images, and what earlier batches, not all captioned, had too few of."""
        if not (isinstance(outputs, dict) and "captions" in outputs):
            return
        data = data_of(trainer)
        rows = {image_id: row for row, image_id in enumerate(batch["image_id"])}
        # a text autoencoder writes captions of captions, whose ids are of no image
        captioned = [pair for pair in zip(outputs["image_id"], outputs["captions"], strict=True) if pair[0] in rows]
        missing = math.ceil(self.count * min(1.0, (place + 1) / batches)) - len(self._images)
        for image_id, caption in spread(captioned, max(0, missing)):
            row = rows[image_id]
            if "image" in batch:
                tensor = batch["image"][row].detach().float().cpu()
            else:  # the model saw stored features
                tensor = data.transform(data.image(image_id))
            image = data.transform.denormalize(tensor).clamp(0, 1)
            self._images.append(image.permute(1, 2, 0).numpy())
            self._captions.append(caption)
            self._references.append(next(iter(batch["references"][row]), ""))

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Shows them."""
        if not self._images or not trainer.is_global_zero or trainer.sanity_checking:
            return
        log_captioned_images(trainer.loggers, stage, self._images, self._captions, trainer.global_step)
        if writes_files(trainer):
            figure = caption_sheet(self._images, self._captions, self._references)
            save_figure(figure, Path(trainer.default_root_dir), "samples")
