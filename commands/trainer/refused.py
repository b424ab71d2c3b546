"""Settings of the trainer with which a run could not be resumed, refused before anything is written."""

from collections.abc import Mapping
from typing import Any

from core.errors import UserError

_COPIES = ("spawn", "fork", "notebook")
_AVERAGING = "StochasticWeightAveraging"


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Refuses processes that are copies of this one, and a callback that Lightning cannot resume.

    A copy has this process's signal handlers and none of its locks, and one that is spawned cannot be sent what a run
    is made of.

    Args:
        settings: the configuration's section ``trainer``.

    Raises:
        UserError: one of them is asked for.
    """
    strategy = settings["strategy"]
    method = _entry(_entry(strategy, "init_args"), "start_method")
    name = f"{_class_path(strategy)}, start_method {method}" if isinstance(method, str) else _class_path(strategy)
    if any(name.endswith((f"_{kind}", f" {kind}")) or f"_{kind}_" in name for kind in _COPIES):
        raise UserError(
            f"trainer.strategy is {name}, whose processes are copies that cannot save and resume: expected one that "
            "starts the command again for each process, such as ddp"
        )
    callbacks = settings["callbacks"]
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if _class_path(callback).rpartition(".")[2] == _AVERAGING:
            raise UserError(
                f"trainer.callbacks has {_AVERAGING}, with which a run cannot be resumed exactly: use "
                "lightning.pytorch.callbacks.EMAWeightAveraging"
            )


def _class_path(value: Any) -> str:
    """The name of a strategy or class, given as text or as an object; empty for others."""
    return value if isinstance(value, str) else str(_entry(value, "class_path") or "")


def _entry(value: Any, name: str) -> Any:
    return value.get(name) if hasattr(value, "get") else None
