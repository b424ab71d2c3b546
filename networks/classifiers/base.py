"""What every multi-label classifier offers.

Letters: B images, M scored rows, C labels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.batch import Batch


@dataclass
class LabelOutput:
    """Scores of a batch.

    A network that reads captions scores every image with each of its captions: M = N rows. One that reads images alone
    has M = B.

    Attributes:
        logits: one score per label, before the sigmoid, `(M, C)`.
        image_index: the image of each row, `(M,)`, long in [0, B).
    """

    logits: Tensor
    image_index: Tensor

    def probabilities(self, images: int) -> Tensor:
        """Probability of every label of every image, the mean over its rows, `(B, C)`, float32 in [0, 1].

        Args:
            images: B; each must have a row.
        """
        rows = self.logits.float().sigmoid()
        total = rows.new_zeros(images, rows.shape[1]).index_add_(0, self.image_index, rows)
        counts = torch.bincount(self.image_index, minlength=images).unsqueeze(1)
        return total / counts


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """A network with what is needed to name labels.

    Attributes:
        classifier: the network.
        names: C names; empty where a checkpoint has none.
        threshold: a label is predicted from this probability on; None: labels exclude each other, and the most probable
            one is predicted.
        reads_images: it needs images.
        reads_text: it needs captions.
    """

    classifier: "Classifier"
    names: tuple[str, ...]
    threshold: float | None = 0.5
    reads_images: bool = True
    reads_text: bool = False


class Classifier(nn.Module, ABC):
    """A network that scores every label of each image, with or without its captions.

    Attributes:
        num_labels: number of labels C.
    """

    num_labels: int

    @abstractmethod
    def forward(self, batch: Batch) -> LabelOutput:
        """Scores the images of a batch."""
