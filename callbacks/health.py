"""Collapse while it happens: a line in the terminal, a mark in the run's report and in the dashboards."""

import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, data_of, step_of, writes_files
from callbacks.predictions import PredictionWriter, known, rewritten
from core.batch import Batch
from core.text import say
from datamodules.pseudo_labels import PseudoLabels
from lightning_modules.captioning import CaptioningModule
from lightning_modules.classification import ClassificationModule
from lightning_modules.parts.sharding import shards_weights
from metrics.attention_health import signs_of_idle_attention
from metrics.caption_statistics import caption_statistics, signs_of_collapse
from metrics.label_health import signs_of_label_collapse
from networks.layers.health import dead_units
from reporting.attention import batch_maps
from reporting.dashboards import log_warning
from reporting.health_notes import Note, read_notes, write_notes

_IMAGES = 8
"""Images whose attention is looked at."""
_PREDICTED = 2000
"""Predicted images that are looked at."""
_STEPS = 100
"""Optimiser steps from which on signs in validations of training count: every captioner begins with one caption."""
_DEAD = 0.5
"""Share of a layer's units from which on it is named."""
_EXPLODED = 100.0
"""A gradient norm this many times the median of those before has exploded."""
_MEDIAN_OF, _LEAST = 50, 5


class HealthWatch(EvaluationCallback):
    """Looks for signs that a run has collapsed and says so once for each kind of sign.

    In training a sign counts when two validations in a row have it, both after 100 steps. When the last validation of a
    run was earlier, its signs are told at the end. Looked at are: captions (all alike, empty, of one word),
    probabilities of labels (the same for all images), attention of a few images (uniform, or the same everywhere),
    units that get no gradient, and the norm of the gradients, which is also logged as ``train/grad_norm``;
    pseudo-labels as their audit finds them.

    Signs go to the terminal, to ``health.json`` in the run folder, which the report shows, and to W&B and TensorBoard.
    """

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._before: set[str] = set()  # kinds of signs of the validation before
        self._early: list[tuple[int, str, str]] = []  # step, kind and sign of a last validation too early to count
        self._maps: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._norms: deque[float] = deque(maxlen=_MEDIAN_OF)

    # training

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over what a run has noted before it was interrupted; looks at pseudo-labels."""
        folder = Path(trainer.default_root_dir)
        if not writes_files(trainer):
            return
        self.notes = [note for note in read_notes(folder) if note["step"] <= trainer.global_step]
        data = data_of(trainer)
        if isinstance(data, PseudoLabels):
            for reason in data.audit.reasons:  # the data module has printed them
                self._note(trainer, trainer.global_step, "pseudo-labels", reason, told=True)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measures the gradients of the steps that are logged, before they are clipped."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]  # set at run time
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        divided = shards_weights(trainer)  # then a process may have none of them, or a share
        if not gradients and not divided:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        if divided:
            whole = norm.square().to(pl_module.device)
            norm = trainer.strategy.reduce(whole, reduce_op="sum").sqrt()
        pl_module.log("train/grad_norm", norm, batch_size=1)
        self._judge(trainer, float(norm))

    def _judge(self, trainer: Trainer, norm: float) -> None:
        median = statistics.median(self._norms) if len(self._norms) >= _LEAST else None
        scaled = trainer.precision == "16-mixed"  # its scaler skips steps whose gradients are not finite
        if norm != norm or norm == float("inf"):
            if not scaled:
                self._note(trainer, trainer.global_step, "gradients", f"the gradient norm is {norm}")
            return
        if median is not None and norm > _EXPLODED * median:
            sign = f"the gradient norm is {norm:.3g}, the median before was {median:.3g}"
            self._note(trainer, trainer.global_step, "gradients", sign)
            return  # it does not belong to the median
        self._norms.append(norm)

    # evaluations

    def start(self) -> None:
        """Forgets the maps of the last evaluation."""
        self._maps = []

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Looks at the attention of the first images."""
        del place, batches
        if trainer.sanity_checking or not trainer.is_global_zero or self._maps or not _attends(module):
            return
        if shards_weights(trainer):  # one process alone cannot compute with them
            return
        assert isinstance(module, CaptioningModule)
        ids, captions = outputs["image_id"][:_IMAGES], outputs["captions"][:_IMAGES]
        if ids:
            rows = [batch["image_id"].index(image_id) for image_id in ids]
            found = batch_maps(module, batch, rows, captions, data_of(trainer).tokenizer)
            self._maps = [maps.flatten(1) for _, maps in found if len(maps)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the validation gave."""
        if trainer.sanity_checking or not writes_files(trainer):
            return
        signs = self._signs(trainer, pl_module, "val")
        if trainer.state.fn == "fit":
            signs += _unit_signs(trainer, pl_module)
            early = trainer.global_step < _STEPS
            self._early = [(trainer.global_step, *found) for found in signs] if early else []
            signs = [] if early else signs
            now = {kind for kind, _ in signs}
            signs = [(kind, sign) for kind, sign in signs if kind in self._before]
            self._before = now
        for kind, sign in signs:
            self._note(trainer, step_of(trainer, pl_module), kind, sign)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of a last validation that was too early to count before: it is what the run has come to."""
        for step, kind, sign in self._early:
            self._note(trainer, step, kind, sign)
        self._early = []

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the test gave."""
        if writes_files(trainer):
            for kind, sign in self._signs(trainer, pl_module, "test"):
                self._note(trainer, step_of(trainer, pl_module), kind, sign)

    def _signs(self, trainer: Trainer, module: LightningModule, stage: Any) -> list[tuple[str, str]]:
        """Kinds and signs of the evaluation that has just ended."""
        data = data_of(trainer)
        examples = data.examples(data.evaluation_split(stage))
        writer = next((item for item in trainer.callbacks if isinstance(item, PredictionWriter)), None)  # type: ignore[attr-defined]  # Trainer sets it at run time
        signs: list[tuple[str, Sequence[str]]] = [("attention", signs_of_idle_attention(self._maps))]
        if writer is not None and writer.captions:
            rows = rewritten(examples, writer.captions)
            captioned = known(examples, writer.captions)
            own = [row["reconstruction"] for row in rows] or [caption for _, caption in captioned]
            first = [row["original"] for row in rows] or [e.captions[0] for e, _ in captioned if e.captions]
            references = caption_statistics(first) if first else None
            signs.append(("captions", signs_of_collapse(caption_statistics(own), references)))
        labelled = known(examples, writer.probabilities) if writer is not None else []
        if labelled and isinstance(module, ClassificationModule):
            probabilities = [row for _, row in labelled]
            signs.append(("labels", signs_of_label_collapse(probabilities, module.inference["label_names"])))
        return [(kind, sign) for kind, found in signs for sign in found]

    # predictions, such as pseudo-labels

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the first probabilities."""
        rows = outputs.get("probabilities") if isinstance(outputs, dict) else None
        if isinstance(rows, Tensor) and sum(map(len, self._predicted)) < _PREDICTED:
            self._predicted.append(rows.detach().float().cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the labels that were predicted."""
        if self._predicted and isinstance(pl_module, ClassificationModule) and writes_files(trainer):
            names = pl_module.inference["label_names"]
            for sign in signs_of_label_collapse(torch.cat(self._predicted).numpy(), names):
                self._note(trainer, pl_module.trained_steps, "labels", sign)
        self._predicted = []

    def _note(self, trainer: Trainer, step: int, kind: str, sign: str, *, told: bool = False) -> None:
        """Tells of a sign, if it is the first of its kind."""
        if not writes_files(trainer) or any(note["kind"] == kind for note in self.notes):
            return
        self.notes.append(Note(step=step, kind=kind, sign=sign))
        if not told:
            say(f"health: {kind}, step {step}: {sign}", err=True)
        log_warning(trainer.loggers, kind, sign, step)
        write_notes(Path(trainer.default_root_dir), self.notes)


def _attends(module: LightningModule) -> bool:
    """Whether there is attention that could be other than it is: uniform attention is an option, too."""
    attends = isinstance(module, CaptioningModule) and module.captioner.attends
    return attends and module.hparams.get("attention") != "uniform"


def _unit_signs(trainer: Trainer, module: LightningModule) -> list[tuple[str, str]]:
    """Layers most of whose units get no gradient."""
    dead: dict[str, tuple[int, int]] = {}
    if shards_weights(trainer):
        return []
    for optimizer in trainer.optimizers:
        dead |= dead_units(module, optimizer.state)
    found = {name: counts for name, counts in dead.items() if counts[0] >= _DEAD * counts[1]}
    if not found:
        return []
    name, (gone, total) = max(found.items(), key=lambda item: item[1][0] / item[1][1])
    more = f" (and in {len(found) - 1} more layers)" if len(found) > 1 else ""
    return [("units", f"{gone} of {total} units of '{name}' get no gradient{more}")]
