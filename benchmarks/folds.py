"""What the benchmarks with held-out folds share."""

from typing import Any

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray

from datamodules.base import CaptionDataModule
from lightning_modules.classification import ClassificationModule


def held_out_probabilities(
    module: ClassificationModule, data: CaptionDataModule, epochs: int, validates: bool
) -> NDArray[np.float64]:
    """Trains on the data's training split, on the CPU and without leaving a trace on the disk.

    Args:
        module: a new one.
        data: with the fold as its test split.
        epochs: of training.
        validates: the last epoch ends with a validation, which chooses the threshold.

    Returns:
        Probabilities of the test split, `(n, C)`.
    """
    settings: dict[str, Any] = {"check_val_every_n_epoch": epochs} if validates else {"limit_val_batches": 0}
    trainer = Trainer(
        max_epochs=epochs,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
    trainer.fit(module, datamodule=data)
    module.eval()
    with torch.inference_mode():
        batches = [module.predict_step(batch, 0)["probabilities"] for batch in data.test_dataloader()]
    return torch.cat(batches).double().numpy()
