"""Pseudo-labels of very many images: predicted file by file, so the same command goes on where it was stopped."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from datamodules.readers.probability_files import find_probabilities, read_shards
from tests.faults.chains import Result, expected
from tests.faults.comparison import leftovers
from tests.faults.house import House

TWIN = "emotion_pseudo_labels"


def labels(house: House, name: str, what: str) -> Result:
    """A prediction of pseudo-labels meets faults, and is called again after each.

    Args:
        house: folders and random numbers.
        name: of the case.
        what: kind of faults.
    """
    result, run = Result(name=name), house.fresh(name)
    alone, words = house.alone(TWIN), [*house.words(TWIN, "plain"), "--run_dir", str(run)]
    faults = house.faults(name, what, TWIN, "plain", house.dice(name).randint(1, 4))
    for fault in [*faults, None]:
        ended = house.run(words, run, fault)
        result.took(f"predict, {fault}" if fault else "predict", ended)
        result.wrong += expected(fault, ended)
        if ended.code == 0 or result.wrong:
            break
    if not result.wrong:
        result.wrong += _compare(rows(alone), rows(run)) + [f"left over: {file}" for file in leftovers(run)]
    if not result.wrong:
        shutil.rmtree(run, ignore_errors=True)
    return result


def rows(run: Path) -> list[tuple[object, ...]]:
    """Ids and probabilities of all complete files, by their ids."""
    tables = [pq.read_table(path) for path in read_shards(find_probabilities(run))]
    return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())


def _compare(alone: list[tuple[object, ...]], found: list[tuple[object, ...]]) -> list[str]:
    if alone == found:
        return []
    doubled = len(found) - len({row[0] for row in found})
    return [f"pseudo-labels: {len(found)} rows of {len(alone)}, {doubled} doubled"]
