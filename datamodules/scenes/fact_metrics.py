"""What captions of synthetic scenes get right, as a torchmetrics class."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from core.errors import UserError
from datamodules.scenes.facts import KINDS, check_caption
from datamodules.scenes.generator import Scene
from networks.layers.sequences import on_device

SHARES = tuple(f"{kind}s" for kind in KINDS)
"""Figures besides F1: of all facts of a kind that are stated, the share that holds."""


class SceneFacts(Metric):
    """Mean fact F1 of one caption per scene, and which kinds of facts hold when they are stated.

    The score of a caption is that of `datamodules.scenes.facts`. The state is one row of numbers per scene, -1 while it
    has no caption, reduced across processes by the maximum: a scene that two processes have seen counts once, so the
    result is exact however the scenes are shared out.

    Args:
        scenes: description of every scene (`Scene.to_json`) by image id.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: Tensor

    def __init__(self, scenes: Mapping[str, str]) -> None:
        super().__init__()
        self._scenes = {image_id: Scene.from_json(text) for image_id, text in scenes.items()}
        self._row = {image_id: row for row, image_id in enumerate(self._scenes)}
        blank = torch.full((len(self._row), 1 + 2 * len(KINDS)), -1.0, dtype=torch.float64)
        self.add_state("rows", blank, dist_reduce_fx="max")

    def update(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """Scores captions.

        Args:
            image_ids: the scene of each caption.
            captions: the captions; a later one for the same scene replaces an earlier one.

        Raises:
            UserError: an id is not among the scenes.
        """
        for image_id, caption in zip(image_ids, captions, strict=True):
            if image_id not in self._row:
                raise UserError(f"image id {image_id!r} is not among the {len(self._row)} scenes of this metric")
            found = check_caption(caption, self._scenes[image_id])
            values = [found.f1, *(number for kind in found.kinds for number in kind)]
            self.rows[self._row[image_id]] = on_device(values, self.rows.device, self.rows.dtype)

    def compute(self) -> dict[str, Tensor]:
        """Returns float32 scalars.

        ``f1`` is the mean over the scenes that have a caption, NaN when none has. ``objects``, ``colours``, ``sizes``,
        ``counts`` and ``relations`` are shares of all facts stated, 0 for a kind that no caption states.
        """
        seen = self.rows[self.rows[:, 0] >= 0]
        sums = seen[:, 1:].sum(dim=0).view(len(KINDS), 2)
        shares = sums[:, 1] / sums[:, 0].clamp(min=1)
        return {"f1": seen[:, 0].mean().float(), **dict(zip(SHARES, shares.float().unbind(), strict=True))}

    def _apply(self, fn: Callable[..., Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # Apple's MPS has no float64; there the rows stay in main memory
        if fn(torch.zeros(1)).device.type == "mps":
            exclude_state = [*exclude_state, "rows"]
        return super()._apply(fn, exclude_state)
