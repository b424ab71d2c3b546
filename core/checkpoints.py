"""Finding and reading checkpoint files. Nothing in a checkpoint is ever executed."""

from pathlib import Path
from typing import Any

from core.errors import UserError
from core.renamed import renamed_checkpoint


def find_checkpoint(path: str | Path) -> Path:
    """Finds the checkpoint that a path means: the file itself, or a run folder's best, else its last.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        for candidate in (path / "checkpoints" / name, path / name):
            if candidate.is_file():
                return candidate
    raise UserError(
        f"no checkpoint at '{path}': give a .ckpt file, or a run folder with checkpoints/best.ckpt or "
        "checkpoints/last.ckpt"
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint's tensors and plain values, with the names that this version uses.

    Raises:
        UserError: there is none, it is broken, or it was not written by this project.
    """
    import torch  # slow to import, and finding a file does not need it

    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a broken or foreign file; all mean the same here
        raise UserError(
            f"'{file}' is not a readable checkpoint ({type(error).__name__}): it is broken, or holds more than tensors "
            "and plain values; give another one"
        ) from error
    if not isinstance(checkpoint, dict) or "inference" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"'{file}' was not written by this project: it has no entry 'inference'")
    return renamed_checkpoint(checkpoint)
