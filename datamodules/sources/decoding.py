"""Decoding the pictures of a source in worker processes, in their order and in bounded memory.

Letters: B pictures of a batch, H x W pixels of the largest.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.errors import DataError
from core.processes import end_with_parent
from datamodules.readers.hub_rows import FETCHING_WAYS_OUT, RemoteImage, is_address
from datamodules.readers.images import WAYS_OUT, open_image
from datamodules.readers.transforms import ImageTransform
from datamodules.sources.base import PictureSource, RawPicture, valid_text
from datamodules.stored_features.pictures import InProportion, stack_pictures

_AHEAD = 2
"""Batches that a worker prepares before they are asked for."""


class DecodedBatch(TypedDict):
    """A batch of decoded pictures, as plain columns with B entries each.

    Attributes:
        position: place of each in the source, `(B,)`, int64.
        image: its name.
        error: why it cannot be used; None when it can.
        pixels: `(B, 3, H, W)`, float32, padded with zeros at the right and bottom; zeros where there is an error.
        sizes: height and width of each, `(B, 2)`, int64; 0 where there is an error.
    """

    position: Tensor
    image: list[str]
    error: list[str | None]
    pixels: Tensor
    sizes: Tensor


def decode_pictures(source: PictureSource, rows: range, prepare: ImageTransform | InProportion) -> DecodedBatch:
    """Reads and decodes some pictures of a source.

    Args:
        source: the pictures.
        rows: which of them.
        prepare: what the model reads of a picture.

    Raises:
        DataError: a whole file of the source cannot be read.
    """
    raw = list(source.read(rows))
    found = [_decoded(picture, prepare) for picture in raw]
    good = [row for row, one in enumerate(found) if isinstance(one, Tensor)]
    pixels, sizes = torch.zeros(len(raw), 3, 1, 1), torch.zeros(len(raw), 2, dtype=torch.int64)
    if good:
        stacked = stack_pictures([one for one in found if isinstance(one, Tensor)])
        whole = len(good) == len(raw)
        pixels = stacked.pixels if whole else torch.zeros(len(raw), *stacked.pixels.shape[1:])
        if not whole:
            pixels[good] = stacked.pixels
        sizes[good] = stacked.sizes
    return {
        "position": torch.arange(rows.start, rows.stop),
        "image": [picture.name for picture in raw],
        "error": [one if isinstance(one, str) else None for one in found],
        "pixels": pixels,
        "sizes": sizes,
    }


def _decoded(picture: RawPicture, prepare: ImageTransform | InProportion) -> Tensor | str:
    """The tensor of a picture, or why there is none."""
    if picture.content is None:
        return "there is no picture, or one of more than 268 million bytes"
    try:
        if is_address(picture.content):
            return prepare(RemoteImage(str(picture.content)).open(prepare.min_side))
        return prepare(open_image(picture.content, name=picture.name, min_side=prepare.min_side))
    except DataError as error:
        text = str(error).removeprefix(f"{picture.name}: ").removesuffix(f"; {WAYS_OUT}")
        return valid_text(text.removesuffix(f"; {FETCHING_WAYS_OUT}"))


class _Batches(Dataset[Any]):
    """Decodes a range of rows at once."""

    def __init__(self, source: PictureSource, prepare: ImageTransform | InProportion) -> None:
        self.source, self.prepare = source, prepare

    def __getitem__(self, rows: range) -> DecodedBatch:
        return decode_pictures(self.source, rows, self.prepare)


@contextlib.contextmanager
def decoding(
    source: PictureSource,
    batches: Callable[[], Iterator[range]],
    prepare: ImageTransform | InProportion,
    workers: int,
) -> Generator[Iterator[DecodedBatch], None, None]:
    """Decodes batch after batch; the processes end with the block, and with this process however it ends.

    Args:
        source: the pictures.
        batches: the rows of each batch.
        prepare: what the model reads of a picture.
        workers: processes; 0: this one.

    Yields:
        The batches in their order; each worker is at most two of them ahead.
    """
    loader = DataLoader(
        _Batches(source, prepare),
        batch_size=None,
        sampler=_Sampler(batches),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # of whole batches
        worker_init_fn=partial(_begin, os.getpid()),
    )
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        del iterator


class _Sampler:
    """Ranges of rows, made anew for each pass."""

    def __init__(self, batches: Callable[[], Iterator[range]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[range]:
        return self._batches()


def _as_it_is(batch: DecodedBatch) -> DecodedBatch:
    return batch


def _begin(parent: int, worker: int) -> None:
    """A worker ends with its parent and by nothing else: a signal to the whole group is for the parent."""
    del worker
    end_with_parent(parent)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
