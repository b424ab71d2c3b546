"""The words of captions, in any order, as features: content for a captioner where there are no images.

Letters: N captions, D width.
"""

import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from datamodules.stored_features.files import FLUSH_ROWS, FeatureStore, Half, write_store

_WORD = re.compile(r"\w+")


def word_vector(caption: str, width: int) -> Half:
    """Counts n of hashed words as 1 + ln n, of length sqrt(D), so that a network reads numbers of usual size; `(D,)`.

    >>> vector = word_vector("a dog and a dog", 64)
    >>> int((vector > 0).sum()), bool((vector == word_vector("dog dog a and a", 64)).all())
    (3, True)
    """
    counts = Counter(zlib.crc32(word.encode()) % width for word in _WORD.findall(caption.lower()))
    vector = np.zeros(width)
    for place, count in counts.items():
        vector[place] = 1 + math.log(count)
    return (vector * math.sqrt(width) / max(1.0, float(np.linalg.norm(vector)))).astype(np.float16)


def word_store(captions: Sequence[str], width: int, cache_dir: Path) -> FeatureStore:
    """Vectors of captions in a file, made if it is not there; a caption is one region, `(N, 1, D)`.

    Args:
        captions: N of them.
        width: D.
        cache_dir: folder of the stores.

    Raises:
        UserError: no room on the disk.
    """
    digest = hashlib.sha256("\n".join([str(width), *captions]).encode()).hexdigest()[:16]
    folder = cache_dir / f"words-{digest}"

    def batches(done: int) -> Iterable[Half]:
        for start in range(done, len(captions), FLUSH_ROWS):
            yield np.stack([word_vector(caption, width) for caption in captions[start : start + FLUSH_ROWS]])[:, None]

    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return FeatureStore(folder)
        return write_store(folder, (len(captions), 1, width), {"words": width}, batches)
