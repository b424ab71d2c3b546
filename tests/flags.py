"""A few steps of a method with a trainer's flags, for tests of what the flags do.

python -m tests.flags   # the table of losses in docs/gpu.md
"""

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision

from datamodules.base import CaptionDataModule
from lightning_modules import Distillation, TextAutoencoding
from lightning_modules.base import BaseModule
from tests.flag_table import row_of
from tests.twins import Case, cases, make_data, saved_and_loaded


class CPUHalf(MixedPrecision):
    """Half precision with a real loss scaler on the CPU, where Lightning itself falls back to bf16.

    Attributes:
        scales: of the loss before every step; it falls at an overflow.
    """

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        self.scales: list[float] = []

    def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:
        """Notes the scale."""
        assert self.scaler is not None
        self.scales.append(self.scaler.get_scale())
        result = super().optimizer_step(optimizer, model, closure, **kwargs)
        self.scales.append(self.scaler.get_scale())
        return result


@dataclass
class Steps(Callback):
    """What happened in a short run.

    Attributes:
        losses: of every batch.
        values: what was logged in validation.
    """

    losses: list[float] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Takes the loss of a batch; Lightning has divided it by the batches of a step."""
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Takes the figures of the whole split."""
        self.values = {name: float(value) for name, value in trainer.callback_metrics.items() if "val/" in name}


def fit(module: BaseModule, data: CaptionDataModule, folder: Path, *, epochs: int = 3, **trainer: Any) -> Steps:
    """Trains a module for some epochs."""
    steps = Steps()
    settings = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "use_distributed_sampler": False,
    }
    Trainer(**{**settings, **trainer, "callbacks": [steps, *trainer.get("callbacks", [])]}).fit(module, datamodule=data)
    return steps


def needed(case: Case, data: CaptionDataModule, folder: Path) -> dict[str, Any]:
    """Options without which a case does not train: the text autoencoder of a distillation."""
    if case.method is not Distillation:
        return {}
    torch.manual_seed(1)
    shared = {name: value for name, value in case.options.items() if name in ("word_dim", "hidden_dim")}
    module = TextAutoencoding.for_data(data, **shared)
    module.inference = {"method": module.method, **data.describe()}
    path = folder / "text_autoencoder.ckpt"
    saved_and_loaded(module, path)
    return {"text_from": str(path)}


def of_options(case: Case, data: CaptionDataModule, **options: Any) -> BaseModule:
    """The module of a case with other options."""
    changed = Case(case.twin, case.method, {**case.options, **options}, case.data)
    return changed.make(data)


TOLERANCE = 2e-2
"""Of losses in mixed precision, relative to float32; the largest that was measured is 0.7 %."""
LEARNING = {"warmup_steps": 0, "schedule": "constant"}


def faster(case: Case) -> dict[str, Any]:
    """Options with which eight steps show in the loss."""
    rate = (
        {"lr": case.options["lr"]}
        if case.options.get("architecture") == "text"
        else {"lr": 5e-3, "lr_pretrained": 5e-3}
    )
    return {**LEARNING, **rate}


def losses_in(precision: str, case: Case, data: CaptionDataModule, folder: Path) -> tuple[list[float], list[float]]:
    """Losses of eight steps of a case, and the scales of the loss before and after each in float16.

    Args:
        precision: ``32-true``, ``bf16-mixed``, or ``16-mixed`` with a real loss scaler.
        case: what is trained.
        data: for it.
        folder: for what it needs.
    """
    module = of_options(case, data, **faster(case), **needed(case, data, folder))
    half = CPUHalf() if precision == "16-mixed" else None
    settings: dict[str, Any] = {"precision": precision} if half is None else {"plugins": [half]}
    steps = fit(module, data, folder, epochs=4, limit_val_batches=0, gradient_clip_val=1.0, **settings)
    return steps.losses, [] if half is None else half.scales


def main() -> None:
    """Prints the table of docs/gpu.md."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAPTION_CACHE"] = folder
        for case in cases():
            if not case.variant:
                data = make_data(case.data, captions_per_image=2)
                found = [losses_in(name, case, data, Path(folder)) for name in ("32-true", "16-mixed", "bf16-mixed")]
                row = " | ".join(f"{losses[-1]:.4f}" for losses, _ in found)
                print(f"| {row_of(case)} | {found[0][0][0]:.4f} | {row} | {len(set(found[1][1])) - 1} |")  # noqa: T201


if __name__ == "__main__":
    main()
