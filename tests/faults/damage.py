"""Files of a run that are damaged, read by every command that reads them: one line, and the work goes on behind it."""

import random
import shutil
from collections.abc import Callable

from tests.faults.chains import Result, expected
from tests.faults.comparison import compare
from tests.faults.house import House
from tests.faults.injection import Fault

Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: dict[str, Damage] = {
    "cut": lambda data, dice: data[: dice.randrange(len(data))],
    "empty": lambda data, dice: b"",
    "flipped": lambda data, dice: _flipped(data, dice.randrange(len(data)), 1 << dice.randrange(8)),
    "zeros": lambda data, dice: bytes(len(data)),
    "noise": lambda data, dice: dice.randbytes(len(data)),
    "longer": lambda data, dice: data + b"\0garbage\n",
}
TARGETS = (
    "run.json",
    "metrics.csv",
    "config.yaml",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
)


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def damage(house: House, name: str, twin: str) -> Result:
    """Damages a file of a run that was killed, and lets commands read it.

    Args:
        house: folders and random numbers.
        name: of the case.
        twin: method.
    """
    result, dice = Result(name=name), house.dice(name)
    alone, run = house.alone(twin), house.fresh(name)
    killed = house.folder / "stages" / f"killed, {twin}".replace(" ", "_")
    if not killed.exists():
        house.run([*house.words(twin, "plain"), "--run_dir", str(killed)], killed, Fault("batch end", 13, "SIGKILL"))
    shutil.copytree(killed, run)
    file, kind = run / dice.choice(TARGETS), dice.choice(list(DAMAGES))
    content = file.read_bytes()
    file.write_bytes(DAMAGES[kind](content, dice))
    result.faults += 1
    readers = [
        ["resume", str(run)],
        ["test", "--ckpt_path", str(run)],
        ["compare", str(run), "--out", str(run / "out")],
    ]
    read = dice.choice(readers)
    ended = house.run(read, run)
    result.took(f"{read[0]}, {file.name} {kind}", ended)
    good = ended.code == 0 or (ended.code == 1 and ended.last.startswith("error: "))
    result.wrong += [] if good else [f"code {ended.code}: {ended.last}"]
    if read[0] == "resume" and ended.code == 0:
        result.wrong += [line for line in compare(alone, run) if file.name not in line]
    elif not result.wrong:
        file.write_bytes(content)
        ended = house.run(readers[0], run)
        result.took("resume, mended", ended)
        result.wrong += expected(None, ended) + compare(alone, run)
    if not result.wrong:
        shutil.rmtree(run)
    return result
