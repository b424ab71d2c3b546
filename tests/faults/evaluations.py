"""Tests and predictions that meet a fault, and are asked for again; recipes, likewise."""

import json
import shutil
from collections import Counter
from pathlib import Path

from tests.faults.chains import Result, expected
from tests.faults.comparison import FILES, compare, leftovers
from tests.faults.house import House
from tests.faults.methods import write_config
from tests.twins import method_of, predicts, read


def results(folder: Path) -> dict[str, bytes]:
    """The files of an evaluation."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


def evaluation(house: House, name: str, what: str, twin: str) -> Result:
    """A command that evaluates a run meets a fault; asked for again, it gives what it gives when left alone.

    Args:
        house: folders and random numbers.
        name: of the case.
        what: kind of fault.
        twin: method.
    """
    result, dice = Result(name=name), house.dice(name)
    run = house.fresh(name)
    shutil.copytree(house.alone(twin), run)
    has_predictions = predicts(method_of(read(twin)))
    command = dice.choice(("test", "validate", "predict") if has_predictions else ("test", "validate"))
    words = [command, "--ckpt_path", str(run), "--trainer.enable_progress_bar=false"]
    alone = house.run(words, run)
    result.took(command, alone)
    result.wrong += expected(None, alone)
    first = run / "eval" / command
    if result.wrong:
        return result
    fault = house.fault(dice, Counter(alone.places), what)
    for one in (fault, None):
        ended = house.run(words, run, one)
        result.took(f"{command}, {one}", ended)
        result.wrong += expected(one, ended)
        if ended.code == 0 and not any(results(other) == results(first) for other in _others(first)):
            result.wrong.append("code 0, but other results than alone")
    for other in _others(first):
        result.wrong += [
            f"{other.name}/{file} is another" for file, text in results(other).items() if text != results(first)[file]
        ]
    result.wrong += [f"left over: {file}" for file in leftovers(run)]
    if not result.wrong:
        shutil.rmtree(run)
    return result


def _others(first: Path) -> list[Path]:
    return [folder for folder in first.parent.iterdir() if folder != first]


def recipe(house: House, name: str, what: str) -> Result:
    """A recipe meets faults, in its own process or in a stage, and is started again until it is done.

    Args:
        house: folders and random numbers.
        name: of the case.
        what: kind of faults.
    """
    result, dice = Result(name=name), house.dice(name)
    file, alone = _recipe(house), house.folder / "alone" / "recipe"
    if not alone.exists():
        ended = house.run(["recipe", str(file), "--run-dir", str(alone)], alone)
        assert ended.code == 0, ended.error[-2000:]
        house.places["recipe", ""] = Counter(ended.places)
    run = house.fresh(name)
    faults = [house.fault(dice, house.places["recipe", ""], what) for _ in range(2)]
    for fault in [*faults, None]:
        ended = house.run(["recipe", str(file), "--run-dir", str(run)], run, fault)
        result.took(f"recipe, {fault}", ended)
        # a stage that was stopped or killed is the recipe's failure, which is told in a line
        failed = ended.happened and ended.code == 1 and "resume with:" in ended.last
        result.wrong += [] if failed else expected(fault, ended)
        if ended.code == 0 or result.wrong:
            break
    if not result.wrong:
        for stage in ("text", "student"):
            states = [json.loads((folder / stage / "stage.json").read_text())["status"] for folder in (alone, run)]
            result.wrong += [f"{stage}: {states}"] if states != ["done", "done"] else []
            found = compare(alone / stage, run / stage)
            result.wrong += [f"{stage}: {line}" for line in found if "text_from" not in line]  # its folder
    if not result.wrong:
        shutil.rmtree(run)
    return result


def _recipe(house: House) -> Path:
    """Two stages, of which the second needs the first."""
    configs = {twin: write_config(house.folder, twin) for twin in ("ucm_text_autoencoder", "ucm_distillation")}
    common = "--wandb=off --checkpoint_steps=2"
    text, student = configs["ucm_text_autoencoder"], configs["ucm_distillation"]
    stages = {
        "text": {"command": f"fit --config {text} {common}"},
        "student": {"command": f"fit --config {student} {common} --model.init_args.text_from=${{text.run}}"},
    }
    file = house.folder / "recipe.yaml"
    file.write_text(json.dumps({"about": "Two stages.", "stages": stages}))
    return file
