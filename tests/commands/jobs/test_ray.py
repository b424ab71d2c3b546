"""Ray as the engine of a job gives the same bytes, and errors in the same line."""

import importlib.util
import sys

import pytest

import cli
from tests.commands.jobs.made import job, merged

COMMANDS = ("caption", "label", "tag")
RAY = ("--engine=ray", "--workers=2", "--actors=2")
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: python -m pip install -e '.[ray]'"
)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_two_models_on_ray_write_the_same_bytes(runs, pictures, tmp_path, command):
    assert job(command, runs, pictures, tmp_path / "alone") == 0
    assert job(command, runs, pictures, tmp_path / "ray", *RAY) == 0
    there, here = (merged(tmp_path / name, to=tmp_path / f"{name}.parquet") for name in ("ray", "alone"))
    assert there == here


@needs_ray
@pytest.mark.slow
def test_what_goes_wrong_on_ray_is_said_in_one_line_and_what_is_complete_stays(runs, pictures, tmp_path, capsys):
    names = [*sorted(str(path) for path in pictures.rglob("*.png"))[:9], str(tmp_path / "bad.png")]
    (tmp_path / "bad.png").write_bytes(b"broken")
    (tmp_path / "list.txt").write_text("\n".join(names))
    out = tmp_path / "out"
    assert job("label", runs, tmp_path / "list.txt", out, *RAY) == 1
    error = capsys.readouterr().err
    assert "bad.png: image cannot be decoded" in error
    assert "Traceback" not in error
    assert sorted(path.name for path in out.iterdir()) == ["job.json", "part-000000.parquet", "part-000001.parquet"]
    assert job("label", runs, tmp_path / "list.txt", out, "--on-bad-image=skip") == 0  # goes on without Ray


def test_without_ray_the_way_out_is_said(runs, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert job("label", runs, pictures, tmp_path / "out", "--engine=ray") == 1
    assert "python -m pip install -e '.[ray]'" in capsys.readouterr().err


def test_actors_are_rays(runs, pictures, tmp_path, capsys):
    words = ["label", "--ckpt", str(runs / "classifier.ckpt"), str(pictures), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--actors=2"]) == 1
    assert "--actors 2 needs --engine ray" in capsys.readouterr().err
