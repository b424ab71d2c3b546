"""Reading files of weights, with errors that say what to do."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import UserError

WAYS_OUT = "go online once so that it is downloaded, give a local file or folder, or set weights to null (random)"
"""What a user can do when weights cannot be reached."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict: `.safetensors`, or what `torch.save` wrote, which may hold it under the key "state_dict".

    Raises:
        UserError: the file does not exist, is damaged, or holds something else than named tensors.
    """
    if not path.is_file():
        raise UserError(f"weights file {str(path)!r} does not exist; give an existing one or set weights to null")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"weights file {str(path)!r} cannot be read ({reason}); give a state dict of tensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights file {str(path)!r} holds no state dict (names to tensors); save model.state_dict()")
    return state


def load_state(network: nn.Module, path: Path, prefixes: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
    """Loads a file of weights into a network; everything must fit.

    Args:
        network: receives the weights.
        path: the file.
        prefixes: what may stand before every name in the file (a wrapper's name) and is taken off.
        ignore: names in the file that the network need not have.

    Raises:
        UserError: as `read_state`, or the file belongs to another network: names the first keys that do not fit.
    """
    state = read_state(path)
    wanted = network.state_dict()
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in wanted):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name in wanted or name not in ignore}
    # Files from before PyTorch counted the batches of BatchNorm have no such entry
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        text = "; ".join(f"{kind}: {', '.join(names[:3])}" for kind, names in problems.items() if names)
        raise UserError(
            f"weights file {str(path)!r} does not fit {type(network).__name__} ({text}); give its own weights"
        )
    network.load_state_dict(state, strict=False)
