"""Writing the predictions for every image: captions as COCO results JSON, or probabilities of labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, Stage, data_of, writes_files
from callbacks.pseudo_labels import PseudoLabelWriter, model_labels
from core.files import write_json
from datamodules.readers.records import Example

T = TypeVar("T")


class PredictionWriter(EvaluationCallback):
    """Writes ``predictions.json`` into the trainer's root folder.

    Captioners: `[{"image_id", "caption"}, ...]`; label methods:
    `[{"image_id", "probabilities": {label: probability, ...}}, ...]`, six decimals. A text autoencoder, which rewrites
    captions, names caption k of an image ``ID/k``; these go to ``reconstructions.json``, as
    `[{"image_id", "original", "reconstruction"}, ...]`.

    After each validation the file holds the predictions of that validation; `test` and `predict` write to their own
    folder. Ids keep the type they have in the data set. Under DDP the predictions of all ranks are gathered. In
    prediction nothing is written when a `PseudoLabelWriter` does it.
    """

    def __init__(self) -> None:
        self.captions: dict[str, str] = {}
        """Captions of the last finished evaluation, by image id as text; complete on every rank."""
        self.probabilities: dict[str, list[float]] = {}
        """Probabilities of the labels, likewise."""

    def start(self) -> None:
        """Forgets the last evaluation."""
        self.captions, self.probabilities = {}, {}

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *, place: int, batches: float
    ) -> None:
        """Collects captions or probabilities."""
        del trainer, module, batch, place, batches
        self._collect(outputs)

    def _collect(self, outputs: Any) -> None:
        if not isinstance(outputs, dict):
            return
        if "captions" in outputs:
            self.captions.update(zip(outputs["image_id"], outputs["captions"], strict=True))
        if isinstance(rows := outputs.get("probabilities"), Tensor):
            self.probabilities.update(zip(outputs["image_id"], rows.float().tolist(), strict=True))

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Writes the file."""
        self.captions = gather_dict(self.captions, trainer.world_size)
        self.probabilities = gather_dict(self.probabilities, trainer.world_size)
        if not writes_files(trainer):
            return
        data = data_of(trainer)
        examples = data.examples(data.evaluation_split(stage))
        path = Path(trainer.default_root_dir) / "predictions.json"
        if self.probabilities:
            # images to be labelled come without names of labels
            names: Sequence[str] = data.label_names or model_labels(module)
            write_json(path, [_labelled(e.image_id, names, row) for e, row in known(examples, self.probabilities)])
        elif rows := rewritten(examples, self.captions):
            write_json(path.with_name("reconstructions.json"), rows)
        else:
            captions = known(examples, self.captions)
            write_json(path, [{"image_id": e.image_id, "caption": caption} for e, caption in captions])

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects captions or probabilities."""
        if not _another_writes(trainer):
            self._collect(outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        if not _another_writes(trainer):
            self.finish(trainer, pl_module, "test")


def _another_writes(trainer: Trainer) -> bool:
    return any(isinstance(item, PseudoLabelWriter) for item in trainer.callbacks)  # type: ignore[attr-defined]  # Trainer sets it at run time


def known(examples: Sequence[Example], values: Mapping[str, T]) -> list[tuple[Example, T]]:
    """The examples that have a value, in their order, with it."""
    return [(e, values[str(e.image_id)]) for e in examples if str(e.image_id) in values]


def rewritten(examples: Sequence[Example], captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every caption beside its reconstruction; empty when images were captioned."""
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
