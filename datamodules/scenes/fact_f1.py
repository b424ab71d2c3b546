"""Fact F1 of captions of synthetic scenes as a torchmetrics class."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from core.errors import UserError
from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import Scene


class FactF1(Metric):
    """Mean fact F1 of one caption per scene: how much of the caption holds, and how much of the scene it states.

    The score of a caption is that of `datamodules.scenes.facts`. The state is one number per scene, -1 while it has
    no caption, reduced across processes by the maximum: a scene that two processes have seen counts once, so the
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
        self.add_state("rows", torch.full((len(self._row),), -1.0, dtype=torch.float64), dist_reduce_fx="max")

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
            self.rows[self._row[image_id]] = caption_fact_f1(caption, self._scenes[image_id])

    def compute(self) -> Tensor:
        """Returns the mean over the scenes that have a caption, a float32 scalar; NaN when none has."""
        return self.rows[self.rows >= 0].mean().float()

    def _apply(self, fn: Callable[..., Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # Apple's MPS has no float64; there the rows stay in main memory
        if fn(torch.zeros(1)).device.type == "mps":
            exclude_state = [*exclude_state, "rows"]
        return super()._apply(fn, exclude_state)
