"""Losses that go wrong: not a number, infinite, or a thousand times what they were."""

import statistics
from collections import deque
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from core.errors import UserError
from core.text import visible

_EXPLODED = 1e3
"""A loss this many times the running median has exploded."""
_MEDIAN_OF, _LEAST = 200, 5
_WAY_OUT = "lower the learning rate, clip gradients (--trainer.gradient_clip_val=1), or train in bf16 or 32 bits"


class LossWatch:
    """Keeps losses on their device and checks them from time to time, since a check waits for the GPU.

    Attributes:
        diverged: what is to be said of a loss that has exploded and has not come back; None: all is well.
    """

    def __init__(self) -> None:
        self.diverged: str | None = None
        self.last = ""
        """The last step and its images, for messages."""
        self._waiting: list[tuple[int, torch.Tensor, list[str]]] = []
        self._finite: deque[float] = deque(maxlen=_MEDIAN_OF)
        self._warned = False

    def add(self, step: int, outputs: Any, batch: Any) -> None:
        """Takes the loss of a training step.

        Args:
            step: optimiser steps made before it.
            outputs: what Lightning hands to callbacks.
            batch: whose image ids are named if something is wrong.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            names = batch.get("image_id", []) if isinstance(batch, dict) else []
            self._waiting.append((step, loss.detach(), names))
            self.last = _place(step, names)

    def check(self, kept: str) -> None:
        """Checks the losses since the last check.

        Args:
            kept: what is left to go on from, for the message.

        Raises:
            UserError: one is not a finite number; the message names its step and images.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        values = torch.stack([loss.float() for _, loss, _ in waiting]).cpu()
        for (step, _, names), value in zip(waiting, values.tolist(), strict=True):
            if not torch.isfinite(torch.tensor(value)):
                raise UserError(f"the training loss is {value} at {_place(step, names)}: {kept}; {_WAY_OUT}")
            self._judge(step, value)

    def _judge(self, step: int, value: float) -> None:
        median = statistics.median(self._finite) if len(self._finite) >= _LEAST else None
        if median is not None and value > _EXPLODED * abs(median) and value > 1:
            self.diverged = (
                f"the training loss is {value:.4g} at step {step}, the median before was {median:.4g}: training has "
                "diverged; lower the learning rate (--model.init_args.lr) or clip gradients "
                "(--trainer.gradient_clip_val=1)"
            )
            if not self._warned:
                self._warned = True
                rank_zero_warn(visible(self.diverged))
            return  # it does not belong to the median
        self.diverged = None
        self._finite.append(value)


class BadWeightsError(UserError):
    """A weight is infinite or no number.

    Args:
        name: name of the tensor.
        kept: what is left to go on from.
        place: step after which it was found, and its images.
    """

    def __init__(self, *, name: str, kept: str, place: str = "") -> None:
        after = f" after {place}" if place else ""
        super().__init__(f"the weights '{name}' are not finite numbers{after}: {kept}; {_WAY_OUT}")
        self.name, self.kept = name, kept

    def after(self, place: str) -> "BadWeightsError":
        """The same with the step."""
        return BadWeightsError(name=self.name, kept=self.kept, place=place)


def _place(step: int, names: list[str]) -> str:
    """A step and its images."""
    shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
    return f"step {step}" + (f" (images {shown})" if names else "")


def check_finite_weights(weights: dict[str, Any], kept: str) -> None:
    """Makes sure that no weight that is to be saved is infinite or no number.

    Args:
        weights: a state dict.
        kept: what is left to go on from, for the message.

    Raises:
        BadWeightsError: one is.
    """
    for name, value in weights.items():
        floating = isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 0
        # a sum is much faster than a look at every number, and not finite if one of them is not
        if floating and not bool(value.sum().isfinite()):
            raise BadWeightsError(name=name, kept=kept)
