"""The caption metrics as a torchmetrics class whose state is exact under distributed training."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.caption_rows import STATISTICS
from metrics.captions import ImageScores, References, corpus_scores

_NOT_SCORED = -1.0


class CaptionMetrics(Metric):
    """BLEU-1..4, ROUGE-L and CIDEr-D of generated captions against all references of each image.

    The references are tokenised and counted once, here, so that an epoch costs only its own captions. The state is one
    row of statistics per image, -1 where the image has not been scored; processes are joined by the maximum. So an
    image that the sampler gave to two processes counts once, and the result is that of a single process, bit for bit.
    An image scored twice in one process keeps its last caption.

    Args:
        references: Image id to its references, raw text, one or more each.

    Raises:
        UserError: No image, or an image without references.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: Tensor

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._references = References(references)
        self._index = {image_id: i for i, image_id in enumerate(references)}
        size = (len(references), len(STATISTICS))
        self.add_state("rows", torch.full(size, _NOT_SCORED, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """Score captions.

        Args:
            image_ids: Ids of the images, as in the references.
            captions: One generated caption per image, raw text; may be empty.

        Raises:
            UserError: An image id has no references.
            ValueError: The two lists differ in length.
        """
        rows = self._references.rows(image_ids, captions)
        if len(rows):
            places = torch.tensor([self._index[image_id] for image_id in image_ids], device=self.rows.device)
            self.rows[places] = torch.from_numpy(rows).to(self.rows)

    def compute(self) -> dict[str, Tensor]:
        """Scores over the images scored so far: ``bleu1`` .. ``bleu4``, ``rouge_l`` in [0, 1], ``cider_d`` in [0, 10].

        Zero-dimensional float32 tensors; NaN where no image was scored.
        """
        scores = corpus_scores(self.image_scores().rows)
        return {
            name: torch.tensor(value, dtype=torch.float32, device=self.rows.device) for name, value in scores.items()
        }

    def image_scores(self) -> ImageScores:
        """Statistics of the images scored so far by this process, for tables per image and the paired bootstrap."""
        rows = self.rows.cpu().numpy()
        scored = rows[:, 0] >= 0
        return ImageScores([i for i, known in zip(self._index, scored, strict=True) if known], rows[scored])

    def _apply(self, fn: Callable[..., Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # Apple's MPS has no float64; there the rows stay in main memory
        if fn(torch.zeros(1)).device.type == "mps":
            exclude_state = [*exclude_state, "rows"]
        return super()._apply(fn, exclude_state)
