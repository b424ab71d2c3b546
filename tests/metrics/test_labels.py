"""Label metrics: equal to scikit-learn's where it has them, to loops elsewhere; nothing undefined is invented."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from core.errors import UserError
from metrics.labels import average_precisions, choose_threshold, label_scores, per_label


def draw(seed=0, images=150, labels=7, decimals=2):
    """Probabilities with ties, and targets in which every label occurs and every image has some."""
    random = np.random.default_rng(seed)
    probabilities = random.random((images, labels)).round(decimals)
    targets = random.random((images, labels)) < 0.3
    targets[np.arange(images), random.integers(0, labels, images)] = True
    return probabilities, targets


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_f1_are_scikit_learns(seed):
    probabilities, targets = draw(seed)
    ours = label_scores(probabilities, targets, 0.4)
    for theirs, name in (("micro", "micro"), ("macro", "macro"), ("samples", "example")):
        expected = oracle.precision_recall_fscore_support(
            targets, probabilities >= 0.4, average=theirs, zero_division=0
        )
        found = [ours[f"{name}_{figure}"] for figure in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3])


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_average_precision_is_scikit_learns_with_ties(decimals):
    probabilities, targets = draw(decimals=decimals)
    expected = oracle.average_precision_score(targets, probabilities, average=None)
    assert average_precisions(probabilities, targets) == pytest.approx(expected)
    assert label_scores(probabilities, targets)["macro_ap"] == pytest.approx(expected.mean())


def test_average_precision_by_hand():
    # ranked: hit, miss, hit, hit -> (1/1 + 2/3 + 3/4) / 3
    scores = label_scores([[0.9], [0.8], [0.7], [0.6]], [[1], [0], [1], [1]])
    assert scores["macro_ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_top_and_recall_are_what_a_loop_finds():
    probabilities, targets = draw(decimals=8)
    top, recalls, found = {1: 0, 2: 0, 3: 0}, [], 0
    for row, truth in zip(probabilities, targets, strict=True):
        best = sorted(range(len(row)), key=lambda label: -row[label])
        for k in top:
            top[k] += any(truth[label] for label in best[:k])
        hits = sum(truth[label] for label in best[:3])
        recalls.append(hits / truth.sum())
        found += hits
    ours = label_scores(probabilities, targets)
    assert [ours[f"top{k}"] for k in top] == pytest.approx([top[k] / len(targets) for k in top])
    assert ours["recall3"] == pytest.approx(np.mean(recalls))
    assert ours["recall3_micro"] == pytest.approx(found / targets.sum())
    assert ours["as_published/recall3"] == pytest.approx(found / (3 * len(targets)))


def test_images_without_labels_are_right_when_nothing_is_said():
    scores = label_scores([[0.9, 0.1], [0.1, 0.2], [0.1, 0.9]], [[1, 0], [0, 0], [0, 0]])
    assert scores["top1"] == scores["recall3"] == scores["recall3_micro"] == 1  # the others cannot be hit
    assert scores["example_f1"] == pytest.approx(2 / 3)
    assert scores["micro_precision"] == 0.5


def test_nothing_true_at_all():
    scores = label_scores(np.full((3, 2), 0.2), np.zeros((3, 2)))
    assert all(math.isnan(scores[key]) for key in ("top1", "recall3", "recall3_micro", "macro_ap", "macro_f1"))
    assert scores["labels_without_positives"] == 2
    assert scores["micro_f1"] == 0
    assert scores["example_f1"] == 1
    assert choose_threshold(np.full((3, 2), 0.2), np.zeros((3, 2))) == 0.5


def test_everything_true():
    scores = label_scores(np.full((3, 4), 0.9), np.ones((3, 4)), prior=np.ones(4))
    assert [scores[key] for key in ("top1", "top3", "micro_f1", "macro_f1", "macro_ap")] == [1] * 5
    assert scores["recall3"] == scores["recall3_micro"] == 0.75
    assert scores["lift_over_prior"] == 0


def test_no_images():
    assert math.isnan(label_scores(np.zeros((0, 2)), np.zeros((0, 2)))["top1"])


def test_labels_that_no_image_has_are_left_out_and_counted():
    probabilities, targets = draw()
    more = np.hstack([probabilities, probabilities[:, :1]]), np.hstack([targets, np.zeros((len(targets), 1), bool)])
    alone, both = label_scores(probabilities, targets), label_scores(*more)
    assert both["labels_without_positives"] == 1
    assert both["macro_ap"] == alone["macro_ap"]
    assert both["macro_f1"] == alone["macro_f1"]


def test_prior_has_no_lift_and_its_precision_is_the_frequency():
    _, targets = draw()
    prior = targets.mean(axis=0)
    scores = label_scores(np.broadcast_to(prior, targets.shape), targets, prior=prior)
    assert scores["macro_ap"] == pytest.approx(prior.mean())
    assert [scores[key] for key in ("lift_over_prior", "top1_lift", "top2_lift", "top3_lift")] == [0, 0, 0, 0]


def test_soft_targets_count_from_a_half():
    probabilities, targets = draw()
    assert label_scores(probabilities, np.where(targets, 0.5, 0.49)) == label_scores(probabilities, targets)


@pytest.mark.parametrize("seed", range(3))
def test_threshold_is_the_best_of_all(seed):
    probabilities, targets = draw(seed)
    tried = [label_scores(probabilities, targets, value)["micro_f1"] for value in np.unique(probabilities)]
    assert label_scores(probabilities, targets, choose_threshold(probabilities, targets))["micro_f1"] == max(tried)


def test_table_of_labels_agrees_with_the_summary():
    probabilities, targets = draw()
    rows = per_label(probabilities, targets, [f"label {place}" for place in range(7)], 0.4)
    scores = label_scores(probabilities, targets, 0.4)
    assert np.mean([row["f1"] for row in rows]) == pytest.approx(scores["macro_f1"])
    assert np.mean([row["average_precision"] for row in rows]) == pytest.approx(scores["macro_ap"])
    assert [row["support"] for row in rows] == targets.sum(axis=0).tolist()
    assert per_label([[0.9]], [[0]], ["none"])[0]["average_precision"] is None


@pytest.mark.parametrize(
    ("probabilities", "targets", "said"),
    [
        ([[0.1, 0.2]], [[1]], r"\(1, 2\).*\(1, 1\)"),
        ([[float("nan")]], [[1]], "probability of image 0"),
        ([[0.5]], [[float("nan")]], "target of image 0"),
    ],
)
def test_what_cannot_be_scored_is_said(probabilities, targets, said):
    with pytest.raises(UserError, match=said):
        label_scores(probabilities, targets)


def test_names_must_fit():
    with pytest.raises(UserError, match="1 label names for 2 labels"):
        per_label([[0.1, 0.2]], [[1, 0]], ["sea"])
