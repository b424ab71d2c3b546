"""The table at the end of a recipe."""

import json
from pathlib import Path

from commands.recipes import summary
from tests.commands.recipes.fakes import ALL, DRAW, recipe


def test_seeds_have_folders_of_their_own_and_one_table(stages, capsys, monkeypatch):
    monkeypatch.setattr(summary, "draw", DRAW)
    assert recipe(stages, "--seed", "1,3") == ALL * 2
    assert "--seed_everything=3" in stages.words[6]
    out = capsys.readouterr().out
    assert "mean and standard deviation of 2 seeds" in out
    assert "2.000 ± 1.414" in out
    assert json.loads(Path("runs/summary.json").read_text())["stages"]["test"] == {"bleu4": [1.0, 3.0]}
    assert Path("runs/summary.png").stat().st_size > 5000
    assert recipe(stages, "--seed", "3", "--set", "lr=0.1") == []
    assert recipe(stages, "--set", "lr=0.5", "--stages", "teacher") == ["teacher"]


def test_stages_below_a_baseline_are_flagged(stages, capsys, monkeypatch):
    score = {"this model": {"cider_d": 0.4}, "constant caption": {"cider_d": 0.5}}
    read = summary.read_metrics
    monkeypatch.setattr(summary, "read_metrics", lambda run: score if run.name == "test" else read(run))
    recipe(stages)
    out = capsys.readouterr().out
    assert "test ▾" in out
    assert "▾ test is BELOW A BASELINE: cider_d 0.400 does not beat constant caption (0.500)" in out
