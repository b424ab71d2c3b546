"""Probabilities of labels as `callbacks.pseudo_labels` writes them: a folder of Parquet files.

Letters: n images, C labels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import DataError
from core.inputs import damage, open_regular
from core.parquet import open_table, read_rows

SHARDS = "rank*.parquet"
"""Names of the complete files."""
_AGAIN = "remove it and predict again"


@dataclass(frozen=True, kw_only=True)
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
    with damage(path, "a Parquet file", _AGAIN, DataError), open_regular(path) as file:
        metadata = open_table(file).schema_arrow.metadata or {}
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
    with damage(shards[0], "a file of probabilities", _AGAIN, DataError):
        names: tuple[str, ...] = tuple(map(str, json.loads(facts[0]["label_names"])))
        table = pa.concat_tables(_read_shard(shard, names) for shard in shards)
    values = np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32)
    places: dict[str, int] = {}
    for place, image_id in enumerate(table["image_id"].to_pylist()):
        places.setdefault(image_id, place)
    return Probabilities(image_ids=list(places), label_names=names, values=values[list(places.values())])


def _read_shard(path: Path, names: Sequence[str]) -> pa.Table:
    """The rows of a file: ids as text, probabilities as numbers, none missing."""
    columns = [pa.field("image_id", pa.string()), *(pa.field(name, pa.float32()) for name in names)]
    with damage(path, "a file of probabilities", _AGAIN, DataError), open_regular(path) as file:
        table = read_rows(open_table(file), file, columns=[column.name for column in columns]).cast(pa.schema(columns))
        wrong = next((name for name in table.column_names if table[name].null_count), None)
        if wrong is not None:
            raise DataError(f"{path}: column '{wrong}' has empty cells; {_AGAIN}")
        for name in names:
            least, most = pc.min_max(table[name]).as_py().values()
            if table.num_rows and not 0 <= least <= most <= 1:
                raise DataError(f"{path}: column '{name}' has values from {least} to {most}, not from 0 to 1; {_AGAIN}")
        return table
