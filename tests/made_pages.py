"""Every kind of page that the program writes, of tiny runs: reports, a comparison, a search, the demo."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import cli
from commands.serving.models import load_models
from tests.conftest import ROOT
from tests.lightning_modules.boards import DRAWN
from tests.page_server import served_page
from tests.twins import write_twins

CAPTIONERS = ("attention_rnn", "transformer_captioner")
SERVED = (*CAPTIONERS, "ucm_multilabel", "emotion_teacher")
TRIALS = 3


def make_pages(folder: Path) -> dict[str, Path]:
    """Runs and tests every offline twin, small, and writes all pages.

    Args:
        folder: an empty one.

    Returns:
        Names of the pages to their files; run folders are in ``runs``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(folder / "cache"))
        pages = {}
        lines = write_twins(folder)
        lines["transferred"] = _with_transfer(lines["emotion_transfer"], folder / "runs")
        for name, line in lines.items():
            run = folder / "runs" / name
            _call([one for one in line if "fast_dev_run" not in one], *_options(name, line[0]))
            if line[0] == "fit":  # predictions alone have no report; the report of the student shows these
                _call(["test", "--ckpt_path", str(run)])
                _call(["report", str(run)])
                pages[f"report-{name}"] = run / "report.html"
        tests = [str(folder / "runs" / name) for name in CAPTIONERS]
        _call(["compare", *tests, "--out", str(folder / "comparison")])
        pages["comparison"] = folder / "comparison" / "compare.html"
        _call(["sweep", str(_small_sweep(folder)), "--out", str(folder / "search"), f"--trials={TRIALS}"])
        pages["search"] = folder / "search" / "sweep.html"
    return pages


def _with_transfer(line: list[str], runs: Path) -> list[str]:
    """The command of the twin for emotion transfer, with what it takes over from the student."""
    student = runs / "emotion_student"
    words = [str(runs / "transferred") if one == str(runs / "emotion_transfer") else one for one in line]
    options = (f"model.init_args.init_from={student}", "model.init_args.cut_depth=null")
    return [*words, *(f"--{one}" for one in options), f"--data.init_args.tokenizer={student}"]


def _options(name: str, command: str) -> list[str]:
    """What the pages need besides the options of a small twin: figures that small twins do not draw."""
    if command != "fit":
        return []
    return ["--wandb=off", *([f"--trainer.callbacks+={DRAWN[name]}"] if name in DRAWN else [])]


def _call(words: list[str], *more: str) -> None:
    assert cli.main([*words, *more]) == 0, f"failed: python cli.py {' '.join([*words, *more])}"


def _small_sweep(folder: Path) -> Path:
    """The sweep of the classifier on its small twin."""
    sweep = yaml.safe_load((ROOT / "experiments" / "sweeps" / "multilabel_scenes.yaml").read_text())
    command = sweep["command"]
    command[command.index("--config") + 1] = str(folder / "ucm_multilabel.yaml")
    command[command.index("--data.init_args.num_train=1000")] = "--data.init_args.num_train=16"
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(sweep))
    return path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves the demo page of some of the runs; gives its address."""
    models = load_models({name: str(folder / "runs" / name) for name in SERVED}, "cpu")
    with served_page(models) as address:
        yield address
