"""Which faults are tried: groups of cases with names, from which everything else is drawn."""

import itertools
from collections.abc import Iterable, Iterator

from tests.faults.chains import Result, chain
from tests.faults.damage import damage
from tests.faults.evaluations import evaluation, recipe
from tests.faults.house import House
from tests.faults.labels import TWIN, labels
from tests.faults.methods import PAIRED, SETTINGS, TRAINED
from tests.faults.pairs import PAIRS, pair
from tests.faults.readers import KINDS, NAMES, reading
from tests.faults.strangers import PLANTS, stranger

GROUPS = {
    "phase": "deaths and signals at phases of a run",
    "file": "deaths at operations on files",
    "write": "operations on files that fail",
    "ranks": "deaths and signals in one of two processes",
    "evaluation": "tests and predictions",
    "recipe": "recipes",
    "labels": "pseudo-labels",
    "pair": "two commands at once in one folder",
    "damage": "damaged files of a run",
    "reader": "damaged files in every reader",
    "stranger": "code of strangers",
}
CHAINS = ("phase", "file", "write")
VARIED = ("dual_transfer", "attention_rnn", "ucm_text_autoencoder", "emotion_transfer")
"""Methods that take turns under the settings; all methods run as their twins are."""
READINGS = 16
"""Damaged files of a round."""
SINGLE = [name for name in SETTINGS if name not in ("plain", *PAIRED)]


def names(groups: list[str]) -> Iterator[str]:
    """Names of cases without an end, the groups in turn: GROUP:METHOD:VARIANT:ROUND."""
    for number in itertools.count(1):
        found = [
            [f"{group}:{twin}:{variant}:{number}" for twin, variant in variants(group, number)] for group in groups
        ]
        for turn in itertools.zip_longest(*found):
            yield from (name for name in turn if name is not None)


def variants(group: str, number: int) -> list[tuple[str, str]]:
    """Methods and variants of a group in a round."""
    turn = [VARIED[(k + number) % len(VARIED)] for k in range(len(SINGLE))]
    if group in CHAINS:
        return [(twin, "plain") for twin in TRAINED] + list(zip(turn, SINGLE, strict=True))
    if group == "ranks":
        return [(turn[0], PAIRED[number % len(PAIRED)])]
    if group == "recipe":
        return [("two stages", CHAINS[number % 3])]
    if group == "labels":
        return [(TWIN, what) for what in CHAINS]
    if group == "reader":
        kinds = _turn(KINDS, READINGS, number)
        return list(zip(_turn(NAMES, READINGS, number), kinds, strict=True))
    kinds = {"pair": PAIRS, "evaluation": CHAINS, "damage": ("plain",) * 3, "stranger": _turn(PLANTS, 4, number)}[group]
    return list(zip(_turn(TRAINED, len(kinds), number), kinds, strict=True))


def _turn(names: Iterable[str], count: int, number: int) -> list[str]:
    """The names of a round, so that all of them have their turn."""
    known = list(names)
    return [known[(number * count + k) % len(known)] for k in range(count)]


def run_case(house: House, name: str) -> Result:
    """Runs a case by its name; a run that fails although it is left alone is what is wrong with it."""
    try:
        return _run_case(house, name)
    except Exception as error:  # of the harness; the other cases go on
        return Result(name, wrong=[f"{type(error).__name__}: {error}"[:3000]])


def _run_case(house: House, name: str) -> Result:
    group, twin, variant, _ = name.split(":")
    if group in CHAINS:
        length = house.dice(name).randint(1, 4)
        return chain(house, name, twin, variant, house.faults(name, group, twin, variant, length))
    if group == "ranks":
        return chain(house, name, twin, variant, house.faults(name, "phase", twin, variant, 2, ranks=2))
    if group == "evaluation":
        return evaluation(house, name, variant, twin)
    if group in ("recipe", "labels"):
        return recipe(house, name, variant) if group == "recipe" else labels(house, name, variant)
    if group in ("reader", "stranger"):
        return (reading if group == "reader" else stranger)(house, name, twin, variant)
    return pair(house, name, twin) if group == "pair" else damage(house, name, twin)
