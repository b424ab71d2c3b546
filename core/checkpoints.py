"""Finding and reading checkpoint files. Nothing in a checkpoint is ever executed.

torch writes a CRC-32 of every part of a checkpoint into it, which costs nothing more while saving, but does not look at
it again; here every part is checked before anything is read.
"""

import zipfile
from pathlib import Path
from typing import Any

from core.errors import UserError, command
from core.exported import find_exported, read_exported
from core.inputs import check_expansion, damage, open_regular, reason
from core.renamed import renamed_checkpoint
from core.sharded import FACTS, is_sharded, pieces, read_parts

_BEST, _LAST = "best.ckpt", "last.ckpt"
_NAMES = (_BEST, _LAST)
_SLACK = 1 << 20
"""Bytes by which the parts of a checkpoint may exceed its file; nothing in it is compressed."""


def way_on(run: Path) -> str:
    """What to type to go on with a run that has stopped."""
    if is_checkpoint(run / "checkpoints" / _LAST):
        return f"resume it: {command('resume', run)}"
    if (run / "config.yaml").is_file() and (run / "run.json").is_file():
        return f"there is no checkpoint yet, begin again: {command('resume', run)}"
    return "start again with the same command"


def is_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint of this name: a file, or the folder of one in parts."""
    return path.is_file() or is_sharded(path)


def find_checkpoint(path: str | Path) -> Path:
    """Finds the checkpoint that a path means: the file or folder itself, or a run folder's best, else its last.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if is_checkpoint(path):
        return path
    for name in _NAMES:
        for candidate in (path / "checkpoints" / name, path / name):
            if is_checkpoint(candidate):
                return candidate
    raise UserError(
        f"no checkpoint at '{path}': give a .ckpt file, or a run folder with checkpoints/best.ckpt or "
        "checkpoints/last.ckpt"
    )


def load_values(file: str | Path, device: Any = "cpu") -> dict[str, Any]:
    """Reads the tensors and plain values of a checkpoint, with the names that this version uses.

    Args:
        file: the file, or the folder of one in parts, of which the weights are put together; what optimisers noted in
            parts only the strategy that wrote it can read.
        device: where its tensors go, as torch names it.

    Raises:
        UserError: it is missing, damaged, or no checkpoint; an intact one beside it is offered.
    """
    import torch  # slow to import, and finding a file does not need it

    path = Path(file)
    try:
        checkpoint = _load(path, device)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it holds a {type(checkpoint).__name__}")
        return renamed_checkpoint(checkpoint)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch raises a dozen types for a damaged file; all mean the same here
        why = reason(error).removeprefix(f"{path}: ")
        raise UserError(f"checkpoint '{path}' cannot be read ({why}); {_way_out(path)}") from error


def _load(path: Path, device: Any) -> Any:
    """What a file or a folder of parts holds, after every part was compared with its checksum."""
    import torch

    if not is_sharded(path):
        _check_parts(path)
        return torch.load(path, map_location=device, weights_only=True)
    weights = read_parts(path)
    _check_parts(path / FACTS)
    facts = torch.load(path / FACTS, map_location=device, weights_only=True)
    if not isinstance(facts, dict):
        raise TypeError(f"its part '{FACTS}' holds a {type(facts).__name__}")
    return {**facts, "state_dict": {name: tensor.to(device) for name, tensor in weights.items()}}


def check_values(path: Path) -> None:
    """Makes sure that a checkpoint which PyTorch will read without a guard is intact and holds plain values alone.

    Raises:
        UserError: it does not.
    """
    load_values(path)
    if is_sharded(path):
        with damage(path, "a checkpoint in parts", "give another one"):
            pieces(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads the checkpoint that a path means, with everything that using its model takes.

    Args:
        path: run folder, checkpoint, exported folder, or repository of the hub with one (``owner/name``).

    Raises:
        UserError: there is none, it is damaged, or it was not written by this project.
    """
    from torch import Tensor

    exported = find_exported(path)
    file = find_checkpoint(path) if exported is None else exported
    checkpoint = load_values(file) if exported is None else renamed_checkpoint(read_exported(exported))
    for entry in ("inference", "state_dict"):
        if not isinstance(checkpoint.get(entry), dict):
            raise UserError(f"'{file}' was not written by this project: it has no entry '{entry}'")
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(value, Tensor):
            raise UserError(f"'{file}' was not written by this project: its weight '{name}' is no tensor")
    return checkpoint


def _check_parts(path: Path) -> None:
    """Compares every part of a file with the checksum that was written with it.

    Raises:
        UserError: one differs, or the file is none of torch.
    """
    what = "a checkpoint"
    with open_regular(path, what, UserError) as file:
        check_expansion(path, path.stat().st_size + _SLACK, what)
        if zipfile.is_zipfile(file):  # else torch says what it is
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"{path}: its part '{damaged}' is not what was written")


def _way_out(path: Path) -> str:
    """What to do instead of a damaged checkpoint: use the intact one beside it, if there is one."""
    other = path.with_name(_BEST if path.name == _LAST else _LAST)
    if path.name not in _NAMES:
        return "give another one"
    try:
        if is_sharded(other):
            pieces(other)
        else:
            _check_parts(other)
    except Exception:  # whatever is wrong with it, it is not offered
        whole = False
    else:
        whole = is_sharded(other) or zipfile.is_zipfile(other)
    if not whole:
        return "give another one, or train again"
    config = path.parent.parent / "config.yaml"
    if path.name == _BEST or not config.is_file():
        return f"'{other}' is intact: give that one"
    return (
        f"'{other}' is older and intact: continue from it with "
        f"{command('fit', '--config', config, '--ckpt_path', other)}"
    )
