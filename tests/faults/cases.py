"""Which faults are tried: groups of cases with names, from which everything else is drawn."""

import itertools
from collections.abc import Iterator

from tests.faults.chains import Result, chain
from tests.faults.damage import damage
from tests.faults.evaluations import evaluation, recipe
from tests.faults.house import House
from tests.faults.methods import SETTINGS, TRAINED
from tests.faults.pairs import PAIRS, pair

GROUPS = {
    "phase": "deaths and signals at phases of a run",
    "file": "deaths at operations on files",
    "write": "operations on files that fail",
    "ranks": "deaths and signals in one of two processes",
    "evaluation": "tests and predictions",
    "recipe": "recipes",
    "pair": "two commands at once in one folder",
    "damage": "damaged files",
}
CHAINS = ("phase", "file", "write")
VARIED = ("dual_transfer", "attention_rnn", "ucm_text_autoencoder", "emotion_transfer")
"""Methods that take turns under the settings; all methods run as their twins are."""
SINGLE = [name for name in SETTINGS if name not in ("plain", "two processes")]


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
    turn = [VARIED[(k + number) % len(VARIED)] for k in range(max(len(SINGLE), len(PAIRS)))]
    if group in CHAINS:
        return [(twin, "plain") for twin in TRAINED] + list(zip(turn, SINGLE, strict=False))
    if group == "ranks":
        return [(turn[0], "two processes")]
    if group == "pair":
        return list(zip(turn, PAIRS, strict=False))
    if group == "recipe":
        return [("two stages", CHAINS[number % 3])]
    if group == "evaluation":
        return [(turn[k], CHAINS[k]) for k in range(3)]
    return [(turn[k], "plain") for k in range(3)]


def run_case(house: House, name: str) -> Result:
    """Runs a case by its name."""
    group, twin, variant, _ = name.split(":")
    if group in CHAINS:
        length = house.dice(name).randint(1, 4)
        return chain(house, name, twin, variant, house.faults(name, group, twin, variant, length))
    if group == "ranks":
        return chain(house, name, twin, variant, house.faults(name, "phase", twin, variant, 2, ranks=2))
    if group == "evaluation":
        return evaluation(house, name, variant, twin)
    if group == "recipe":
        return recipe(house, name, variant)
    return pair(house, name, twin) if group == "pair" else damage(house, name, twin)
