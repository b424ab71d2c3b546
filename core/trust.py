"""Whose code a configuration may name.

What a user writes or passes by ``--config`` may name any class. A configuration that comes with a run, a recipe or a
checkpoint may have been written by a stranger: naming a class imports its module, and importing runs it.
Configurations that this user's own commands have saved are remembered by their content, outside of the run folder.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError

TRUSTED = (
    *("callbacks", "core", "datamodules", "lightning_modules", "metrics", "networks", "reporting"),
    *("lightning", "torch", "torchmetrics"),
)
"""Packages whose classes any configuration may name."""

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_trusted(content: Any, where: str) -> None:
    """Looks for classes of other packages before anything is imported.

    Args:
        content: content of the configuration, plain values.
        where: its file, for the message.

    Raises:
        UserError: it names something that could be imported and is not of this project, Lightning or torch.
    """
    for place, text in _texts(content, ""):
        if _PATH.fullmatch(text) and text.partition(".")[0] not in TRUSTED and _importable(text.partition(".")[0]):
            raise UserError(
                f"{where}: {place.removeprefix('.')} names '{text}', code that is not of this project, Lightning or "
                "torch; look at it, then pass --trust to run it"
            )


def remember(config: Path) -> None:
    """Notes that this user has written a configuration; where that cannot be noted, --trust will be asked for."""
    with contextlib.suppress(OSError):
        note = _note_of(config)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def is_own(config: Path) -> bool:
    """Whether this user has written a configuration, as it is."""
    try:
        return _note_of(config).exists()
    except OSError:
        return False


def _note_of(config: Path) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state"))
    return state / "captioners" / "own" / hashlib.sha256(config.read_bytes()).hexdigest()


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """All texts in a tree of mappings and lists, with their places."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{place}.{number}")


def _importable(name: str) -> bool:
    """Whether there is a module of this name; nothing is imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True
