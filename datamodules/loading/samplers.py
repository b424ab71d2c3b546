"""Order of the training images as a pure function of (seed, epoch), so that a run resumes exactly where it stopped.

Nothing random is saved in a checkpoint: the order, the captions drawn and the augmentation are computed again from
the seed, the epoch and the index.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from core.seeds import derive_seed

IndexInEpoch = tuple[int, int]
"""(index of the image, epoch it is read in)."""


class EpochSampler(Sampler[IndexInEpoch]):
    """Yields (index, epoch) in an order that depends on seed and epoch alone, split over the ranks.

    Training order is padded so that every rank makes the same number of steps (a gradient is exchanged at each);
    without shuffling nothing is padded, so that evaluation sees every image exactly once.

    Args:
        size: number of images.
        shuffle: a new permutation every epoch; False = file order.
        seed: seed of the permutations.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.shuffle, self.seed = size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.position: Callable[[], tuple[int, int]] | None = None
        """Gives (epoch, images of this rank already seen in it), asked at the start of every iteration.

        A function, since Lightning may ask for the loader before it has restored the position of a resumed run.
        """

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; called by Lightning before each."""
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """Image indices that this rank reads in an epoch, all of them, wherever it begins."""
        if not self.shuffle:
            return list(range(self.rank, self.size, self.world_size))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        missing = -len(order) % self.world_size
        order += (order * (missing // len(order) + 1))[:missing] if order else []
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[IndexInEpoch]:
        epoch, start = self.position() if self.position is not None else (self.epoch, 0)
        return ((index, epoch) for index in self.order(epoch)[start:])

    def __len__(self) -> int:
        return len(range(self.rank, self.size + (-self.size % self.world_size if self.shuffle else 0), self.world_size))


class StreamSampler(EpochSampler):
    """Training order of images that lie in shards, one shard after the other, in memory that does not grow with them.

    In every epoch the shards are shuffled and put in line. Each rank takes an equal piece of the line (its end is
    filled from the beginning so that all are equally long), and shuffles it in windows: `buffer` images that follow one
    another are permuted. The order of a window is a function of seed, epoch, rank and its number, so an iteration
    begins anywhere without going through what was before.

    Args:
        sizes: images of each shard.
        buffer: images of a window.
        seed: seed of the permutations.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, sizes: Sequence[int], *, buffer: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(sum(sizes), shuffle=True, seed=seed, rank=rank, world_size=world_size)
        self.sizes, self.buffer = np.asarray(sizes, np.int64), buffer

    def order(self, epoch: int) -> list[int]:
        """Image indices that this rank reads in an epoch, all of them."""
        return [index for window in self._windows(epoch, 0) for index in window.tolist()]

    def __iter__(self) -> Iterator[IndexInEpoch]:
        epoch, start = self.position() if self.position is not None else (self.epoch, 0)
        skipped = start % self.buffer
        for window in self._windows(epoch, start // self.buffer):
            yield from ((index, epoch) for index in window[skipped:].tolist())
            skipped = 0

    def _windows(self, epoch: int, first: int) -> Iterator[NDArray[np.int64]]:
        """The windows of an epoch in order, from one of them on."""
        shards = _permutation(len(self.sizes), self.seed, epoch)
        starts = np.concatenate([[0], np.cumsum(self.sizes)])[shards]
        ends = np.cumsum(self.sizes[shards])
        length = len(self)
        for number in range(first, -(-length // self.buffer)):
            begin = number * self.buffer
            size = min(self.buffer, length - begin)
            places = _permutation(size, self.seed, epoch, self.rank, number) + (self.rank * length + begin)
            places %= self.size
            found = np.searchsorted(ends, places, side="right")
            yield starts[found] + places - (ends[found] - self.sizes[shards][found])


def _permutation(size: int, *seeds: int) -> NDArray[np.int64]:
    """A permutation that is a function of some integers."""
    order: NDArray[np.int64] = torch.randperm(
        size, generator=torch.Generator().manual_seed(derive_seed(*seeds))
    ).numpy()
    return order


class ChosenSampler(Sampler[IndexInEpoch]):
    """Yields chosen images in the given order, once, without padding.

    Args:
        indices: the images that this rank reads.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[IndexInEpoch]:
        return ((index, 0) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)
