"""Every reader of files from outside, with a damaged one, in a process of its own."""

import os
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.chains import Result
from tests.faults.house import House
from tests.hostile_containers import ALL, reader
from tests.hostile_damage import DAMAGES, Damage, bytes_damage, flipped
from tests.test_hostile_files import MEGABYTES, most_memory, outcome

SEEDED: dict[str, Callable[[random.Random], Damage]] = {
    "a bit somewhere": lambda dice: flipped(dice.randrange(1 << 30), 1),
    "some bits": lambda dice: flipped(dice.randrange(1 << 30), dice.randint(2, 100)),
    "cut somewhere": lambda dice: bytes_damage(lambda data: data[: dice.randrange(len(data))]),
    "noise": lambda dice: bytes_damage(lambda data: dice.randbytes(len(data))),
    "two pieces swapped": lambda dice: bytes_damage(lambda data: _swapped(data, dice.randrange(1, len(data)))),
    "a piece twice": lambda dice: bytes_damage(lambda data: _twice(data, dice.randrange(1, len(data)))),
}
"""Damages that are drawn; those of `DAMAGES` are the same every time."""
PICKLE = "a pickle that runs"
KINDS = (*SEEDED, *DAMAGES, PICKLE)
NAMES = [one.name for one in ALL]
SECONDS = 120.0
"""After which a reader hangs; `outcome` asks for less, in processor time."""


class Runs:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def reading(house: House, name: str, which: str, kind: str) -> Result:
    """Lets a reader read a damaged file.

    Args:
        house: folders and random numbers.
        name: of the case.
        which: name of the reader.
        kind: of the damage.
    """
    result, folder = Result(name=name, faults=1), house.fresh(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark, said = house.folder / "executed", house.folder / "journals" / "said"
    mark.unlink(missing_ok=True)
    said.unlink(missing_ok=True)
    one, damage = reader(which), _damage(kind, house.dice(name), mark)

    def work() -> str | None:
        one.make(folder)
        (file,) = folder.glob(one.file)
        damage(file)
        before = most_memory()
        found = outcome(one.read, folder, file.name)
        more = most_memory() - before
        return f"took {more:.0f} MB" if found is None and more > MEGABYTES else found

    found = _apart(work, said)
    result.log.append(f"{which}, {kind}: {found or 'a line, or read'}")
    result.wrong += [] if found is None else [found]
    result.wrong += ["its code was executed"] if mark.exists() else []
    if not result.wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _damage(kind: str, dice: random.Random, mark: Path) -> Damage:
    if kind in SEEDED:
        return SEEDED[kind](dice)
    if kind == PICKLE:
        return bytes_damage(lambda data: pickle.dumps({"state_dict": Runs(mark), "x": Runs(mark)}))
    return DAMAGES[kind]


def _apart(work: Callable[[], str | None], said: Path) -> str | None:
    """What a function returns in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        try:
            with open(os.devnull, "w") as null:  # noqa: PTH123
                os.dup2(null.fileno(), 1)
                os.dup2(null.fileno(), 2)
            said.write_text(work() or "")
        except BaseException as error:
            said.write_text(f"{type(error).__name__}: {error}"[:300])
        finally:
            os._exit(0)
    until = time.monotonic() + SECONDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hangs"
        time.sleep(0.005)
    return (said.read_text() or None) if said.is_file() else "died without a word"


def _swapped(data: bytes, place: int) -> bytes:
    return data[place:] + data[:place]


def _twice(data: bytes, place: int) -> bytes:
    return data[:place] + data[: len(data) // 2] + data[place:]
