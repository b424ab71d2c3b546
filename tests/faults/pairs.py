"""Two commands on one folder at the same time: one of them works, the other says so in a line."""

import shutil
import time
from collections import Counter
from pathlib import Path

from tests.faults.chains import Result, expected
from tests.faults.comparison import compare
from tests.faults.evaluations import _recipe, results
from tests.faults.house import House
from tests.faults.injection import Fault
from tests.faults.processes import Child, Ended
from tests.twins import method_of, predicts, read

PAIRS = (
    "fit+fit",
    "fit+resume",
    "resume+resume",
    "fit+test",
    "fit+report",
    "test+test",
    "predict+predict",
    "recipe+recipe",
    "recipe+resume",
)
TRAINING = ("fit", "resume", "recipe")
REFUSALS = (
    "is in use by",
    "holds a run already",
    "is not a run folder",
    "already running in",
    "no checkpoint at",
    "was not there",
)


def pair(house: House, name: str, twin: str) -> Result:
    """Starts the second command when the first has come to some place; sometimes the first one is killed later.

    Args:
        house: folders and random numbers.
        name: of the case, with a pair of `PAIRS`.
        twin: method.
    """
    result, dice = Result(name=name), house.dice(name)
    kinds = name.split(":")[2].split("+")
    if kinds[0] == "predict" and not predicts(method_of(read(twin))):
        kinds = ["validate", "validate"]
    run, alone = house.fresh(name), house.alone(twin)
    words = _words(house, kinds, run, twin)
    if kinds[0] == "resume":
        house.run([*house.words(twin, "plain"), "--run_dir", str(run)], run, Fault("batch end", 5, "SIGKILL"))
    if kinds[0] not in TRAINING:
        shutil.copytree(alone, run)
    place, count = dice.choice(
        [("setup", 1), ("train start", 1), ("batch end", dice.randint(1, 6)), ("rename last.ckpt.tmp", 1)]
    )
    if kinds[0] not in TRAINING:
        place, count = {"validate": "validation"}.get(kinds[0], kinds[0]) + " start", 1
    kill = dice.random() < 0.3 and kinds[0] in ("fit", "resume")
    fault = Fault("validation end", 2, "SIGKILL") if kill else None
    first = house.start(words[0], run, fault, "first")
    reached(first, place, count)
    time.sleep(dice.choice([0, 0, 0.3]))
    second = house.start(words[1], run, name="second")
    ends = [first.end(), second.end()]
    result.faults += 1
    for kind, words_, ended, one in zip(kinds, words, ends, (fault, None), strict=True):
        result.took(f"{kind}, {one}" if one else kind, ended)
        refused = ended.code == 1 and any(text in ended.last for text in REFUSALS)
        result.wrong += [] if refused else expected(one, ended)
        del words_
    result.wrong += _both(kinds, ends)
    if not result.wrong:
        _finish(house, result, kinds, run, alone, words)
    if not result.wrong:
        shutil.rmtree(run)
    return result


def _words(house: House, kinds: list[str], run: Path, twin: str) -> list[list[str]]:
    known = {
        "fit": [*house.words(twin, "plain"), "--run_dir", str(run)],
        "resume": ["resume", str(run)],
        "report": ["report", str(run)],
    }
    for command in ("test", "predict", "validate"):
        known[command] = [command, "--ckpt_path", str(run), "--trainer.enable_progress_bar=false"]
    if kinds[0] == "recipe":
        known |= {
            "recipe": ["recipe", str(_recipe(house)), "--run-dir", str(run)],
            "resume": ["resume", str(run / "text")],
        }
    return [known[kind] for kind in kinds]


def reached(child: Child, place: str, count: int) -> None:
    """Waits until a process has come to a place, or has ended."""
    while Counter(child.reached())[place] < count and not child.poll():
        time.sleep(0.005)


def _both(kinds: list[str], ends: list[Ended]) -> list[str]:
    """Whether both said that they did the work of one."""
    runs = [ended for kind, ended in zip(kinds, ends, strict=True) if kind in TRAINING]
    works = [ended for ended in runs if ended.code == 0]
    trained = [ended for ended in runs if "batch end" in ended.places]
    if kinds[0] != "recipe" and len(trained) > 1 and len(works) > 1:
        return ["both trained to the end"]
    return []


def _finish(house: House, result: Result, kinds: list[str], run: Path, alone: Path, words: list[list[str]]) -> None:
    """Lets what was killed come to its end, and compares."""
    if kinds[0] == "recipe":
        ended = house.run(words[0], run)
        result.took("recipe", ended)
        result.wrong += expected(None, ended)
        text = house.alone("ucm_text_autoencoder")
        result.wrong += compare(text, run / "text")
        return
    if kinds[0] not in TRAINING:
        folders = list((run / "eval").iterdir())
        found = {tuple(sorted(results(folder).items())) for folder in folders}
        result.wrong += (
            [] if len(folders) == 2 and len(found) == 1 else [f"{len(found)} results in {len(folders)} folders"]
        )
        return
    ended = house.run(["resume", str(run)] if (run / "config.yaml").is_file() else words[0], run)
    result.took("at the end", ended)
    result.wrong += expected(None, ended)
    result.wrong += compare(alone, run)
