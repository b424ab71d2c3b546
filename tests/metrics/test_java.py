"""METEOR and SPICE: right where Java is, absent with a reason where it is not."""

import importlib.util
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from metrics import java

PREDICTIONS, REFERENCES = {"1": "a dog"}, {"1": ["a dog runs"], "2": ["never scored"]}


def test_without_java_one_line_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    notes = []
    assert java.java_scores(PREDICTIONS, REFERENCES, notes.append) == {}
    assert notes == ["METEOR and SPICE are skipped: there is no java on the PATH"]


def test_without_the_package_one_line_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    notes = []
    assert java.java_scores(PREDICTIONS, REFERENCES, notes.append) == {}
    assert len(notes) == 1
    assert "pip install pycocoevalcap" in notes[0]


@pytest.mark.parametrize("failure", ["code", "silence", "time", "missing"])
def test_a_failing_java_is_never_fatal(monkeypatch, tmp_path, failure):
    class popen:  # noqa: N801 - stands for subprocess.Popen; METEOR's process answers nothing
        def __init__(self, command, **kwargs):
            run(command)
            self.stdin, self.stdout = io.StringIO(), io.StringIO("")

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731
        kill = lambda self: None  # noqa: E731

    def run(command, **kwargs):
        if failure == "time":
            raise subprocess.TimeoutExpired(command, 1)
        if failure == "missing":
            raise FileNotFoundError("java")
        return subprocess.CompletedProcess(
            command, int(failure == "code"), stdout="", stderr="Unsupported\nclass file\n"
        )

    (tmp_path / "spice/lib").mkdir(parents=True)
    (tmp_path / "spice/lib" / java._SPICE_MODELS).touch()
    monkeypatch.setattr(java, "_package", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(subprocess, "Popen", popen)
    notes = []
    assert java.java_scores(PREDICTIONS, REFERENCES, notes.append) == {}
    assert [note.split()[0] for note in notes] == ["meteor", "spice"]
    assert not any("\n" in note for note in notes)


def test_spice_without_its_models_says_how_to_get_them(tmp_path):
    with pytest.raises(java._Absent, match="get_stanford_models"):
        java._spice(tmp_path, {}, {})


def test_spice_reads_the_answer_and_leaves_out_images_without_tuples(monkeypatch, tmp_path):
    def run(command, **kwargs):
        source, target = Path(command[4]), Path(command[command.index("-out") + 1])
        records = json.loads(source.read_text(encoding="utf-8"))
        scores = [
            {"image_id": record["image_id"], "scores": {"All": {"f": f}}}
            for record, f in zip(records, (0.25, float("nan")), strict=True)
        ]
        target.write_text(json.dumps(scores), encoding="utf-8")
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / java._SPICE_MODELS).touch()
    monkeypatch.setattr(subprocess, "run", run)
    assert java._spice(tmp_path, {"1": "a", "2": ""}, {"1": ["a"], "2": ["b"]}) == 0.25


@pytest.mark.slow
def test_meteor_of_the_published_example(data_root):
    if shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("METEOR needs java and pycocoevalcap")
    folder = data_root / "coco_eval/clipscore_example"
    predictions = json.loads((folder / "good_captions.json").read_text())
    scores = java.java_scores(predictions, json.loads((folder / "refs.json").read_text()), lambda line: None)
    assert round(scores["meteor"], 4) == 0.3444
