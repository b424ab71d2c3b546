"""A run that meets some faults and is resumed after each, against the run that was left alone."""

import shutil
import signal
from dataclasses import dataclass, field

from tests.faults.comparison import compare
from tests.faults.house import House
from tests.faults.injection import Fault
from tests.faults.processes import Ended


@dataclass
class Result:
    """What came out of a case.

    Attributes:
        name: of the case.
        faults: those that happened.
        wrong: what should not be; empty: all is well.
        log: what happened.
    """

    name: str
    faults: int = 0
    wrong: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def took(self, what: str, ended: Ended) -> None:
        """Notes a process and what was wrong with it."""
        self.log.append(f"{what}: code {ended.code} {ended.last if ended.code else ''}")
        self.faults += ended.happened
        self.wrong += [f"{what}: {line}" for line in ended.wrong]


def expected(fault: Fault | None, ended: Ended) -> list[str]:
    """What is wrong with the end of a process after a fault; 0 is judged by the comparison."""
    if fault is None or not ended.happened:
        return [] if ended.code == 0 else [f"code {ended.code} without a fault: {ended.last}"]
    if not fault.kind.startswith("SIG"):
        good = ended.code in (0, 1) and (ended.code == 0 or ended.last.startswith("error: "))
        return [] if good else [f"code {ended.code} after {fault}: {ended.last}"]
    if fault.rank:  # the others see that it is gone, unless the work is done
        return []
    numbers = [getattr(signal, name) for name in fault.kind.split("+")]
    codes = {0} | {128 + number for number in numbers} | {-number for number in numbers}
    if ended.code not in codes:
        return [f"code {ended.code} after {fault}: {ended.last}"]
    if ended.code > 0 and "interrupted" not in ended.last:
        return [f"{fault} is not named: {ended.last}"]
    return []


def chain(house: House, name: str, twin: str, setting: str, faults: list[Fault]) -> Result:
    """Lets a run meet faults, one in each process, until it ends.

    Args:
        house: folders.
        name: of the case.
        twin: method.
        setting: of the trainer.
        faults: in their order; those that the run does not come to do not happen.
    """
    result, alone, run = Result(name=name), house.alone(twin, setting), house.fresh(name)
    first = [*house.words(twin, setting), "--run_dir", str(run)]
    for fault in [*faults, None]:
        words = ["resume", str(run)] if (run / "config.yaml").is_file() else first
        ended = house.run(words, run, fault)
        result.took(f"{words[0]}, {fault}" if fault else words[0], ended)
        result.wrong += expected(fault, ended)
        if ended.code == 0 or result.wrong:
            break
    if not result.wrong:
        result.wrong += compare(alone, run)
    if not result.wrong:
        shutil.rmtree(run, ignore_errors=True)
    return result
