"""Splits by image where the data has none."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from core.errors import DataError, UserError
from datamodules.readers.records import SPLITS


def seeded_order(keys: Iterable[Hashable], seed: int) -> list[int]:
    """A shuffled order that depends only on the keys' text and the seed, not on their order or number.

    Returns:
        Places in `keys`.
    """
    digests = [hashlib.sha256(f"{seed}:{key}".encode()).digest() for key in keys]
    return sorted(range(len(digests)), key=digests.__getitem__)


def check_fractions(fractions: tuple[float, float]) -> None:
    """Stops at shares that are negative or leave nothing for training.

    Args:
        fractions: shares of val and test.

    Raises:
        UserError: they do.
    """
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise UserError(
            f"val_fraction={fractions[0]} and test_fraction={fractions[1]}: expected 0 or more, sum below 1"
        )


def assign_splits(
    keys: Sequence[Hashable], given: Sequence[str | None], fractions: tuple[float, float], seed: int, source: str
) -> list[str]:
    """Gives every image a split: its own where the data says so, else a seeded one.

    A split that the data does not have is taken from train, `fractions` of it; val and test are never touched.

    Args:
        keys: identifiers of the images.
        given: the split of each image as the data has it, or None; ``restval`` counts as train.
        fractions: shares of val and test, each 0 (no such split) or more.
        seed: seed of the draw.
        source: file for messages.

    Returns:
        The split of each image.

    Raises:
        UserError: the shares leave nothing for training.
        DataError: some images have a split and some have not.
    """
    check_fractions(fractions)
    unknown = sum(split is None for split in given)
    if 0 < unknown < len(given):
        example = keys[list(given).index(None)]
        raise DataError(f"{source}: {unknown} of {len(given)} images have no split, such as {example}; give one to all")
    splits = ["train" if split in (None, "restval") else str(split) for split in given]
    train = [index for index, split in enumerate(splits) if split == "train"]
    order = [train[place] for place in seeded_order([keys[index] for index in train], seed)]
    start = 0
    for name, fraction in zip(("val", "test"), fractions, strict=True):
        if name in splits or fraction == 0 or len(train) < len(SPLITS):
            continue
        end = start + max(1, round(fraction * len(train)))
        for index in order[start:end]:
            splits[index] = name
        start = end
    return splits


def split_counts(splits: Iterable[str]) -> str:
    """How many images each split has, for messages.

    >>> split_counts(["train", "val", "train"])
    '2 train, 1 val, 0 test'
    """
    counts = Counter(splits)
    return ", ".join(f"{counts[name]} {name}" for name in SPLITS)
