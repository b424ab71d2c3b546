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
@pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers")  # said of any small example
def test_quick_start_and_what_follows_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names = {}
    exec(blocks("Quick start"), names)
    assert math.isfinite(names["trainer"].callback_metrics["val/loss"])
    # the other section needs a run folder: it gets the checkpoint that was just written
    path = names["trainer"].checkpoint_callback.best_model_path
    code = blocks("Caption images with a finished run")
    assert code.count("image.jpg") == 4
    exec(code.replace("runs/dual_transfer/RUN", path).replace("image.jpg", "docs/scene.png"), names)
    assert names["captioner"].caption("docs/scene.png")[0][0][0]
    assert len(names["output"].logits) == len(names["output"].targets)
    assert names["maps"].shape == (len(names["tokens"]), 8, 8)


def test_the_quick_start_is_ten_lines():
    lines = [line for line in blocks("Quick start").splitlines() if line]
    assert len(lines) <= 10
    assert "_id" not in " ".join(lines)


def test_names_in_running_text_exist():
    text = (ROOT / "docs" / "python.md").read_text()
    named = set(re.findall(r"`(load_\w+)`", text))
    assert named
    assert named <= set(lightning_modules.__all__)


def test_metrics_run():
    names = {}
    exec(blocks("Metrics").replace("\nscore_captions(", "\nscores = score_captions("), names)
    assert names["scores"]["bleu3"] > 0.99
