"""Command line of the faults."""

import argparse
import contextlib
import gc
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.faults.cases import GROUPS, names, run_case
from tests.faults.house import House

EVERY = 50
"""Faults between two lines that say how far it is."""


def main() -> int:
    """Runs cases until enough faults have happened; prints what is wrong and a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=250, help="stop when so many have happened")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--case", action="append", help="only this one, as printed")
    parser.add_argument("--group", action="append", choices=list(GROUPS), help="only these groups")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    if options.keep:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        house = House(folder.resolve(), options.seed)
        gc.freeze()  # else collections would touch, and so copy, all pages of every fork
        return run(house, options)
    finally:
        gc.unfreeze()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def run(house: House, options: argparse.Namespace) -> int:
    """Runs the cases that the options name; Ctrl-C ends it with the table of what was done."""
    os.environ["XDG_STATE_HOME"] = str(house.folder / "state")
    begun, table = time.monotonic(), {group: [0, 0, 0] for group in options.group or GROUPS}
    print(f"seed {house.seed}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        _run_cases(house, options, table, begun)
    print(f"| {'what':<42} | cases | faults | failures |\n| --- | --- | --- | --- |")
    for group, (cases, happened, wrong) in table.items():
        print(f"| {GROUPS[group]:<42} | {cases} | {happened} | {wrong} |")
    _, faults, failed = map(sum, zip(*table.values(), strict=True))
    print(f"{faults} faults, {failed} cases failed, seed {house.seed}, {(time.monotonic() - begun) / 60:.1f} minutes")
    return int(failed > 0)


def _run_cases(house: House, options: argparse.Namespace, table: dict[str, list[int]], begun: float) -> None:
    told = 0
    for name in options.case or names(options.group or list(GROUPS)):
        result = run_case(house, name)
        row = table.setdefault(name.split(":")[0], [0, 0, 0])
        for place, more in enumerate((1, result.faults, bool(result.wrong))):
            row[place] += more
        if result.wrong or options.case:
            print(f"{'FAILED' if result.wrong else 'ok'} {name}", *result.log, sep="\n    ", flush=True)
            print(*(f"  ! {line}" for line in result.wrong), sep="\n", flush=True)
            if result.wrong:
                print(f"  python -m tests.faults --seed {house.seed} --case '{name}'", flush=True)
        _, faults, failed = map(sum, zip(*table.values(), strict=True))
        minutes = (time.monotonic() - begun) / 60
        if faults // EVERY > told:
            told = faults // EVERY
            print(f"{faults} faults, {failed} cases failed, {minutes:.1f} minutes", flush=True)
        if not options.case and (faults >= options.faults or minutes > options.minutes):
            break


if __name__ == "__main__":
    sys.exit(main())
