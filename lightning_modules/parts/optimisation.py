"""Optimiser and learning-rate schedule, made of groups of parameters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Schedule = Literal["constant", "linear", "cosine"]

Factor = Callable[[int], float]
"""Learning rate as a share of its peak, by optimiser step."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that learn at one rate.

    Attributes:
        name: under which checkpoints and loggers know the group.
        parameters: they must require gradients; a group without any is left out of the optimiser.
        lr: peak learning rate.
        factor: its share at an optimiser step; None: warm-up and schedule of the run.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    factor: Factor | None = None

    def options(self) -> dict[str, Any]:
        """What torch's optimisers take."""
        return {"params": list(self.parameters), "lr": self.lr, "name": self.name}


def make_scheduler(
    optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup], default: Factor
) -> torch.optim.lr_scheduler.LambdaLR:
    """Sets the rate of every group at every step.

    Args:
        optimizer: made of `groups`, in this order.
        groups: none of them empty.
        default: factor of the groups without one of their own.
    """
    return torch.optim.lr_scheduler.LambdaLR(optimizer, [group.factor or default for group in groups])


def add_group(
    optimizer: torch.optim.Optimizer, schedulers: Sequence[torch.optim.lr_scheduler.LambdaLR], group: ParameterGroup
) -> None:
    """Adds a group to an optimiser that is in use; it follows the schedule of the first group."""
    options = {**group.options(), "initial_lr": group.lr}
    optimizer.add_param_group(options)
    for scheduler in schedulers:
        scheduler.base_lrs.append(group.lr)
        scheduler.lr_lambdas.append(scheduler.lr_lambdas[0])
        options["lr"] = group.lr * scheduler.lr_lambdas[0](scheduler.last_epoch)


def rate_factor(step: int, warmup_steps: int, schedule: Schedule, total_steps: int) -> float:
    """Learning rate at an optimiser step as a share of its peak.

    Args:
        step: optimiser steps made so far.
        warmup_steps: steps of linear warm-up from 0 (exclusive) to 1.
        schedule: what follows the warm-up.
        total_steps: length of the run in optimiser steps; read by "linear" and "cosine", which end at 0.

    >>> [rate_factor(step, 2, "linear", 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
