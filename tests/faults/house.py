"""The folder in which faults are tried: stages that others start from, and runs that were left alone."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

from tests.faults.injection import FILES, Fault
from tests.faults.methods import before, words_of, write_config
from tests.faults.processes import Child, Ended, warm

STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
ERRORS = ("ENOSPC", "EIO", "EACCES")


class House:
    """Runs that were left alone are made when they are first asked for.

    Args:
        folder: empty.
        seed: of all faults.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        warm()
        self.folder, self.seed = folder, seed
        self.places: dict[tuple[str, str], Counter[str]] = {}
        """Places that a run reaches, and how often."""
        for name in ("alone", "stages", "cases", "journals"):
            (folder / name).mkdir()
        os.environ["CAPTION_CACHE"] = str(folder / "cache")

    def dice(self, case: str) -> random.Random:
        """Random numbers of a case; the same in every process with this seed."""
        return random.Random(f"{self.seed} {case}")

    def start(self, words: list[str], folder: Path, fault: Fault | None = None, name: str = "process") -> Child:
        """Starts a command whose files in `folder` are watched."""
        return Child(words, folder, self.folder / "journals" / name, fault)

    def run(self, words: list[str], folder: Path, fault: Fault | None = None) -> Ended:
        """Runs a command to its end."""
        return self.start(words, folder, fault).end()

    def words(self, twin: str, setting: str) -> list[str]:
        """The command line of a twin under a setting, but for its run folder; what it needs is there."""
        for other in before(twin):
            if not (self.folder / "stages" / other).exists():
                self._alone(other, "plain", self.folder / "stages" / other)
        config = write_config(self.folder, twin, setting)
        return words_of(twin, config, self.folder / "stages")

    def alone(self, twin: str, setting: str = "plain") -> Path:
        """A run that was left alone."""
        run = self.folder / "alone" / f"{twin}, {setting}".replace(" ", "_")
        if not run.exists():
            self.words(twin, setting)
            self.places[twin, setting] = self._alone(twin, setting, run)
        return run

    def _alone(self, twin: str, setting: str, run: Path) -> Counter[str]:
        ended = self.run([*self.words(twin, setting), "--run_dir", str(run)], run)
        assert ended.code == 0, (twin, setting, ended.error[-2000:])
        assert not ended.wrong, (twin, setting, ended.wrong)
        return Counter(ended.places)

    def fresh(self, name: str) -> Path:
        """The folder of a case; it does not exist."""
        run = self.folder / "cases" / name.replace(" ", "_").replace("/", "_")
        shutil.rmtree(run, ignore_errors=True)
        return run

    def faults(self, name: str, what: str, twin: str, setting: str, length: int, ranks: int = 1) -> list[Fault]:
        """Draws the faults of a case, see `fault`."""
        self.alone(twin, setting)
        dice = self.dice(f"{name} faults")
        return [self.fault(dice, self.places[twin, setting], what, ranks) for _ in range(length)]

    def fault(self, dice: random.Random, counts: Counter[str], what: str, ranks: int = 1) -> Fault:
        """Draws a fault.

        Args:
            dice: random numbers of the case.
            counts: places and how often they are reached.
            what: "phase" for deaths and signals at phases of training, "file" for deaths at operations on files,
                "write" for operations that fail.
            ranks: processes that a fault at a phase may happen to; only the first one writes.
        """
        files = what != "phase"
        places = sorted(place for place in counts if (place.removeprefix("behind ").split()[0] in FILES) == files)
        if what == "write":
            places = [place for place in places if not place.startswith(("behind", "unlink", "rmdir"))]
        place = dice.choice(places)
        number = dice.randint(1, counts[place])
        if what == "write":
            kind = dice.choice(ERRORS)
            return Fault(place, number, kind, lasting=kind == "ENOSPC" and dice.random() < 0.5)
        rank = 0 if files else dice.randrange(ranks)
        kinds = (
            ["SIGKILL"]
            if what == "file" and dice.random() < 0.7
            else ["SIGKILL", *STOPS, "SIGTERM+SIGTERM", "SIGINT+SIGTERM"]
        )
        return Fault(place, number, dice.choice(kinds), rank=rank)
