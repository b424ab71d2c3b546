"""Run folders, recipes and checkpoints of strangers, which name or hold code of theirs: none of it is executed."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from tests.faults.chains import Result
from tests.faults.house import House
from tests.faults.readers import Runs

MODULE = "module_of_a_stranger"
CLASS = f"{MODULE}.Stranger"
SOURCE = (
    "import pathlib\npathlib.Path({mark!r}).touch()\nfrom lightning import Callback\nclass Stranger(Callback): pass\n"
)


def _config(change: Callable[[dict], object]) -> Callable[[Path, Path], None]:
    def plant(run: Path, mark: Path) -> None:
        content = yaml.safe_load((run / "config.yaml").read_text())
        change(content)
        (run / "config.yaml").write_text(json.dumps(content))

    return plant


def _interpolated(content: dict) -> None:
    content["wandb_project"] = MODULE
    content["trainer"]["callbacks"].append({"class_path": "${wandb_project}.Stranger"})


def _tagged(run: Path, mark: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(
            f"\nseed: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n"
        )


def _pickled(name: str) -> Callable[[Path, Path], None]:
    def plant(run: Path, mark: Path) -> None:
        (run / name).write_bytes(pickle.dumps({"state_dict": Runs(mark)}))

    return plant


def _in_checkpoint(run: Path, mark: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        torch.save({**content, "state_dict": Runs(mark)}, run / "checkpoints" / name)


def _named_in_checkpoint(run: Path, mark: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        content["inference"]["method"] = CLASS
        content["hyper_parameters"]["class_path"] = CLASS
        torch.save(content, run / "checkpoints" / name)


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "callback": _config(lambda content: content["trainer"]["callbacks"].append({"class_path": CLASS})),
    "callback as a word": _config(lambda content: content["trainer"]["callbacks"].append(CLASS)),
    "callback by interpolation": _config(_interpolated),
    "model": _config(lambda content: content["model"].update(class_path=CLASS)),
    "data": _config(lambda content: content["data"].update(class_path=CLASS)),
    "strategy": _config(lambda content: content["trainer"].update(strategy={"class_path": CLASS})),
    "logger": _config(lambda content: content["trainer"].update(logger=[{"class_path": CLASS, "init_args": {}}])),
    "tag": _tagged,
    "pickle as best.ckpt": _pickled("checkpoints/best.ckpt"),
    "pickle as last.ckpt": _pickled("checkpoints/last.ckpt"),
    "pickle as run.json": _pickled("run.json"),
    "pickle in a checkpoint": _in_checkpoint,
    "named in a checkpoint": _named_in_checkpoint,
}
"""Ways in which a folder gets code of a stranger: functions of the folder and of the mark that the code leaves."""
REFUSED = ("callback", "callback as a word", "callback by interpolation", "model", "data", "strategy", "logger", "tag")
"""Those that a command which builds what the configuration names refuses."""
READERS = ("resume", "test", "validate", "predict", "caption", "label", "compare", "report")


def stranger(house: House, name: str, twin: str, plant: str) -> Result:
    """Lets a command read a run folder of a stranger.

    Args:
        house: folders and random numbers.
        name: of the case.
        twin: method.
        plant: one of `PLANTS`.
    """
    result, run, dice = Result(name=name, faults=1), house.fresh(name), house.dice(name)
    modules, mark = house.folder / "strangers", house.folder / "executed"
    modules.mkdir(exist_ok=True)
    (modules / f"{MODULE}.py").write_text(SOURCE.format(mark=str(mark)))
    shutil.rmtree(mark, ignore_errors=True)
    mark.unlink(missing_ok=True)
    if str(modules) not in sys.path:
        sys.path.append(str(modules))
    shutil.copytree(house.alone(twin), run)
    PLANTS[plant](run, mark)
    command = dice.choice(READERS)
    picture = os.path.join("docs", "scene.png")  # noqa: PTH118
    words = {
        "resume": ["resume", str(run)],
        "caption": ["caption", "--ckpt", str(run), picture],
        "label": ["label", "--ckpt", str(run), picture, "--text", "a dog"],
        "compare": ["compare", str(run), "--out", str(run / "out")],
        "report": ["report", str(run)],
    }.get(command, [command, "--ckpt_path", str(run), "--trainer.enable_progress_bar=false"])
    ended = house.run(words, run)
    result.took(f"{command}, {plant}", ended)
    result.wrong += ["code of a stranger was executed"] if mark.exists() else []
    good = ended.code == 0 or (ended.code in (1, 2) and "error: " in ended.last)
    result.wrong += [] if good else [f"code {ended.code}: {ended.last}"]
    if plant in REFUSED and command in ("resume", "test", "validate", "predict") and ended.code == 0:
        result.wrong.append("code 0 though a stranger's class is named")
    if not result.wrong:
        shutil.rmtree(run)
    return result
