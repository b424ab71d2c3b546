"""Pictures with what was said of them, in the loggers and as a figure in the run folder."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from core.batch import Batch
from datamodules.base import CaptionDataModule
from reporting.figures import caption_sheet


class CaptionSamples(Callback):
    """Shows some pictures of every evaluation, spread evenly over it, with the generated caption and a reference.

    Writes ``samples.png`` into the trainer's root folder, and the pictures with their captions to W&B and
    TensorBoard.

    Args:
        count: pictures shown.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self._pictures: list[np.ndarray[Any, np.dtype[np.float32]]] = []
        self._captions: list[str] = []
        self._references: list[str] = []

    def _take(self, trainer: Trainer, outputs: Any, batch: Batch, batch_idx: int, batches: float) -> None:
        """Takes this batch's part of the pictures, and what earlier batches, not all captioned, had too few of."""
        if not (isinstance(outputs, dict) and "captions" in outputs):
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule)
        transform = datamodule.transform
        rows = {image_id: row for row, image_id in enumerate(batch["image_id"])}
        said = list(zip(outputs["image_id"], outputs["captions"], strict=True))
        missing = math.ceil(self.count * min(1.0, (batch_idx + 1) / batches)) - len(self._pictures)
        chosen = min(missing, len(said))
        for image_id, caption in (said[place * len(said) // chosen] for place in range(chosen)):
            row = rows[image_id]
            if "image" in batch:
                tensor = batch["image"][row].detach().float().cpu()
            else:  # the model saw stored features
                tensor = transform(datamodule.image(image_id))
            picture = transform.denormalize(tensor).clamp(0, 1)
            self._pictures.append(picture.permute(1, 2, 0).numpy())
            self._captions.append(caption)
            self._references.append(next(iter(batch["references"][row]), ""))

    def _clear(self) -> None:
        self._pictures, self._captions, self._references = [], [], []

    def _show(self, trainer: Trainer, key: str) -> None:
        if not self._pictures or not trainer.is_global_zero or trainer.sanity_checking:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # single images, not a table: W&B keeps an offline table's pictures outside of the run folder
                logger.log_image(f"{key}/samples", self._pictures, trainer.global_step, caption=self._captions)
            elif isinstance(logger, TensorBoardLogger):
                stack = torch.from_numpy(np.stack(self._pictures))
                logger.experiment.add_images(f"{key}/samples", stack, trainer.global_step, dataformats="NHWC")
                logger.experiment.add_text(f"{key}/captions", "\n\n".join(self._captions), trainer.global_step)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            figure: Figure = caption_sheet(self._pictures, self._captions, self._references)
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / "samples.png", dpi=110)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the collection."""
        self._clear()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Empties the collection."""
        self._clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects pictures."""
        self._take(trainer, outputs, batch, batch_idx, sum(trainer.num_val_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects pictures."""
        self._take(trainer, outputs, batch, batch_idx, sum(trainer.num_test_batches))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows them."""
        self._show(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows them."""
        self._show(trainer, "test")
