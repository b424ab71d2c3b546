"""Models that were exported: weights as safetensors, everything else as JSON. Nothing in them is ever executed."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.inputs import damage, open_regular, read_object, shown

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
FILES = (CONFIG, TOKENIZER, WEIGHTS)
FORMAT = 1
"""Version of the layout."""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Name of a repository of the hub."""
_CHUNK = 1 << 22


def find_exported(path: str | Path) -> Path | None:
    """The folder of an exported model: the path itself, or that of a repository of the hub, downloaded.

    A name such as ``owner/name`` means a repository when there is no such file or folder here, nor a folder ``owner``.

    Returns:
        The folder; None when the path means none.

    Raises:
        UserError: the hub has no such repository or cannot be reached, or a file of it is missing or damaged.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder if all((folder / name).is_file() for name in (CONFIG, WEIGHTS)) else None
    name = str(path)
    if folder.exists() or not REPOSITORY.fullmatch(name) or Path(name.partition("/")[0]).exists():
        return None
    from core.hub import hub_file

    try:
        files = {part: hub_file(name, part) for part in FILES}
    except UserError as error:
        raise UserError(f"there is no run '{name}' here, and no model on the hub that can be read ({error})") from error
    config = files[CONFIG]
    return config.parent if config is not None and files[WEIGHTS] is not None else None


def read_exported(folder: Path) -> dict[str, Any]:
    """Reads an exported model as a checkpoint: its entries ``inference``, ``hyper_parameters`` and ``state_dict``.

    Raises:
        UserError: a file is missing, damaged or of another layout.
    """
    from safetensors.torch import load_file

    way_out = "export the run again, or give another folder"
    config = read_object(folder / CONFIG, way_out, ("format", "sha256", "inference", "hyper_parameters"))
    if config["format"] != FORMAT:
        raise UserError(
            f"{folder / CONFIG}: format is {shown(config['format'])}, this version reads {FORMAT}; {way_out}"
        )
    weights = folder / WEIGHTS
    if digest(weights) != config["sha256"]:
        raise UserError(f"{weights} is not what was exported, its SHA-256 differs from {CONFIG}; {way_out}")
    inference = config["inference"]
    if not isinstance(inference, dict) or not isinstance(config["hyper_parameters"], dict):
        raise UserError(f"{folder / CONFIG}: inference and hyper_parameters must be objects; {way_out}")
    if (folder / TOKENIZER).is_file():
        inference["tokenizer"] = read_object(folder / TOKENIZER, way_out)
    with damage(weights, "the weights of a model", way_out, kind=UserError):
        tensors = load_file(weights)
    return {"inference": inference, "hyper_parameters": config["hyper_parameters"], "state_dict": tensors}


def digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: there is no such file.
    """
    found = hashlib.sha256()
    with open_regular(path, "the weights of a model", UserError) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose absolute paths are only names: where a file lay on one machine is nobody else's business.

    >>> without_folders({"weights": "/home/me/a.pth", "lr": 0.1, "parts": ["~/b", "c"]})
    {'weights': 'a.pth', 'lr': 0.1, 'parts': ['b', 'c']}
    """
    return {name: _shortened(value) for name, value in values.items()}


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_folders(value)
    if isinstance(value, list | tuple):
        return [_shortened(one) for one in value]
    if isinstance(value, str) and (
        Path(value).is_absolute() or value.startswith("~") or re.match(r"[A-Za-z]:\\", value)
    ):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
