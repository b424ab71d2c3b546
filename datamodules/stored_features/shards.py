"""Parts of a feature store that several processes or machines compute.

A part is a store of its own, beside the whole one, which is put together from the parts that are there. Its rows begin
at a multiple of the batch, so that a picture meets the same batch, and gets the same bytes, as without parts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.shards import Shard
from datamodules.stored_features.files import FeatureStore, Half

_NAME = re.compile(r"\.shard-(\d+)-of-(\d+)$")


def shard_folder(store: Path, shard: Shard) -> Path:
    """Where a part lies beside the whole store."""
    return store.with_name(f"{store.name}.shard-{shard.number}-of-{shard.total}")


def finished_shards(store: Path, images: int, unit: int) -> dict[Shard, Path]:
    """The parts of a store that are complete."""
    found = {}
    for folder in sorted(store.parent.glob(f"{store.name}.shard-*-of-*")):
        match = _NAME.search(folder.name)
        if match and folder.is_dir():
            shard = Shard(int(match[1]), int(match[2]))
            if len(FeatureStore(folder)) == len(shard.rows(images, unit)):
                found[shard] = folder
    return found


@dataclass(frozen=True)
class Piece:
    """Rows of a store one after the other, from a finished part or to be computed.

    Attributes:
        rows: which.
        folder: the part that has them; None: nobody has.
    """

    rows: range
    folder: Path | None

    def read(self, first: int, unit: int) -> Iterator[Half]:
        """The rows from `first` on, in batches."""
        assert self.folder is not None
        store, offset = FeatureStore(self.folder), self.rows.start
        for start in range(max(first, offset), self.rows.stop, unit):
            yield store[start - offset : min(start + unit, self.rows.stop) - offset].numpy()


def pieces(store: Path, images: int, unit: int) -> list[Piece]:
    """All rows of a store, as finished parts and gaps between them."""
    parts, position = [], 0
    finished = {shard.rows(images, unit): folder for shard, folder in finished_shards(store, images, unit).items()}
    for rows, folder in sorted(finished.items(), key=lambda item: item[0].start):
        if rows.start < position or not rows:  # parts of another division, or more parts than batches
            continue
        if rows.start > position:
            parts.append(Piece(range(position, rows.start), None))
        parts.append(Piece(rows, folder))
        position = rows.stop
    if position < images:
        parts.append(Piece(range(position, images), None))
    return parts
