"""What every network for emotions shares: blocks in order, rows of text, a summary of the picture.

Letters: B images, N captions, T tokens, M scored rows, R regions, D width of a region, C labels.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import DataError, UserError
from networks.classifiers.base import Classifier
from networks.encoders.build import ImageEncoder

Block = tuple[str, list[nn.Module | nn.Parameter]]
"""A name and what belongs together when layers are copied or frozen."""


class EmotionNetwork(Classifier):
    """A classifier whose layers can be counted from the input, for transfer (Yosinski et al. 2014).

    Attributes:
        head: the last layer, which is no block: it is new for every task unless asked for.
    """

    head: nn.Linear

    def __init__(self) -> None:
        super().__init__()
        self.encoder: ImageEncoder | None = None
        """CNN that makes regions of images; None: there is none."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """The network without its head, in order from the input; cut depth n means the first n of them."""

    def last_layers(self) -> list[nn.Linear]:
        """The layers that a network of another architecture starts its head from: fc1 and fc2, or the head alone."""
        return [self.head]

    def pretrained_modules(self) -> Sequence[nn.Module]:
        """Parts for which there are published weights; they learn at a rate of their own."""
        return ()


def present(*modules: nn.Module | None) -> list[nn.Module]:
    """Those modules that there are."""
    return [module for module in modules if module is not None]


def caption_rows(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Captions of a batch that has at least one for each picture.

    Returns:
        ``caption_ids (N, T)``, ``caption_lengths (N,)`` and ``image_index (N,)``.

    Raises:
        DataError: a picture has no caption.
    """
    index = batch["image_index"]
    counts = torch.bincount(index, minlength=len(batch["image_id"]))
    if not bool((counts > 0).all()):
        without = batch["image_id"][int((counts == 0).nonzero()[0, 0])]
        raise DataError(
            f"image '{without}' has no caption, but this network reads captions: give it one, or use a network that "
            "only looks"
        )
    return batch["caption_ids"], batch["caption_lengths"], index


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """True where a token is real: `(N,)` lengths to `(N, width)` bool.

    >>> length_mask(torch.tensor([2, 3]), 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def image_regions(batch: Batch, encoder: ImageEncoder | None) -> tuple[Tensor, Tensor]:
    """Regions of each picture: through an encoder, or those that the batch brings.

    Returns:
        Regions `(B, R, D)`, float, and True where one is real, `(B, R)`, bool.

    Raises:
        UserError: the batch has neither pictures nor features where they are wanted.
    """
    if encoder is not None:
        regions = encoder.grid(picture_of(batch))
        return regions, torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
    if "features" not in batch:
        raise UserError("the batches have no features: set data.init_args.encoder, or model.init_args.image_encoder")
    return batch["features"], batch["feature_mask"]


def picture_of(batch: Batch) -> Tensor:
    """Pictures of a batch, `(B, 3, H, W)`.

    Raises:
        UserError: it has none.
    """
    if "image" not in batch:
        raise UserError(
            "the batches have no pictures, but this network looks at them: set model.init_args.use_image to false "
            "to work with captions only"
        )
    return batch["image"]


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real regions, zero where there are none: `(B, R, D)` and `(B, R)` to `(B, D)`."""
    weights = mask.to(features.dtype).unsqueeze(2)
    return (features * weights).sum(1) / weights.sum(1).clamp_min(1.0)
