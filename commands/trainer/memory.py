"""Batch sizes that fit into memory: found by trying, and what to say when one does not."""

import copy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from lightning.pytorch.utilities.seed import isolate_rng

from core.errors import UserError
from core.text import visible
from datamodules.base import CaptionDataModule
from lightning_modules.base import BaseModule

_STEPS = 3
"""Optimiser steps of a trial: from the second one on, the optimiser has its state and gradients are there as well."""
_MOST = 4096
_KEPT = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm", "plugins", "strategy")
"""Settings of the trainer that decide how much memory a step takes."""
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, or the machine, has no memory left for a tensor."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def out_of_memory(error: Exception, config: Mapping[str, Any]) -> UserError | None:
    """What to change when memory does not suffice; None: the error is another one.

    Args:
        error: what ended the command.
        config: configuration of the command; values that help already are not proposed.
    """
    if not is_out_of_memory(error):
        return None
    model = (config.get("model") or {}).get("init_args") or {}
    size = batch_size_in(config)
    ways = [
        f"lower --data.init_args.batch_size{'' if size is None else f' (now {size})'} and raise "
        "--trainer.accumulate_grad_batches by the same factor, or let --find_batch_size=true look for one"
    ]
    if not model.get("gradient_checkpointing"):
        ways.append("--model.init_args.gradient_checkpointing=true")
    if "16" not in str((config.get("trainer") or {}).get("precision")):
        ways.append("--trainer.precision=bf16-mixed (older than Ampere: 16-mixed)")
    text = (str(error).splitlines() or [""])[0]
    return UserError(f"out of memory ({text or type(error).__name__}): {', or '.join(ways)}")


def batch_size_in(config: Mapping[str, Any]) -> int | None:
    """The batch size in the configuration of a data module, or of the one whose images it reads."""
    section = (config.get("data") or {}).get("init_args") or {}
    while "batch_size" not in section and section.get("source"):
        section = section["source"].get("init_args") or {}
    size: int | None = section.get("batch_size")
    return size


def save_batch_size(config: Any, size: int) -> None:
    """Writes a batch size where `batch_size_in` reads it."""
    section = config["data"]["init_args"]
    while "batch_size" not in section and section.get("source"):
        section = section["source"]["init_args"]
    section["batch_size"] = size


def find_batch_size(model: BaseModule, data: CaptionDataModule, settings: Mapping[str, Any]) -> int:
    """The largest batch size that trains without running out of memory: the configured one, doubled or halved.

    Every size is tried for a few steps with a copy of the model. On a CPU, where a process that takes too much is
    killed, a size is not tried if the one before it suggests that it takes more than the memory that is free. Between
    the size found and one that fails lies a factor of two at most, which is room for longer captions.

    Args:
        model: before its first step; it is left as it is.
        data: its batch size is set to the one that is found.
        settings: settings of the trainer.

    Raises:
        UserError: not even one image fits.
    """
    most = min(_MOST, len(data.examples("train")))
    size, best = min(data.batch_size, most), 0
    room = _Room()
    with isolate_rng():
        while True:
            problem = _attempt(model, data, settings, size)
            if problem is None:
                best = size
                if 2 * size > most:
                    why = f"there are {most} training images" if most < _MOST else f"{most} is the most that is tried"
                    break
                if not room.for_twice():
                    why = f"{2 * size} would take more than the memory that is free"
                    break
                size *= 2
            elif best or size == 1:
                why = f"{size} runs out of memory"
                break
            else:
                size //= 2
    if not best:
        raise UserError(
            f"out of memory with a batch of one image ({problem}): pass --model.init_args.gradient_checkpointing=true, "
            "--trainer.precision=bf16-mixed or --data.init_args.captions_per_image=1, or choose a smaller network"
        )
    data.batch_size = best
    rank_zero_info(visible(f"batch size {best} found: {why}; the learning rate is as it was"))
    return best


def _attempt(model: BaseModule, data: CaptionDataModule, settings: Mapping[str, Any], size: int) -> str | None:
    """Trains a copy for some steps; what was said when the memory ran out, None: it did not."""
    data.batch_size = size
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                **{name: settings[name] for name in _KEPT if settings.get(name) is not None},
                devices=1,
                max_steps=_STEPS,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                default_root_dir=folder,
            )
            trainer.fit(copy.deepcopy(model), datamodule=data)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return (str(error).splitlines() or [type(error).__name__])[0]
    finally:
        garbage_collection_cuda()
    return None


class _Room:
    """Whether the memory of a machine without a GPU suffices for the double of what the last trial took."""

    def __init__(self) -> None:
        self._before = _peak()

    def for_twice(self) -> bool:
        """Asked after a trial: as far as can be told, twice its memory is free."""
        free = _free()
        return torch.cuda.is_available() or free is None or 2 * (_peak() - self._before) < free


def _peak() -> int:
    """Most memory that this process ever had, bytes; 0 where that is not known."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _free() -> int | None:
    """Memory that can be had without swapping, bytes; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
