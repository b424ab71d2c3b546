"""Settings of the trainer with which a run could not be resumed, refused before anything is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer

from core.checkpoints import check_values
from core.errors import UserError
from core.sharded import is_sharded
from lightning_modules.base import BaseModule
from lightning_modules.parts.sharding import shards_weights

_COPIES = ("spawn", "fork", "notebook")
_AVERAGING = "StochasticWeightAveraging"


def check_strategy(strategy: Any) -> None:
    """Refuses a strategy that needs to be told how each layer is divided.

    Args:
        strategy: the configuration's ``trainer.strategy``.

    Raises:
        UserError: it is such a one.
    """
    name = _class_path(strategy)
    if name.rpartition(".")[2] in ("ModelParallelStrategy", "model_parallel"):
        raise UserError(
            f"trainer.strategy is {name}, which needs a plan of how each layer is divided, and no method here has one: "
            "use fsdp, which divides weights, gradients and the optimiser's state without a plan"
        )


def check_checkpoint(path: Path, trainer: Trainer, *, trains: bool) -> None:
    """Looks at a checkpoint that a strategy will read by itself.

    Args:
        path: the checkpoint.
        trainer: that will load it.
        trains: it will be trained on.

    Raises:
        UserError: it is damaged or holds more than plain values, or its parts cannot be trained on with this strategy.
    """
    if shards_weights(trainer):  # Lightning and PyTorch unpickle whatever is in it
        check_values(path)
    elif trains and is_sharded(path):
        raise UserError(
            f"checkpoint '{path}' is in parts, which only the strategy that wrote them can train on: set "
            "trainer.strategy as in the config.yaml of its run, or start a new run with "
            f"--model.init_args.init_from={path}"
        )


def check_sharding(model: BaseModule, trainer: Trainer) -> None:
    """Refuses to divide weights of which checkpoints leave some out.

    Args:
        model: to train.
        trainer: that does.

    Raises:
        UserError: it would.
    """
    if shards_weights(trainer) and (rank := getattr(model, "lora_rank", 0)):
        raise UserError(
            f"lora_rank is {rank} with weights that are divided among processes: checkpoints of adapters leave the "
            "other weights out, which divided ones cannot; set trainer.strategy to ddp"
        )


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
