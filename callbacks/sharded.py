"""Checkpoints in parts, which the processes of a sharded run write together into a folder."""

import os
import shutil
from pathlib import Path

from lightning import Trainer

from callbacks.loss_watch import BadWeightsError, check_finite_weights
from core.errors import UserError
from core.files import sync
from core.sharded import FACTS, note_list
from lightning_modules.parts.sharding import shards_weights


def writes_parts(trainer: Trainer) -> bool:
    """Whether checkpoints of a run are folders of parts: FSDP with ``state_dict_type: sharded``."""
    return shards_weights(trainer) and getattr(trainer.strategy, "_state_dict_type", None) == "sharded"


def save_parts(trainer: Trainer, path: Path, kept: str, *, weights_only: bool = False) -> None:
    """Writes a checkpoint in parts beside the old one and then puts it in its place; called by all processes.

    A folder that holds something cannot be replaced in one step, but a link can: the name of the checkpoint is a link
    to one of two folders, ``last.ckpt.0`` and ``last.ckpt.1``.

    Args:
        trainer: of the run.
        path: name of the checkpoint.
        kept: what is left to go on from, for messages.
        weights_only: without what is needed to train on.

    Raises:
        UserError: a weight is not a finite number, here or in another process.
    """
    # each process has its part of the weights; whoever finds a bad one says so to the others
    bad: UserError | None = None
    try:
        assert trainer.strategy.model is not None
        check_finite_weights(dict(trainer.strategy.model.named_parameters()), kept)
    except BadWeightsError as error:
        bad = error
    if trainer.strategy.reduce_boolean_decision(bad is not None, all=False):
        raise bad or UserError(f"weights of another process are not finite numbers: {kept}")
    first = Path(f"{path}.0")
    new = first if not path.is_symlink() or path.readlink().name != first.name else Path(f"{path}.1")
    if trainer.is_global_zero:
        shutil.rmtree(new, ignore_errors=True)
    trainer.strategy.barrier("old parts are gone")
    trainer.save_checkpoint(new, weights_only)
    if trainer.is_global_zero:
        note_list(new)
        sync(new / FACTS)  # PyTorch has done so with the others
        _put(new, path)
    trainer.strategy.barrier("new parts are in place")


def _put(new: Path, path: Path) -> None:
    """Lets the name of a checkpoint mean another folder, in one step, and removes what it meant before."""
    old = path.parent / path.readlink() if path.is_symlink() else None
    if old is None and path.is_dir():  # written by somebody else
        shutil.rmtree(path)
    link = path.with_name(f"{path.name}.tmp{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(new.name, target_is_directory=True)
    link.replace(path)
    if old is not None and old != new:
        shutil.rmtree(old, ignore_errors=True)
