"""Reading the images of a feature store in order, with a bar.

Letters: B images, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from core.errors import DataError
from datamodules.readers.image_refs import ImageRef
from datamodules.readers.images import SKIP
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.pictures import InProportion, Pictures, stack_pictures


@dataclass
class Images(Dataset[Tensor]):
    """Images as tensors; those that fail as the message that says why."""

    examples: Sequence[Example]
    prepare: ImageTransform | InProportion

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.prepare(image_of(self.examples[index]).open(self.prepare.min_side))
        except DataError as error:  # raised in a worker it would lose its one-line message
            return str(error)


def image_of(example: Example) -> ImageRef:
    """The image of an example.

    Raises:
        DataError: it has none.
    """
    if example.image is None:
        raise DataError(f"{example.origin}: has no image, so it has no features; set encoder to null")
    return example.image


def stamp_of(example: Example) -> str:
    """Text that changes with the image.

    Raises:
        DataError: there is no such file.
    """
    try:
        return image_of(example).stamp()
    except OSError as error:
        where = f" (for {example.origin})" if example.origin else ""
        raise DataError(f"{example.image_name}: no such image file{where}; put it there, or {SKIP}") from error


def collate(items: list[Tensor | str]) -> Pictures | str:
    """A batch, or the first message."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    return stack_pictures(tensors) if len(tensors) == len(items) else next(i for i in items if isinstance(i, str))


def with_progress(loader: Iterable[Pictures | str], start: int, total: int) -> Iterator[Pictures]:
    """The batches, with a bar on standard error."""
    from core.terminal import task_bar

    with task_bar(transient=True, count=True) as bar:
        task = bar.add_task("image features", total=total, completed=start)
        for images in loader:
            if isinstance(images, str):
                raise DataError(images)
            yield images
            bar.advance(task, len(images.pixels))
