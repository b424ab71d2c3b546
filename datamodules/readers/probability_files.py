"""Probabilities of labels as `callbacks.pseudo_labels` writes them: a folder of Parquet files.

Letters: n images, C labels.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.errors import DataError

SHARDS = "rank*.parquet"
"""Names of the complete files."""


@dataclass(frozen=True)
class Probabilities:
    """What a model said of many images.

    Attributes:
        image_ids: n ids.
        label_names: C names.
        values: probabilities, `(n, C)`, float32 in [0, 1].
    """

    image_ids: list[str]
    label_names: tuple[str, ...]
    values: NDArray[np.float32]


def read_shards(folder: Path) -> list[Path]:
    """The complete files of a folder, in the order of ranks and of writing; none when there is no such folder."""
    return sorted(folder.glob(SHARDS))


def shard_facts(path: Path) -> dict[str, str]:
    """What is noted in a file.

    Raises:
        DataError: it is not readable.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); remove it and predict again") from error
    return {key.decode(): value.decode() for key, value in metadata.items()}


def find_probabilities(path: str | Path) -> Path:
    """The folder that a path means: itself, or ``pseudo_labels`` in a run's folder.

    Raises:
        DataError: there are no complete files.
    """
    for folder in (Path(path), Path(path) / "pseudo_labels"):
        if read_shards(folder):
            return folder
    raise DataError(
        f"{path}: no {SHARDS} in it; write them with python cli.py predict and the callback "
        "callbacks.pseudo_labels.PseudoLabelWriter"
    )


def read_probabilities(path: str | Path) -> Probabilities:
    """Reads all complete files of a folder.

    An image that is in two of them, as after a kill at the wrong moment, counts once, with its first row.

    Raises:
        DataError: there are none, one is broken, or they are of different models.
    """
    folder = find_probabilities(path)
    shards = read_shards(folder)
    facts = [shard_facts(shard) for shard in shards]
    other = next((shard for shard, own in zip(shards, facts, strict=True) if own != facts[0]), None)
    if other is not None or "label_names" not in facts[0]:
        wrong = other or shards[0]
        raise DataError(f"{wrong}: of another model than {shards[0].name}; keep files of one model in {folder}")
    names: tuple[str, ...] = tuple(json.loads(facts[0]["label_names"]))
    try:
        table = pa.concat_tables(pq.read_table(shard) for shard in shards)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{folder}: a file cannot be read ({error}); remove it and predict again") from error
    values = np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32)
    places: dict[str, int] = {}
    for place, image_id in enumerate(table["image_id"].to_pylist()):
        places.setdefault(image_id, place)
    return Probabilities(list(places), names, values[list(places.values())])
