"""The recipe command: which stages run, and one line for every wrong option."""

import re
from pathlib import Path

import pytest

import cli
from tests.commands.recipes.fakes import RECIPE, error_of, recipe, snapshot
from tests.commands.recipes.test_reading import RECIPES
from tests.conftest import ROOT


def test_choosing_stages(stages, capsys):
    assert recipe(stages, "--only", "teacher,oth*") == ["teacher", "other"]
    assert "stage 'student' needs 'labels', which never ran" in error_of(capsys, "--stages", "student")
    recipe(stages)
    assert recipe(stages, "--from", "labels", "--force", "*") == ["labels", "student", "test"]
    Path("teacher.yaml").write_text("{}")
    assert recipe(stages, "--from", "student") == []


def test_dry_run_changes_nothing(stages, capsys):
    recipe(stages, "--dry-run")
    assert not Path("runs").exists()
    out = capsys.readouterr().out
    assert "student  would run: it never ran" in out
    assert "needs teacher, labels" in out
    recipe(stages)
    Path("other.yaml").write_text("{}")
    before = snapshot("runs")
    recipe(stages, "--dry-run", "--force", "test")
    assert snapshot("runs") == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--stages", "teachex"], "--stages teachex: r.yaml has no such stage: did you mean 'teacher'?"),
        (["--from", "teachex"], "did you mean 'teacher'?"),
        (["--force", "nothing*"], "--force nothing*"),
        (["--set", "lrr=1"], "no variable 'lrr': did you mean 'lr'?"),
        (["--set", "lr"], "--set lr: expected NAME=VALUE"),
        (["--seed", "one"], "--seed one: expected whole numbers"),
        (["--dry"], "unrecognized arguments: --dry"),
    ],
)
def test_mistakes_in_the_options_are_one_line(stages, capsys, options, expected):
    assert expected in error_of(capsys, *options)
    assert not Path("runs").exists()


def test_no_such_recipe(stages, capsys):
    Path("experiments/recipes").mkdir(parents=True)
    Path("experiments/recipes/emotion.yaml").write_text(RECIPE)
    message = error_of(capsys, file="experiments/recipes/emotions.yaml")
    assert "did you mean 'experiments/recipes/emotion.yaml'?" in message


def test_the_way_on_is_the_whole_command(stages, capsys):
    stages.codes = {"labels": 1}
    options = ["--seed", "1,2", "--stages", "teacher,labels"]
    assert error_of(capsys, *options).endswith(
        "resume with: python cli.py recipe r.yaml --run-dir runs --seed 1,2 --stages teacher,labels"
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_project_are_whole(monkeypatch, capsys, tmp_path, path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CAPTION_DATA", "/data")
    assert re.search(r"# Command: .*python cli.py recipe experiments/recipes/", path.read_text())
    assert cli.main(["recipe", str(path.relative_to(ROOT)), "--list", "--run_dir", str(tmp_path)]) == 0
    for config in re.findall(r"--config[= ](\S+)", capsys.readouterr().out):
        assert Path(config).is_file(), f"{path}: {config} is not there"
