"""Laws of the truth metric; what a caption's truth is, is tested with the scenes."""

import math
import pickle

import pytest
import torch

from core.errors import UserError
from datamodules.scenes.fact_metrics import SceneFacts
from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import make_scene
from datamodules.scenes.grammar import fresh_caption
from tests.datamodules.scenes.test_facts import SCENE

SCENES = {f"s{index}": make_scene("val", index) for index in range(6)}
JSON = {name: scene.to_json() for name, scene in SCENES.items()}
# true ones and ones that belong to another scene
CAPTIONS = {name: fresh_caption(SCENES[f"s{index // 2}"]) for index, name in enumerate(SCENES)}
SCORES = {name: caption_fact_f1(text, SCENES[name]) for name, text in CAPTIONS.items()}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_is_the_mean_over_scored_scenes():
    metric = SceneFacts(JSON)
    metric.update(list(CAPTIONS)[:2], list(CAPTIONS.values())[:2])
    metric.update(["s2"], [CAPTIONS["s2"]])
    assert metric.compute()["f1"].item() == pytest.approx(sum(SCORES[name] for name in ("s0", "s1", "s2")) / 3)
    assert 0 < metric.compute()["f1"] < 1
    metric.reset()
    assert math.isnan(metric.compute()["f1"])


def test_processes_joined_by_the_maximum_equal_one():
    whole, first, second = (SceneFacts(JSON) for _ in range(3))
    whole.update(list(CAPTIONS), list(CAPTIONS.values()))
    shares = (["s0", "s1", "s2", "s5"], ["s3", "s4", "s5", "s0"])  # two scenes are seen twice
    for metric, names in zip((first, second), shares, strict=True):
        metric.update(names, [CAPTIONS[name] for name in names])
    first.rows = torch.maximum(first.rows, second.rows)
    assert first.compute() == whole.compute()


def test_an_empty_caption_counts_as_zero():
    metric = SceneFacts(JSON)
    metric.update(["s0", "s1"], ["", fresh_caption(SCENES["s1"])])
    assert metric.compute()["f1"] == 0.5


def test_unknown_scene_is_named():
    with pytest.raises(UserError, match="elsewhere"):
        SceneFacts(JSON).update(["elsewhere"], ["a circle"])


def test_can_be_pickled():
    metric = pickle.loads(pickle.dumps(SceneFacts(JSON)))
    metric.update(["s0"], [CAPTIONS["s0"]])
    assert metric.compute()["f1"] == 1.0


def test_kinds_of_facts_by_hand():
    """Over both captions: 4 of 4 objects, 4 of 4 colours, no size, 3 of 4 counts, 1 of 2 relations."""
    texts = ["two red circles left of a blue square", "a red circle right of a blue square"]
    metric = SceneFacts({"x": SCENE.to_json(), "y": SCENE.to_json()})
    metric.update(["x", "y"], texts)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found.pop("f1") == pytest.approx(sum(caption_fact_f1(text, SCENE) for text in texts) / 2)
    assert found == {"objects": 1.0, "colours": 1.0, "sizes": 0.0, "counts": 0.75, "relations": 0.5}
