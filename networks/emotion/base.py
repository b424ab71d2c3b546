"""What every network for emotions shares: blocks in order, captions that must exist.

Letters: B images, N captions, T tokens, C labels.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from core.batch import Batch
from core.errors import DataError
from networks.classifiers.base import Classifier
from networks.encoders.base import ImageEncoder
from networks.layers.sequences import on_host

Block = tuple[str, list[nn.Module | nn.Parameter]]
"""A name and the modules that are copied or frozen together."""


class EmotionNetwork(Classifier):
    """A classifier whose layers can be counted from the input, for transfer (Yosinski et al. 2014).

    Attributes:
        head: the last layer, which is not a block: it is new for every task unless requested.
    """

    head: nn.Linear

    def __init__(self) -> None:
        super().__init__()
        self.encoder: ImageEncoder | None = None
        """CNN that computes the regions or vectors of images; None: there is none."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """The network without its head, in order from the input; cut depth n means the first n of them."""

    def last_layers(self) -> list[nn.Linear]:
        """Layers that the head of a network of another architecture is initialised from: fc1 and fc2, or the head."""
        return [self.head]

    def pretrained_modules(self) -> Sequence[nn.Module]:
        """Parts with published weights, which have a learning rate of their own."""
        return ()

    def new_modules(self) -> Sequence[nn.Module]:
        """Parts of blocks that have no published weights, and so learn whatever is frozen around them."""
        return ()


def present(*modules: nn.Module | None) -> list[nn.Module]:
    """The modules that are not None."""
    return [module for module in modules if module is not None]


def caption_rows(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Captions of a batch that has at least one for each image.

    Returns:
        ``caption_ids (N, T)``, ``caption_lengths (N,)`` and ``image_index (N,)``.

    Raises:
        DataError: an image has no caption.
    """
    index = batch["image_index"]
    known = set(on_host(index))
    missing = [place for place in range(len(batch["image_id"])) if place not in known]
    if missing:
        without = batch["image_id"][missing[0]]
        raise DataError(
            f"image '{without}' has no caption, but this network reads captions: add one, or use a network that reads "
            "images only"
        )
    return batch["caption_ids"], batch["caption_lengths"], index
