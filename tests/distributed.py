"""One of two processes that train every method together over gloo; started by tests/test_distributed.py.

    python -m tests.distributed FOLDER STRATEGY, with RANK in the environment

Each process writes what it saw into FOLDER. With STRATEGY ``single`` it is alone and sees what both would.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.fsdp import FullyShardedDataParallel

from datamodules.loading.samplers import EpochSampler
from tests.flags import Steps, needed, of_options
from tests.twins import cases, make_data

BATCH = 3
CASES = [case for case in cases() if not case.variant]


class CPUSharded(FSDPStrategy):
    """Lightning's FSDP, which it refuses without a GPU only where it is named; PyTorch's has to be given the CPU."""

    def _setup_model(self, model: Any) -> Any:
        """Wraps the model."""
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


def interleaved(order: Any) -> Any:
    """The order in which one process sees the batches of two, one after the other."""

    def both(self: EpochSampler, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(order(self, epoch))
        whole = order(self, epoch)
        ranks = whole[0::2], whole[1::2]
        starts = range(0, len(ranks[0]), BATCH)
        return [index for start in starts for own in ranks for index in own[start : start + BATCH]]

    return both


def strategy_of(name: str) -> Strategy:
    """The strategy of a name."""
    if name == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    if name == "fsdp":
        return CPUSharded(process_group_backend="gloo")
    return SingleDeviceStrategy(device="cpu")


def seen(case: Any, strategy: str, folder: Path) -> dict[str, Any]:
    """Figures of the untrained module, then losses of three steps, of one case."""
    # an odd number of images to evaluate, and a learning rate that shows in the third loss
    changes = {"batch_size": BATCH, "num_train": 4 * BATCH, "num_val": 5}
    options = {"lr": 0.5 if case.options.get("architecture") == "text" else 2e-2, "warmup_steps": 0}
    options |= {"schedule": "constant", **needed_options(case)}
    data = make_data(case.data, captions_per_image=1, **changes)
    module = of_options(case, data, **options, **needed(case, data, folder))
    steps = Steps()
    single = strategy == "single"
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "limit_val_batches": 1.0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": folder,
        "gradient_clip_val": 1.0,
    }

    def trainer(**more: Any) -> Trainer:
        devices = {"devices": 1} if single else {"devices": 2}
        return Trainer(accelerator="cpu", strategy=strategy_of(strategy), **devices, **settings, **more)

    with mock.patch.object(EpochSampler, "order", interleaved(EpochSampler.order) if single else EpochSampler.order):
        trainer(accumulate_grad_batches=2 if single else 1, callbacks=[steps]).fit(module, datamodule=data)
    losses = steps.losses
    figures = trainer(callbacks=[]).validate(fresh(case, data, options, folder), datamodule=data, verbose=False)[0]
    return {"losses": losses, "figures": figures}


def needed_options(case: Any) -> dict[str, Any]:
    """Options that several processes want."""
    return {"fine_tune_epochs": 0} if "fine_tune_epochs" in case.method.options() else {}


def fresh(case: Any, data: Any, options: dict[str, Any], folder: Path) -> Any:
    """The module before its first step, with other random weights than zero."""
    return of_options(case, data, **options, **needed(case, data, folder))


def main(folder: Path, strategy: str) -> None:
    """Trains all cases."""
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    found = {}
    own = folder / f"{strategy}-{rank}"
    own.mkdir()
    for case in CASES:
        found[str(case)] = seen(case, strategy, own)
    (folder / f"{strategy}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
