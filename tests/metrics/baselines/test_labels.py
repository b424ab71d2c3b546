"""Baselines of labels: what each row knows, and nothing more."""

import numpy as np
import pytest

from core.errors import UserError
from datamodules.audit.label_baselines import label_baselines_of
from datamodules.ucm_captions import UCMCaptions
from metrics.baselines.labels import label_baselines, word_regression
from metrics.baselines.rows import (
    FEATURE_REGRESSION,
    PREDICTED_CLASS_LABELS,
    PRIOR,
    TRUE_CLASS_LABELS,
    WORD_REGRESSION,
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
    rows = label_baselines(TARGETS, TARGETS, **everything)
    assert list(rows) == [PRIOR, WORD_REGRESSION, FEATURE_REGRESSION, PREDICTED_CLASS_LABELS, TRUE_CLASS_LABELS]
    assert list(label_baselines(TARGETS, TARGETS)) == [PRIOR]
    assert rows[PREDICTED_CLASS_LABELS] == rows[TRUE_CLASS_LABELS]  # the two features say the class
    regressions = (rows[WORD_REGRESSION]["micro_f1"], rows[FEATURE_REGRESSION]["micro_f1"])
    assert regressions == (rows[TRUE_CLASS_LABELS]["micro_f1"],) * 2


def test_prior_is_that_of_training():
    test = 1 - TARGETS
    row = label_baselines(TARGETS, test)[PRIOR]
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


def test_labels_of_the_true_class_on_ucm(data_root):
    data = UCMCaptions(root=str(data_root / "ucm"), captions_only=True)
    rows = label_baselines_of(data, "test", reads_text=False)
    assert list(rows) == [PRIOR, TRUE_CLASS_LABELS]
    assert rows[TRUE_CLASS_LABELS]["micro_f1"] == pytest.approx(0.803, abs=0.001)
