"""Writing what a model said of every picture: captions as COCO results JSON, or probabilities of labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from core.files import write_json
from datamodules.base import CaptionDataModule
from datamodules.readers.records import Example, Split

T = TypeVar("T")


class PredictionWriter(Callback):
    """Writes ``predictions.json`` into the trainer's root folder.

    Captioners: `[{"image_id", "caption"}, ...]`; label methods:
    `[{"image_id", "probabilities": {label: probability, ...}}, ...]`, six decimals. What rewrites captions instead of
    describing pictures names caption k of an image ``ID/k``; that goes to ``reconstructions.json``, as
    `[{"image_id", "original", "reconstruction"}, ...]`.

    After each validation the file holds what that validation said; `test` and `predict` write to their own folder. Ids
    keep the type they have in the data set. Under DDP the predictions of all ranks are gathered. In prediction it
    stands back for a callback whose class says ``writes_predictions = True``.
    """

    def __init__(self) -> None:
        self.captions: dict[str, str] = {}
        """Captions of the last finished evaluation, by image id as text; complete on every rank."""
        self.probabilities: dict[str, list[float]] = {}
        """Probabilities of the labels, likewise."""

    def _start(self, trainer: Trainer) -> None:
        del trainer
        self.captions, self.probabilities = {}, {}

    def _take(self, outputs: Any) -> None:
        if not isinstance(outputs, dict):
            return
        if "captions" in outputs:
            self.captions.update(zip(outputs["image_id"], outputs["captions"], strict=True))
        if isinstance(rows := outputs.get("probabilities"), Tensor):
            self.probabilities.update(zip(outputs["image_id"], rows.float().tolist(), strict=True))

    def _finish(self, trainer: Trainer, split: Split) -> None:
        self.captions = gather_dict(self.captions, trainer.world_size)
        self.probabilities = gather_dict(self.probabilities, trainer.world_size)
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule)
        split = datamodule.evaluation_split(split)
        examples = datamodule.examples(split)
        path = Path(trainer.default_root_dir) / "predictions.json"
        if self.probabilities:
            known_labels = getattr(trainer.lightning_module, "inference", {}).get("label_names", ())
            # images that are to be labelled bring no names
            names: Sequence[str] = datamodule.label_names or known_labels
            write_json(path, [_labelled(e.image_id, names, row) for e, row in known(examples, self.probabilities)])
        elif rewritten := _rewritten(examples, self.captions):
            write_json(path.with_name("reconstructions.json"), rewritten)
        else:
            captions = known(examples, self.captions)
            write_json(path, [{"image_id": e.image_id, "caption": caption} for e, caption in captions])

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation."""
        self._start(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation."""
        self._start(trainer)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation."""
        self._start(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects what was said."""
        self._take(outputs)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects what was said."""
        self._take(outputs)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects what was said."""
        if not _another_writes(trainer):
            self._take(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._finish(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._finish(trainer, "test")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        if not _another_writes(trainer):
            self._finish(trainer, "test")


def _another_writes(trainer: Trainer) -> bool:
    return any(getattr(item, "writes_predictions", False) for item in trainer.callbacks)  # type: ignore[attr-defined]  # Trainer sets it at run time


def known(examples: Sequence[Example], values: Mapping[str, T]) -> list[tuple[Example, T]]:
    """The examples that something is known of, in their order, with it."""
    return [(e, values[str(e.image_id)]) for e in examples if str(e.image_id) in values]


def _rewritten(examples: Sequence[Example], captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every caption beside what became of it; empty when pictures were captioned."""
    return [
        {"image_id": e.image_id, "original": text, "reconstruction": captions[f"{e.image_id}/{number}"]}
        for e in examples
        for number, text in enumerate(e.captions)
        if f"{e.image_id}/{number}" in captions
    ]


def _labelled(image_id: str | int, names: Sequence[str], row: Sequence[float]) -> dict[str, Any]:
    probabilities = {name: round(value, 6) for name, value in zip(names, row, strict=True)}
    return {"image_id": image_id, "probabilities": probabilities}


def gather_dict(values: dict[str, T], world_size: int) -> dict[str, T]:
    """Merges the dicts of all ranks; the same on every rank."""
    if world_size == 1:
        return values
    parts: list[dict[str, T]] = [{} for _ in range(world_size)]
    torch.distributed.all_gather_object(parts, values)
    return {key: value for part in parts for key, value in part.items()}
