"""Loading weights from files and downloads, with errors that say what to do."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from core.errors import UserError
from core.hub import asking
from core.inputs import check_expansion, check_folder, damage, open_regular

T = TypeVar("T")

_SLACK = 1 << 20
_LARGEST_FILE = 1 << 37
"""Bytes of a file in a folder of weights."""


def reached(weights: str, name: str, load: Callable[[], T]) -> T:
    """The result of a function that downloads weights or finds them in a cache.

    Args:
        weights: name of the weights, for the message.
        name: network they belong to, for the message.
        load: the function.

    Raises:
        UserError: the weights cannot be reached.
    """
    with asking(f"weights {weights!r} of {name!r}"):
        return load()


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers from printing bars and tables of names while it loads; what is missing is checked here."""
    from transformers import utils

    logging: Any = utils.logging  # without types
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_local(weights: str) -> bool:
    """Looks at a folder of weights before a library opens its files.

    Returns:
        Whether it is a folder; otherwise a name of the hub.

    Raises:
        UserError: something in it is no ordinary file.
    """
    if not Path(weights).is_dir():
        return False
    check_folder(weights, _LARGEST_FILE, "files of weights")
    for path in Path(weights).iterdir():
        if path.suffix in (".bin", ".pt", ".pth"):
            check_expansion(path, path.stat().st_size + _SLACK, "a file of weights")
    return True


def load_file(network: nn.Module, weights: str, known: str) -> None:
    """Loads a local file of weights into an image encoder.

    Args:
        network: receives the weights.
        weights: path of the file.
        known: names that would have been understood instead of a path, for the message.

    Raises:
        UserError: there is no such file, or it does not match the network.
    """
    check_file(weights, known)
    load_state(network, Path(weights), prefixes=("network.", "module."))


def check_file(weights: str, known: str) -> None:
    """Refuses weights that are neither a known name nor a file.

    Raises:
        UserError: there is no such file.
    """
    if not Path(weights).is_file():
        raise UserError(f"encoder weights {weights!r} are neither {known} nor an existing file; or set weights to null")


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict: `.safetensors`, or a file of `torch.save`, which may hold it under the key "state_dict".

    Raises:
        UserError: the file does not exist, is damaged, or holds anything but named tensors.
    """
    if not path.exists():
        raise UserError(f"weights file {str(path)!r} does not exist; give an existing one or set weights to null")
    what, way_out = "a file of weights", "give a state dict of tensors"
    with open_regular(path, what, UserError) as file:
        size = os.fstat(file.fileno()).st_size
    check_expansion(path, size + _SLACK, what)  # torch compresses nothing
    with damage(f"weights file {str(path)!r}", what, way_out):
        if path.suffix == ".safetensors":
            return load_safetensors(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in state.items()
    ):
        raise UserError(f"weights file {str(path)!r} is not a state dict (names to tensors); save model.state_dict()")
    return state


def load_state(network: nn.Module, path: Path, prefixes: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
    """Loads a file of weights into a network; every tensor must match.

    Args:
        network: receives the weights.
        path: the file.
        prefixes: prefixes of names in the file (of a wrapper) that are removed.
        ignore: names in the file that the network need not have.

    Raises:
        UserError: as `read_state`, or the file belongs to another network: names the first keys that do not match.
    """
    state = read_state(path)
    wanted = network.state_dict()
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in wanted):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name in wanted or name not in ignore}
    # Files written before PyTorch counted the batches of BatchNorm lack these entries
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
            f"weights file {str(path)!r} does not match {type(network).__name__} ({text}); give its own weights"
        )
    with damage(f"weights file {str(path)!r}", f"weights of {type(network).__name__}", "give its own weights"):
        network.load_state_dict(state, strict=False)
