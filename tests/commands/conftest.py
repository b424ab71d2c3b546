"""Fixtures of the tests of recipes."""

from pathlib import Path

import pytest

from commands.recipes import engine, summary
from tests.commands.recipes.fakes import RECIPE, Stages


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "other", "student"):
        Path(f"{name}.yaml").write_text(f"# a comment\nmodel: {{name: {name}}}\ndata: {{root: data/{name}.csv}}\n")
        Path("data").mkdir(exist_ok=True)
        Path(f"data/{name}.csv").write_text(name)
    Path("extra.csv").write_text("a,b\n")
    Path("r.yaml").write_text(RECIPE)
    fake = Stages()
    monkeypatch.setattr(engine, "StageProcess", fake)
    monkeypatch.setattr(summary, "draw", lambda *_: None)  # a second each; drawn in one test
    return fake


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(engine, "_GLANCE", 0.0)
