"""The label metrics as a torchmetrics class whose state is exact under distributed training.

Letters: n images of a split, B images of a batch, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from core.errors import UserError
from metrics.labels import choose_threshold, label_scores

_NOT_SCORED = -1.0


@dataclass(frozen=True, kw_only=True)
class ScoredLabels:
    """The predictions for the images scored so far.

    Attributes:
        image_ids: n of them, in the order of the split.
        probabilities: `(n, C)`.
        targets: `(n, C)`.
    """

    image_ids: list[str]
    probabilities: NDArray[np.float64]
    targets: NDArray[np.float64]


class LabelMetrics(Metric):
    """All metrics of `metrics.labels.label_scores` over the images of a split.

    The state is one row of probabilities per image, -1 where the image has not been scored; processes are joined by the
    maximum. So an image that the sampler gave to two processes counts once, and the result is that of one process.

    Args:
        targets: image id to its labels, C numbers in [0, 1] each.
        threshold: a label is predicted from this probability on; None: the one with the highest micro-F1 on the images
            scored.
        prior: frequency of every label in training.

    Raises:
        UserError: no image, or images with different numbers of labels.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: Tensor

    def __init__(
        self,
        targets: Mapping[str, Sequence[float]],
        *,
        threshold: float | None = 0.5,
        prior: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        sizes = {len(labels) for labels in targets.values()}
        if len(sizes) != 1 or 0 in sizes:
            found = "no labels" if sizes <= {0} else f"{' or '.join(map(str, sorted(sizes)))} labels"
            raise UserError(f"label metrics: the images have {found}, expected the same number of labels for each")
        self.threshold, self.prior = threshold, prior
        self._index = {image_id: place for place, image_id in enumerate(targets)}
        self._targets = np.array(list(targets.values()), dtype=np.float64)
        self.add_state("rows", torch.full(self._targets.shape, _NOT_SCORED), dist_reduce_fx="max")

    def update(self, image_ids: Sequence[str], probabilities: Tensor) -> None:
        """Keeps the probabilities of some images.

        Args:
            image_ids: B ids, as in the targets.
            probabilities: `(B, C)` in [0, 1].

        Raises:
            UserError: an id without targets, or a probability that is no number.
        """
        unknown = [image_id for image_id in image_ids if image_id not in self._index]
        if unknown:
            raise UserError(f"label metrics: image {unknown[0]!r} has no labels in this split")
        if not torch.isfinite(probabilities).all():
            raise UserError("label metrics: a probability is no number: the training has diverged; lower lr")
        if image_ids:
            places = torch.tensor([self._index[image_id] for image_id in image_ids], device=self.rows.device)
            self.rows[places] = probabilities.detach().to(self.rows)

    def compute(self) -> dict[str, Tensor]:
        """Metrics over the images scored so far, and the ``threshold`` used; float32 scalars."""
        scored = self.scored()
        threshold = self.threshold
        if threshold is None:
            threshold = choose_threshold(scored.probabilities, scored.targets)
        scores = label_scores(scored.probabilities, scored.targets, threshold, self.prior)
        scores["threshold"] = threshold
        return {name: torch.tensor(value, device=self.rows.device) for name, value in scores.items()}

    def scored(self) -> ScoredLabels:
        """What the images scored so far got: of this process, or of all of them inside `compute`."""
        rows = self.rows.cpu().numpy().astype(np.float64)
        known = rows[:, 0] >= 0
        names = [image_id for image_id, place in self._index.items() if known[place]]
        return ScoredLabels(image_ids=names, probabilities=rows[known], targets=self._targets[known])
