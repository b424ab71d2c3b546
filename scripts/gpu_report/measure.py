"""One short training run: losses, speed, memory, overflows."""

import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from core.batch import Batch
from datamodules.base import CaptionDataModule
from lightning_modules.base import BaseModule
from lightning_modules.captioning import CaptioningModule
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings

_MIB = 2**20
_WARM = 2
"""Steps that are not timed: kernels are chosen and memory is taken in them."""


@dataclass
class Arm:
    """What one run has shown.

    Attributes:
        losses: losses of every step.
        seconds: seconds of every timed step, with the wait for its batch.
        waits: waits of every timed step, for its batch.
        images: images of the timed steps.
        captions: captions of the timed steps.
        memory: most memory that tensors took, MiB; on a CPU: what was kept for the backward pass of the largest step.
        overflows: steps that the loss scaler skipped.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    images: int = 0
    captions: int = 0
    memory: float = math.nan
    overflows: int = 0

    @property
    def step_ms(self) -> float:
        """Median time of a step, milliseconds."""
        return 1000 * statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def images_per_second(self) -> float:
        """Images by all of the time."""
        return self.images / sum(self.seconds) if self.seconds else math.nan

    @property
    def captions_per_second(self) -> float:
        """Captions by all of the time."""
        return self.captions / sum(self.seconds) if self.seconds else math.nan

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return sum(self.waits) / sum(self.seconds) if self.seconds else math.nan


class Watch(Callback):
    """Fills an `Arm`."""

    def __init__(self) -> None:
        self.arm = Arm()
        self._ended = self._began = 0.0
        self._kept: dict[int, int] = {}
        self._hooks: Any = None
        self._scale: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the counters."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._ended = _now(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """The batch is there."""
        self._began = _now(pl_module)
        self._scale = _scale_of(trainer)
        if pl_module.device.type != "cuda":
            self._kept.clear()
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
            self._hooks.__enter__()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """All that is kept is there."""
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None
            before = 0.0 if math.isnan(self.arm.memory) else self.arm.memory
            self.arm.memory = max(before, sum(self._kept.values()) / _MIB)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Takes loss and times."""
        now = _now(pl_module)
        self.arm.losses.append(float(outputs["loss"]))
        scale = _scale_of(trainer)
        self.arm.overflows += scale is not None and self._scale is not None and scale < self._scale
        if len(self.arm.losses) > _WARM:
            self.arm.seconds.append(now - self._ended)
            self.arm.waits.append(self._began - self._ended)
            self.arm.images += len(batch["image_id"])
            self.arm.captions += len(batch.get("caption_lengths", []))
        self._ended = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the memory."""
        if pl_module.device.type == "cuda":
            self.arm.memory = torch.cuda.max_memory_allocated(pl_module.device) / _MIB

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._kept[storage.data_ptr()] = storage.nbytes()
        return tensor


def _now(module: LightningModule) -> float:
    """The time when the device has done all of its work."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


def _scale_of(trainer: Trainer) -> float | None:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def train(
    module: BaseModule, data: CaptionDataModule, folder: Path, *, device: str, steps: int, precision: str = "32-true"
) -> Arm:
    """Trains for some steps on one device."""
    watch = Watch()
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]  # one of Lightning's names
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    return watch.arm


@torch.no_grad()
def beam_ms(module: BaseModule, data: CaptionDataModule, device: str, beams: int, tokens: int) -> float:
    """Time of the beam search for a picture, encoding included, milliseconds; NaN for a method that writes nothing."""
    if not isinstance(module, CaptioningModule):
        return math.nan
    module = module.to(device).eval()
    batch = data.transfer_batch_to_device(next(iter(data.test_dataloader())), torch.device(device), 0)
    times = []
    for _ in range(2):
        start = _now(module)
        decode(module.captioner, module.captioner.encode(batch), DecodingSettings(beams=beams, max_tokens=tokens))
        times.append(_now(module) - start)
    return 1000 * min(times) / len(batch["image_id"])
