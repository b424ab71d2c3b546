"""The judge of labels: laws of naive Bayes, words that tell a label, images counted once."""

import math

import pytest
import torch

from core.errors import UserError
from metrics.label_agreement import LabelAgreement, WordClassifier

CAPTIONS = ["a sad dog", "a sad cat", "sad rain", "a happy dog", "a happy cat", "happy sun", "a dog"]
LABELS = [0, 0, 0, 1, 1, 1, -1]


@pytest.fixture(scope="module")
def classifier():
    return WordClassifier(CAPTIONS, LABELS, num_labels=2)


def test_scores_are_the_log_likelihoods_of_a_formula(classifier):
    words = ["a", "sad", "dog", "cat", "rain", "happy", "sun"]
    pairs = ["a sad", "sad dog", "sad cat", "sad rain", "a happy", "happy dog", "happy cat", "happy sun"]
    smoothing, kinds = 0.1, len({*words, *pairs})
    total = 13 + smoothing * kinds  # words and pairs of each label
    expected = [math.log((3 + smoothing) / total), math.log(smoothing / total)]
    assert classifier.scores("unheard sad") == pytest.approx(expected)
    assert classifier.scores("sad") == pytest.approx(expected)


def test_captions_have_their_label_and_order_does_not_matter(classifier):
    assert [classifier.label(text) for text in CAPTIONS[:6]] == LABELS[:6]
    again = WordClassifier(CAPTIONS[::-1], LABELS[::-1], num_labels=2)
    assert again.scores("a sad sun") == pytest.approx(classifier.scores("a sad sun"))


def test_telling_words_occur_with_their_label_and_depend_on_the_key_alone(classifier):
    assert {classifier.telling_word(0, str(key)) for key in range(50)} == {"sad"}
    assert classifier.telling_word(1, "x") == classifier.telling_word(1, "x") == "happy"
    assert WordClassifier(["a"], [0], num_labels=2).telling_word(1, "x") == ""


def test_without_labels_there_is_no_classifier():
    with pytest.raises(UserError, match="no training caption has a label"):
        WordClassifier(["a dog"], [-1], num_labels=2)


def test_agreement_counts_images_that_were_asked_for_something(classifier):
    metric = LabelAgreement(classifier, ["a", "b", "c", "d"])
    metric.update(["a", "b", "c"], ["so sad", "so sad", "so sad"], [0, 1, -1])
    assert metric.compute() == 0.5
    metric.update(["b"], ["happy"], [1])  # the last caption of an image counts
    assert metric.compute() == 1.0


def test_two_processes_that_share_an_image_give_the_result_of_one(classifier):
    parts = [LabelAgreement(classifier, ["a", "b", "c"]) for _ in range(3)]
    whole, left, right = parts
    for image, value, weight in (("a", 2.0, 4.0), ("b", 1.0, 1.0), ("c", 3.0, 3.0)):
        whole.put(image, value, weight)
        for part in (left, right) if image == "b" else (left,) if image == "a" else (right,):
            part.put(image, value, weight)
    left.rows = torch.maximum(left.rows, right.rows)
    assert left.compute() == whole.compute() == 6 / 8
