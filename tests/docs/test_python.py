"""The Python page runs as it is written."""

import math
import re

import pytest

import lightning_modules
from tests.conftest import ROOT


def blocks(heading):
    """The code blocks of a section of the page, joined."""
    text = (ROOT / "docs" / "python.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S))


@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own
def test_training_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names = {}
    exec(blocks("Train"), names)
    assert math.isfinite(names["trainer"].callback_metrics["val/loss"])
    # the other section needs a run folder: it gets the checkpoint that was just written
    code = blocks("Caption images with a finished run")
    assert code.count("image.jpg") == 2
    exec(code.replace("runs/dual_transfer/RUN", "model.ckpt").replace("image.jpg", "docs/scene.png"), names)
    found = names["captioner"].caption(["docs/scene.png"])
    assert found[0][0][0]


def test_names_in_running_text_exist():
    text = (ROOT / "docs" / "python.md").read_text()
    named = set(re.findall(r"`(load_\w+)`", text))
    assert named
    assert named <= set(lightning_modules.__all__)


def test_metrics_run():
    names = {}
    exec(blocks("Metrics").replace("\nscore_captions(", "\nscores = score_captions("), names)
    assert names["scores"]["bleu3"] > 0.99
