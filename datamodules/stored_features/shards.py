"""Parts of a feature store that several processes or machines compute.

A part is a store of its own, beside the whole one, which is put together from the parts that are there. Its rows begin
at a multiple of the batch, so that a picture meets the same batch, and gets the same bytes, as without parts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from datamodules.stored_features.files import FeatureStore, Half

_NAME = re.compile(r"\.shard-(\d+)-of-(\d+)$")


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of several.

    Attributes:
        number: from 1.
        total: how many there are.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads "I/N".

        Raises:
            UserError: it is no part of N.

        >>> Shard.parse("2/4")
        Shard(number=2, total=4)
        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"shard {text!r}: expected I/N, part I of N, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def rows(self, images: int, unit: int) -> range:
        """Its rows; all but the last row of all begin and end at multiples of `unit`.

        >>> [Shard(number, 3).rows(100, 32) for number in (1, 2, 3)]
        [range(0, 32), range(32, 64), range(64, 100)]
        """
        units = images // unit
        first, last = ((units * place // self.total) * unit for place in (self.number - 1, self.number))
        return range(first, images if self.number == self.total else last)

    def folder(self, store: Path) -> Path:
        """Where it lies beside the whole store."""
        return store.with_name(f"{store.name}.shard-{self.number}-of-{self.total}")


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
