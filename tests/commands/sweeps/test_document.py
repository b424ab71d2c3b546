"""Files of sweeps: what is read, what is refused, and the commands that come of them."""

from pathlib import Path

import pytest
import yaml

import cli
from commands.sweeps.document import Parameter, read_sweep
from core.errors import UserError

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
GOOD = {
    "program": "cli.py",
    "command": ["${env}", "${interpreter}", "${program}", "fit", "--config", "a.yaml", "${args}", "--wandb=off"],
    "method": "bayes",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "parameters": {"model.init_args.lr": {"min": 0.1, "max": 1.0}},
}


def write(tmp_path, **changes):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in {**GOOD, **changes}.items() if value is not None}))
    return path


def test_words_are_those_of_an_agent(tmp_path):
    sweep = read_sweep(write(tmp_path))
    values = {"a.lr": 1e-05, "a.name": "dot", "a.on": True, "a.none": None, "a.count": 3}
    words = sweep.words(values)
    assert words[:3] == ["fit", "--config", "a.yaml"]
    assert words[3:] == ["--a.lr=1e-05", "--a.name=dot", "--a.on=true", "--a.none=null", "--a.count=3", "--wandb=off"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"value": 3}, {"choices": (3,)}),
        ({"values": ["a", 1, None, True]}, {"choices": ("a", 1, None, True)}),
        ({"min": 1, "max": 8}, {"low": 1, "high": 8, "step": 1, "whole": True}),
        ({"min": 0.0, "max": 0.5}, {"low": 0, "high": 0.5}),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, {"low": 1e-4, "high": 1e-2, "log": True}),
        ({"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25}, {"low": 0, "high": 1, "step": 0.25}),
        (
            {"distribution": "q_log_uniform_values", "min": 8, "max": 512},
            {"low": 8, "high": 512, "log": True, "whole": True},
        ),
    ],
)
def test_parameters(tmp_path, entry, expected):
    (found,) = read_sweep(write(tmp_path, parameters={"x": entry})).parameters
    assert found == Parameter(name="x", **expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program": "train.py"}, "program is 'train.py'; expected cli.py"),
        ({"command": ["${program}", "rm", "-rf", "/", "${args}"]}, "expected [..., ${program}, fit"),
        ({"command": ["${program}", "fit"]}, "expected [..., ${program}, fit"),
        ({"command": ["${program}", "fit", "--run_dir=x", "${args}"]}, "expected [..., ${program}, fit"),
        ({"command": ["${program}", "fit", "${args_json}", "${args}"]}, "expected [..., ${program}, fit"),
        ({"method": "magic"}, "method is 'magic'; expected one of bayes, random, grid"),
        ({"method": "grid"}, "a grid needs values, and model.init_args.lr is a range"),
        ({"metric": {"goal": "minimize"}}, "expected {name: val/cider_d, goal: maximize}"),
        ({"metric": {"name": "val/loss", "goal": "up"}}, "expected minimize or maximize"),
        ({"parameters": {}}, "expected options and their values"),
        ({"parameters": {"x": {"min": 3, "max": 1}}}, "expected min below max"),
        ({"parameters": {"x": {"min": "1e-4", "max": 1}}}, "min is '1e-4'; expected a number (1.0e-4, with a point)"),
        (
            {"parameters": {"x": {"distribution": "normal", "min": 0.0, "max": 1.0}}},
            "distribution 'normal' is not known",
        ),
        (
            {"parameters": {"x": {"distribution": "log_uniform_values", "min": 0.0, "max": 1.0}}},
            "positive for a logarithm",
        ),
        ({"parameters": {"x": {"values": []}}}, "expected a list of values"),
        ({"parameters": {"x": {"values": [[1]]}}}, "expected texts and numbers"),
        ({"parameters": {"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}}, "all equally probable"),
        ({"early_terminate": {"type": "envelope"}}, "expected {type: hyperband"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}}, "eta is 1; expected 2 or more"),
        ({"run_cap": 0}, "run_cap is 0; expected a whole number from 1 on"),
        ({"surprise": 1}, "unknown entry 'surprise'"),
    ],
)
def test_mistakes_take_one_line(tmp_path, changes, said, capsys):
    path = write(tmp_path, **changes)
    assert cli.main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    assert error.count("\n") == 1


def test_no_file_and_no_mapping_take_one_line(tmp_path):
    with pytest.raises(UserError, match="sweep"):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="expected the entries of a sweep"):
        read_sweep(tmp_path / "sweep.yaml")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_commands_of_our_sweeps_run(path, tmp_path, monkeypatch, capsys):
    """One batch of the first two commands, as an agent of W&B would start them."""
    monkeypatch.chdir(ROOT)
    assert cli.main(["sweep", str(path), "--dry-run", "--trials=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines):
        words = line.removeprefix("python cli.py ").split()
        small = ["--data.init_args.num_train=32", "--data.init_args.num_val=8", "--data.init_args.num_test=8"]
        run = ["--trainer.fast_dev_run=1", f"--run_dir={tmp_path / str(number)}", "--wandb=off"]
        assert cli.main([*words, *small, *run]) == 0
    metric = yaml.safe_load(path.read_text())["metric"]["name"]
    assert metric.startswith("val/")
