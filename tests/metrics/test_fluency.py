"""The language model of fluency: probabilities sum to one, continuation counts, perplexity of known captions."""

import math

import pytest

from metrics.baselines.ngram_model import END, NGramModel
from metrics.fluency import KneserNeyModel, Perplexity

TEXTS = ("a red dog", "a dog", "the red cat", "san francisco", "san francisco", "in san francisco")
SENTENCES = [text.split() for text in TEXTS]


@pytest.fixture(scope="module")
def model():
    return KneserNeyModel(SENTENCES, 3)


@pytest.mark.parametrize("history", [(), ("a",), ("a", "red"), ("<s>", "a"), ("never", "heard"), ("<s>",), ("dog",)])
def test_probabilities_after_any_history_sum_to_one_with_one_unknown_word(model, history):
    words = [*model.vocabulary, "unknown"]
    assert END in model.vocabulary
    assert sum(model.probability(word, history) for word in words) == pytest.approx(1)
    assert all(model.probability(word, history) > 0 for word in words)


def test_a_word_that_follows_one_word_only_is_rare_elsewhere(model):
    """The published example: "francisco" is frequent, but only after "san"."""
    assert model.probability("francisco", ("the",)) < model.probability("dog", ("the",))
    by_number = NGramModel(SENTENCES, 3)
    assert model.probability("francisco", ("the",)) < by_number.probability("francisco", ("the",)) / 2
    assert max(model.vocabulary, key=lambda word: model.probability(word, ("san",))) == "francisco"


def test_perplexity_is_that_of_all_words_and_ends(model):
    metric = Perplexity(model, ["a", "b"])
    metric.update(["a", "b"], ["A red dog.", "A cat."])
    logs = [model.log_prob(text) for text in ("a red dog", "a cat")]
    assert [count for _, count in logs] == [4, 3]
    assert metric.compute().item() == pytest.approx(math.exp(-sum(log for log, _ in logs) / 7), rel=1e-5)


def test_words_in_disorder_are_less_fluent(model):
    one, other = (Perplexity(model, ["x"]) for _ in range(2))
    one.update(["x"], ["a red dog"])
    other.update(["x"], ["dog a red"])
    assert one.compute() < other.compute()
