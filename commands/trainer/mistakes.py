"""Errors of libraries that stand for a mistake of the user's."""

import re
import traceback
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from commands.trainer import config_files, runs
from commands.trainer.memory import out_of_memory
from core.checkpoints import way_on
from core.errors import UserError


def mistake_behind(error: Exception, files: list[str]) -> UserError | None:
    """The user's mistake that a library's error stands for; None when it is none, or said well already."""
    if isinstance(error, UserError):
        place = config_files.location(str(error), files)
        return UserError(str(error).replace(" (python cli.py", f"{place} (python cli.py")) if place else None
    if isinstance(error, MisconfigurationException):
        return UserError(f"trainer: {error}")
    if isinstance(error, OmegaConfBaseException):
        key = getattr(error, "full_key", None) or "configuration"
        written = f" ({', '.join(files)})" if files else ""
        return UserError(f"{key}{written}: {str(error).splitlines()[0]}; write a key that exists, or the value itself")
    if (full := out_of_memory(error, {})) is not None:
        return full
    if _is_lost_connection(error):
        return UserError(
            "another process of this run has ended, or cannot be reached: its own line, or CAPTION_DEBUG=1, says more; "
            f"{way_on(runs.own_folder())}"
        )
    frames = traceback.extract_tb(error.__traceback__)
    refused = isinstance(error, ValueError) and "lightning" in Path(frames[-1].filename).parts
    return UserError(f"trainer: {error}") if refused and error.__cause__ is None and error.__context__ is None else None


def _is_lost_connection(error: Exception) -> bool:
    """Whether an error of one of several processes comes from the end of another one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    named = re.search(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|recvValue", str(error))
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and named is not None)
