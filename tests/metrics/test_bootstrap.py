import numpy as np
import pytest

from core.errors import UserError
from metrics.bootstrap import paired_bootstrap
from metrics.captions import SCORES, ImageScores, corpus_scores, score_images
from tests.metrics.test_captions import corpus

PREDICTIONS, REFERENCES = corpus(5, images=60)
RANDOM = score_images(PREDICTIONS, REFERENCES)
GOOD = score_images({i: r[0] for i, r in REFERENCES.items()}, REFERENCES)


def test_a_system_equals_itself():
    for result in paired_bootstrap(RANDOM, RANDOM, samples=50).values():
        assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_a_better_system_is_found_and_scores_are_the_corpus_scores():
    results = paired_bootstrap(RANDOM, GOOD, samples=200)
    assert list(results) == list(SCORES)
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"):
        result = results[name]
        assert result.a == pytest.approx(RANDOM.corpus()[name])
        assert result.b == pytest.approx(GOOD.corpus()[name])
        assert 0 < result.low <= result.difference <= result.high
        assert result.p == pytest.approx(2 / 201)


def test_exchanging_the_systems_turns_the_signs():
    forth, back = paired_bootstrap(RANDOM, GOOD, samples=99), paired_bootstrap(GOOD, RANDOM, samples=99)
    for name in SCORES:
        assert back[name].low == pytest.approx(-forth[name].high)
        assert back[name].p == forth[name].p


def test_is_the_plain_loop_over_resampled_images():
    count, samples = len(RANDOM.rows), 20
    draws = np.random.default_rng(3).multinomial(count, np.full(count, 1 / count), size=samples)
    loop = [
        corpus_scores(np.repeat(GOOD.rows, d, axis=0))["bleu4"]
        - corpus_scores(np.repeat(RANDOM.rows, d, axis=0))["bleu4"]
        for d in draws
    ]
    result = paired_bootstrap(RANDOM, GOOD, samples=samples, seed=3, confidence=0.9)["bleu4"]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(loop, [0.05, 0.95])))


def test_same_seed_same_result_and_order_of_images_is_free():
    turned = ImageScores(GOOD.image_ids[::-1], GOOD.rows[::-1])
    assert paired_bootstrap(RANDOM, turned, samples=30) == paired_bootstrap(RANDOM, GOOD, samples=30)
    assert paired_bootstrap(RANDOM, GOOD, samples=30, seed=1) != paired_bootstrap(RANDOM, GOOD, samples=30)


def test_chance_of_a_false_alarm_is_about_five_percent():
    draw = np.random.default_rng(0)
    alarms = 0
    for trial in range(100):
        swap = draw.random(len(RANDOM.rows)) < 0.5
        a = ImageScores(RANDOM.image_ids, np.where(swap[:, None], GOOD.rows, RANDOM.rows))
        b = ImageScores(RANDOM.image_ids, np.where(swap[:, None], RANDOM.rows, GOOD.rows))
        alarms += paired_bootstrap(a, b, samples=200, seed=trial)["cider_d"].p <= 0.05
    assert 0 <= alarms <= 12


def test_mistakes_are_named():
    other = ImageScores([*GOOD.image_ids[:-1], "other"], GOOD.rows)
    with pytest.raises(UserError, match=r"2 images have a caption by one system only .*other"):
        paired_bootstrap(RANDOM, other)
    with pytest.raises(UserError, match="samples=0"):
        paired_bootstrap(RANDOM, GOOD, samples=0)
    with pytest.raises(UserError, match="confidence=95"):
        paired_bootstrap(RANDOM, GOOD, confidence=95)
