"""The data module of the scenes, its rows, and that it travels to spawned workers."""

import multiprocessing
import pickle

import numpy as np
import pytest

from core.errors import UserError
from datamodules.scenes import SceneCaptions
from datamodules.scenes.baselines import LANGUAGE_ONLY, MODAL_TEMPLATE, UPPER_BOUND, typical_caption
from datamodules.scenes.emotions import EMOTION_NAMES
from datamodules.scenes.fact_metrics import SceneFacts
from datamodules.scenes.facts import caption_fact_f1
from datamodules.scenes.generator import LABEL_NAMES, Scene
from datamodules.scenes.grammar import GRAMMAR_WORDS
from datamodules.scenes.render import render_array


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=300, num_val=20, num_test=120, batch_size=4)


def test_examples(data):
    example = data.examples("val")[3]
    scene = Scene.from_json(example.image_name)
    assert example.image_id == "val-000003"
    assert len(set(example.captions)) == 5
    assert all(caption_fact_f1(caption, scene) == 1.0 for caption in example.captions)
    assert len(example.labels) == len(LABEL_NAMES) == data.num_labels
    assert np.array_equal(np.asarray(data.open_image(example)), render_array(scene))


def test_facts(data):
    assert data.vocab_size == len(GRAMMAR_WORDS) - 1 + 4  # "between" needs three groups
    assert data.describe()["label_names"] == list(LABEL_NAMES)
    emotions = SceneCaptions(num_val=3, labels="emotions")
    assert emotions.label_names == EMOTION_NAMES
    assert len(emotions.examples("val")[0].labels) == 8
    assert SceneCaptions(num_val=3, labels="none").examples("val")[0].labels == ()


def test_batches(data):
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["scene"] == [example.image_name for example in data.examples("val")[:4]]
    assert batch["labels"].shape == (4, 24)
    assert len(batch["caption_ids"]) == 20


def test_rows(data):
    rows = data.baselines("test")
    assert rows[UPPER_BOUND]["fact_f1"] == rows[MODAL_TEMPLATE]["fact_f1"] == 1.0
    for metric in ("bleu4", "fact_f1"):
        assert rows[LANGUAGE_ONLY][metric] <= 0.5 * rows[UPPER_BOUND][metric]
    assert rows[MODAL_TEMPLATE]["bleu4"] > 0.9 * rows[UPPER_BOUND]["bleu4"]
    assert data.baselines("test") is rows


def test_typical_captions_are_true(data):
    for example in data.examples("val"):
        scene = Scene.from_json(example.image_name)
        assert caption_fact_f1(typical_caption(scene), scene) == 1.0


def _first_image(data):
    example = data.examples("val")[0]
    return example, np.asarray(data.open_image(example))


def test_a_spawned_process_makes_the_same_scenes_captions_and_pictures(data):
    """Such a process has another hash seed and, on Windows and macOS, is what loader workers are."""
    copy = pickle.loads(pickle.dumps(data))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_first_image, (copy,))
    here = _first_image(data)
    assert there[0] == here[0]
    assert np.array_equal(there[1], here[1])


@pytest.mark.parametrize(
    "arguments", [{"num_val": 0}, {"image_size": 32}, {"max_groups": 5}, {"max_objects": 1}, {"annotators": 0}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        SceneCaptions(**arguments)


def test_references_state_facts_that_hold(data):
    metric = SceneFacts(data.scenes("val"))
    references = data.references("val")
    metric.update(list(references), [captions[0] for captions in references.values()])
    assert {name: value.item() for name, value in metric.compute().items()}.items() >= {
        "f1": 1.0,
        "relations": 1.0,
    }.items()


def test_captions_alone_draw_no_pictures(monkeypatch):
    data = SceneCaptions(num_train=8, batch_size=4, labels="emotions", captions_only=True)
    monkeypatch.setattr(data, "open_image", lambda example: pytest.fail("a picture was drawn"))
    batch = next(iter(data.train_dataloader()))
    assert "image" not in batch
    assert len(batch["scene"]) == len(batch["labels"]) == 4
    with pytest.raises(UserError, match="captions_only is true with encoder=small-conv"):
        SceneCaptions(encoder="small-conv", captions_only=True)
