"""One of two processes that train every method together over gloo; started by tests/test_distributed.py.

    python -m tests.distributed FOLDER STRATEGY, with RANK in the environment

Each process writes what it saw into FOLDER. With STRATEGY ``single`` it is alone and sees what both would.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.fsdp import FullyShardedDataParallel

from callbacks.predictions import PredictionWriter
from datamodules.loading.samplers import EpochSampler, StreamSampler
from datamodules.shards import ShardedCaptions
from datamodules.shards.writing import write_shards
from tests.flags import Steps, needed, of_options
from tests.twins import cases, make_data

BATCH = 3
CASES = [case for case in cases() if not case.variant]
SHARDED, SHARDS = "attention_rnn", "attention_rnn on shards"
"""The method that also learns from a stream of shards."""


class CPUSharded(FSDPStrategy):
    """Lightning's FSDP, which it refuses without a GPU only where it is named; PyTorch's has to be given the CPU.

    Args:
        state_dict_type: "full" or "sharded", how checkpoints are written.
    """

    def __init__(self, state_dict_type: str = "full") -> None:
        super().__init__(state_dict_type=state_dict_type, process_group_backend="gloo")

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
        return CPUSharded()
    return SingleDeviceStrategy(device="cpu")


def streamed(self: StreamSampler) -> Iterator[Any]:
    """The stream of shards in which one process sees the batches of two, one after the other."""
    epoch, start = self.position() if self.position is not None else (self.epoch, 0)
    given: dict[str, Any] = {"buffer": self.buffer, "seed": self.seed, "world_size": 2}
    ranks = [StreamSampler(self.sizes.tolist(), rank=rank, **given).order(epoch) for rank in range(2)]
    whole = [index for place in range(0, len(ranks[0]), BATCH) for own in ranks for index in own[place : place + BATCH]]
    return ((index, epoch) for index in whole[start:])


def seen(case: Any, strategy: str, folder: Path, *, sharded: bool = False) -> dict[str, Any]:
    """Figures and predictions of the untrained module, and losses of some steps, of one case; from shards or not."""
    # an odd number of images to evaluate, and a learning rate that shows in the third loss
    changes = {"batch_size": BATCH, "num_train": 4 * BATCH, "num_val": 5}
    options = {"lr": 0.5 if case.options.get("architecture") == "text" else 2e-2, "warmup_steps": 0}
    options |= {"schedule": "constant", **needed_options(case)}
    data = make_data(case.data, captions_per_image=1, **changes)
    if sharded:
        list(write_shards(data, folder / "shards", ("train", "val"), 5))
        shared = {name: getattr(data, name) for name in ("image_size", "max_tokens")}
        data = ShardedCaptions(
            root=str(folder / "shards"), batch_size=BATCH, captions_per_image=1, shuffle_buffer=4, **shared
        )
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

    order, stream = EpochSampler.order, StreamSampler.__iter__
    with (
        mock.patch.object(EpochSampler, "order", interleaved(order) if single else order),
        mock.patch.object(StreamSampler, "__iter__", streamed if single else stream),
    ):
        trainer(accumulate_grad_batches=2 if single else 1, callbacks=[steps]).fit(module, datamodule=data)
    losses = steps.losses
    writer = PredictionWriter()
    module = fresh(case, data, options, folder)
    figures = trainer(callbacks=[writer]).validate(module, datamodule=data, verbose=False)[0]
    predictions = {"captions": writer.captions, "probabilities": writer.probabilities}
    return {"losses": losses, "figures": figures, **predictions}


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
    found[SHARDS] = seen(next(case for case in CASES if case.twin == SHARDED), strategy, own, sharded=True)
    (folder / f"{strategy}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
