"""Laws of the truth metric; what a caption's truth is, is tested with the scenes."""

import math
import pickle

import pytest
import torch

from core.errors import UserError
from datamodules.scenes.fact_f1 import FactF1
from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import make_scene
from datamodules.scenes.grammar import fresh_caption

SCENES = {f"s{index}": make_scene("val", index) for index in range(6)}
JSON = {name: scene.to_json() for name, scene in SCENES.items()}
# true ones and ones that belong to another scene
CAPTIONS = {name: fresh_caption(SCENES[f"s{index // 2}"]) for index, name in enumerate(SCENES)}
SCORES = {name: caption_fact_f1(text, SCENES[name]) for name, text in CAPTIONS.items()}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_is_the_mean_over_scored_scenes():
    metric = FactF1(JSON)
    metric.update(list(CAPTIONS)[:2], list(CAPTIONS.values())[:2])
    metric.update(["s2"], [CAPTIONS["s2"]])
    assert metric.compute().item() == pytest.approx(sum(SCORES[name] for name in ("s0", "s1", "s2")) / 3)
    assert 0 < metric.compute() < 1
    metric.reset()
    assert math.isnan(metric.compute())


def test_processes_joined_by_the_maximum_equal_one():
    whole, first, second = (FactF1(JSON) for _ in range(3))
    whole.update(list(CAPTIONS), list(CAPTIONS.values()))
    shares = (["s0", "s1", "s2", "s5"], ["s3", "s4", "s5", "s0"])  # two scenes are seen twice
    for metric, names in zip((first, second), shares, strict=True):
        metric.update(names, [CAPTIONS[name] for name in names])
    first.rows = torch.maximum(first.rows, second.rows)
    assert torch.equal(first.compute(), whole.compute())


def test_an_empty_caption_counts_as_zero():
    metric = FactF1(JSON)
    metric.update(["s0", "s1"], ["", fresh_caption(SCENES["s1"])])
    assert metric.compute() == 0.5


def test_unknown_scene_is_named():
    with pytest.raises(UserError, match="elsewhere"):
        FactF1(JSON).update(["elsewhere"], ["a circle"])


def test_can_be_pickled():
    metric = pickle.loads(pickle.dumps(FactF1(JSON)))
    metric.update(["s0"], [CAPTIONS["s0"]])
    assert metric.compute() == 1.0
