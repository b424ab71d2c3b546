"""How fast a run is, and whether it waits for its data."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from core.batch import Batch
from networks.layers.sequences import on_host


class Throughput(Callback):
    """Logs images, captions and real tokens per second of this process.

    Also the share of time spent waiting for data and the peak memory on CUDA.

    Args:
        every_n_steps: batches that one value covers; all of a shorter epoch.
    """

    def __init__(self, *, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._logged = False  # in this epoch
        self._reset()

    def _reset(self) -> None:
        self._start = self._batch_end = time.perf_counter()
        self._waited = 0.0
        self._batches = self._images = self._captions = self._tokens = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Excludes validation and the start-up of the loader."""
        self._logged = False
        self._reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Counts the time since the last batch ended as waiting."""
        self._waited += time.perf_counter() - self._batch_end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Counts, and logs when a window is full."""
        self._batch_end = time.perf_counter()
        self._batches += 1
        self._images += len(batch.get("image_id", []))
        if "caption_lengths" in batch:
            lengths = on_host(batch["caption_lengths"])
            self._captions += len(lengths)
            self._tokens += sum(lengths) - len(lengths)  # BOS is never a target
        if self._batches < self.every_n_steps and (self._logged or not trainer.is_last_batch):
            return
        self._logged = True
        seconds = self._batch_end - self._start
        values = {
            "throughput/images_per_s": self._images / seconds,
            "throughput/captions_per_s": self._captions / seconds,
            "throughput/tokens_per_s": self._tokens / seconds,
            "throughput/data_time_share": self._waited / seconds,
        }
        if pl_module.device.type == "cuda":
            values["throughput/peak_memory_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)  # steps are counted from 0 in logs
        self._reset()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation in mid-epoch does not count as waiting."""
        self._reset()
