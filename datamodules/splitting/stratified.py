"""Splits by image that keep the share of every label, the same for all stages of an experiment.

Letters: n images, C labels.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError, UserError
from core.files import write_cache
from core.inputs import read_object
from datamodules.readers.records import SPLITS
from datamodules.splitting.splits import check_fractions, seeded_order

Labels = Sequence[Sequence[float]]


def stratified_splits(keys: Sequence[str], labels: Labels, fractions: tuple[float, float], seed: int) -> list[str]:
    """Draws val and test so that every label has its share in each (Sechidis et al. 2011).

    The draw depends on the keys, labels and seed, not on the order of the images.

    Args:
        keys: n different ids.
        labels: multi-label targets, `(n, C)`; 0.5 and more counts as present.
        fractions: shares of val and test, each 0 (no such split) or more.
        seed: seed of the draw.

    Returns:
        train, val or test for each image.

    Raises:
        UserError: the shares leave nothing for training.
    """
    check_fractions(fractions)
    order = seeded_order(keys, seed)
    present = _present(labels)[order]
    places = np.arange(len(keys))
    taken = {"test": _share(present, _count(fractions[1], len(keys)), seed)}
    rest = np.setdiff1d(places, taken["test"])
    taken["val"] = rest[_share(present[rest], _count(fractions[0], len(keys)), seed)]
    return _named(len(keys), {name: [order[place] for place in found] for name, found in taken.items()})


def fold_splits(
    keys: Sequence[str], labels: Labels, folds: int, fold: int, val_fraction: float, seed: int
) -> list[str]:
    """One round of cross-validation: a fold is test, a share of the others val, the rest train.

    Over all `fold` every image is test once.

    Args:
        keys: n different ids.
        labels: multi-label targets, `(n, C)`.
        folds: number of folds, at least 2.
        fold: which one is test, in [0, folds).
        val_fraction: share of all images for validation, taken from the other folds; 0: none.
        seed: seed of the draw.

    Returns:
        train, val or test for each image.

    Raises:
        UserError: a number is out of range.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if not 2 <= folds <= len(keys) or not 0 <= fold < folds:
        raise UserError(f"folds={folds}, fold={fold}: expected 2 folds or more (at most the images), fold below folds")
    if not 0 <= val_fraction < 1 - 1 / folds:
        raise UserError(f"val_fraction is {val_fraction}: expected 0 or more, less than the other folds have")
    order = seeded_order(keys, seed)
    present = _present(labels)[order]
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    rest, test = list(splitter.split(np.zeros((len(keys), 1)), present))[fold]
    val = rest[_share(present[rest], _count(val_fraction, len(keys)), seed)]
    taken = {"test": test, "val": val}
    return _named(len(keys), {name: [order[place] for place in found] for name, found in taken.items()})


def kept_splits(
    keys: Sequence[str],
    labels: Labels,
    fractions: tuple[float, float],
    seed: int,
    folds: int | None,
    fold: int,
    path: Path,
) -> list[str]:
    """Splits of a file if it is there, else drawn and written into it, so that every stage reads the same.

    Args:
        keys: n different ids.
        labels: multi-label targets, `(n, C)`.
        fractions: shares of val and test; with folds only that of val is used.
        seed: seed of the draw.
        folds: number of folds; None: a single split by `fractions`.
        fold: which fold is test.
        path: a JSON file (image id to split), or a folder in which the file is named by all that the draw depends on.

    Returns:
        train, val or test for each image.

    Raises:
        UserError: a number is out of range.
        DataError: the file is broken, or does not have an image.
    """
    if path.suffix != ".json":
        facts = json.dumps([list(zip(keys, map(list, labels), strict=True)), fractions, seed, folds, fold])
        path = path / f"split-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return _read(path, keys)
    if folds is None:
        splits = stratified_splits(keys, labels, fractions, seed)
    else:
        splits = fold_splits(keys, labels, folds, fold, fractions[0], seed)
    write_cache(path, json.dumps(dict(zip(keys, splits, strict=True)), ensure_ascii=False, indent=0))
    return splits


def _read(path: Path, keys: Sequence[str]) -> list[str]:
    try:
        found = read_object(path, "remove it, and it is drawn again")
    except UserError as error:
        raise DataError(str(error)) from error
    wrong = next((key for key in keys if found.get(key) not in list(SPLITS)), None)
    if wrong is not None:
        raise DataError(f"{path}: image {wrong} has no split in it; expected train, val or test, or remove the file")
    return [found[key] for key in keys]


def _present(labels: Labels) -> NDArray[np.int64]:
    """Labels as 0 and 1, `(n, C)`, with a column for "none of them", so that such images are shared out too."""
    present = (np.asarray(labels, dtype=float).reshape(len(labels), -1) >= 0.5).astype(np.int64)
    return np.concatenate([present, present.sum(1, keepdims=True) == 0], axis=1).astype(np.int64)


def _share(present: NDArray[np.int64], count: int, seed: int) -> NDArray[np.intp]:
    """Places of about `count` rows with the label shares of all."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    if count == 0:
        return np.zeros(0, dtype=np.intp)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=count / len(present), random_state=seed)
    _, chosen = next(iter(splitter.split(np.zeros((len(present), 1)), present)))
    return np.sort(np.asarray(chosen, dtype=np.intp))


def _named(count: int, taken: dict[str, list[int]]) -> list[str]:
    splits = ["train"] * count
    for name, places in taken.items():
        for place in places:
            splits[place] = name
    return splits


def _count(fraction: float, images: int) -> int:
    """How many images a share is: at least one, unless the share is 0 or there are too few to divide."""
    return 0 if fraction == 0 or images < len(SPLITS) else max(1, round(fraction * images))
