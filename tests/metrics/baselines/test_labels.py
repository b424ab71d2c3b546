"""Floors of labels: what each row knows, and nothing more."""

import numpy as np
import pytest

from core.errors import UserError
from datamodules.audit.label_baselines import label_baselines_of
from datamodules.ucm_captions import UCMCaptions
from metrics.baselines.labels import (
    FEATURES,
    PREDICTED_CLASS,
    PRIOR,
    TRUE_CLASS,
    WORDS,
    label_bounds,
    label_floors_above,
    label_warning,
    word_regression,
)
from metrics.labels import label_scores

CLASSES = ["sea", "wood", "sea", "wood", "sea", "wood"]
TARGETS = np.array([[1.0, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 0]])
FEATURES_OF = {"sea": [1.0, 0.0], "wood": [0.0, 1.0]}


def test_rows_need_what_they_are_made_of():
    features = np.array([FEATURES_OF[name] for name in CLASSES], dtype=np.float32)
    texts = [f"a picture of the {name}" for name in CLASSES]
    everything = {
        "train_texts": texts,
        "texts": texts,
        "train_features": features,
        "features": features,
        "train_classes": CLASSES,
        "classes": CLASSES,
    }
    rows = label_bounds(TARGETS, TARGETS, **everything)
    assert list(rows) == [PRIOR, WORDS, FEATURES, PREDICTED_CLASS, TRUE_CLASS]
    assert list(label_bounds(TARGETS, TARGETS)) == [PRIOR]
    assert rows[PREDICTED_CLASS] == rows[TRUE_CLASS]  # the two features say the class
    assert rows[WORDS]["micro_f1"] == rows[FEATURES]["micro_f1"] == rows[TRUE_CLASS]["micro_f1"]


def test_prior_is_that_of_training():
    test = 1 - TARGETS
    row = label_bounds(TARGETS, test)[PRIOR]
    assert row["lift_over_prior"] == row["top1_lift"] == 0
    assert row["top1"] == label_scores(np.tile(TARGETS.mean(0), (6, 1)), test)["top1"]


def test_a_label_that_all_or_none_have_is_no_trouble():
    targets = np.array([[1.0, 0, 1], [1, 0, 0]])
    rows = word_regression(["red", "blue"], targets >= 0.5, ["red", "red blue"])
    assert rows[:, 0].tolist() == [1, 1]
    assert rows[:, 1].tolist() == [0, 0]
    assert rows[0, 2] > rows[1, 2]


def test_training_without_words_is_said():
    with pytest.raises(UserError, match="no training caption has a word"):
        word_regression(["", " "], np.array([[True], [False]]), ["a"])


def test_floors_that_are_not_beaten():
    bounds = {PRIOR: {"macro_ap": 0.14, "top1": 0.7}, WORDS: {"macro_ap": 0.2, "top1": 0.7}}
    assert label_floors_above({"macro_ap": 0.1}, bounds) == [WORDS, PRIOR]
    assert label_floors_above({"macro_ap": 0.2}, bounds) == [WORDS]  # equal is not better
    assert label_floors_above({"macro_ap": float("nan")}, bounds) == [WORDS, PRIOR]
    assert label_warning("it", {"macro_ap": 0.3, "top1": 0.7}, bounds) is None
    assert "top1 0.600 of it does not beat label prior 0.700" in str(
        label_warning("it", {"macro_ap": 0.3, "top1": 0.6}, bounds)
    )
    assert label_warning("it", {"bleu4": 0.3}, bounds) is None


def test_labels_of_the_true_class_on_ucm(data_root):
    data = UCMCaptions(root=str(data_root / "ucm"), captions_only=True)
    rows = label_baselines_of(data, "test", reads_text=False)
    assert list(rows) == [PRIOR, TRUE_CLASS]
    assert rows[TRUE_CLASS]["micro_f1"] == pytest.approx(0.803, abs=0.001)
