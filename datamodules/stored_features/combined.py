"""Stores made of others without copying them: rows that several examples share, and words behind every region.

Letters: N rows, M rows of a store, R regions, C width of a region, W width of a vector of words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.stored_features.files import FeatureStore


class SharedRows(FeatureStore):
    """Row i is row `places[i]` of one store, and behind each of its regions stands that row of another one, if given.

    Args:
        places: N of them, in [0, M).
        images: M images, `(M, R, C)`.
        words: M vectors, `(M, 1, W)`.
    """

    def __init__(self, *, places: Sequence[int], images: FeatureStore, words: FeatureStore | None = None) -> None:
        # nothing of its own is on the disk, so the constructor of a store in a folder is not called
        self.folder = images.folder
        self.places, self.images, self.words = list(places), images, words

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, R, C + W."""
        _, regions, width = self.images.shape
        return len(self.places), regions, width + (0 if self.words is None else self.words.shape[2])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        """Features of an image, `(R, C + W)`, float16, or of several, `(n, R, C + W)`."""
        if isinstance(index, int):
            return self._with_words(self.images[self.places[index]], self.places[index])
        return torch.stack([self[place] for place in np.arange(len(self))[index].tolist()])

    def regions(self, index: int) -> Tensor:
        """Features of the regions that an image has, `(r, C + W)`, float16."""
        return self._with_words(self.images.regions(self.places[index]), self.places[index])

    def _with_words(self, regions: Tensor, place: int) -> Tensor:
        if self.words is None:
            return regions
        return torch.cat([regions, self.words[place].expand(len(regions), -1)], dim=1)

    def means(self) -> NDArray[np.float32]:
        """Mean over the regions of every image, `(N, C + W)`."""
        parts = [store.means() for store in (self.images, self.words) if store is not None]
        return np.hstack(parts)[self.places]

    def __getstate__(self) -> dict[str, Any]:
        """Processes get the folders, not the content."""
        return {"folder": self.folder, "places": self.places, "images": self.images, "words": self.words}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
