"""Attention that tells nothing is named, attention that looks is not."""

import numpy as np

from metrics.attention_health import signs_of_idle_attention

RNG = np.random.default_rng(0)


def maps(sharpness, images=6, words=8, regions=49):
    logits = sharpness * RNG.normal(size=(images, words, regions))
    weights = np.exp(logits)
    return list(weights / weights.sum(axis=-1, keepdims=True))


def test_uniform_attention_is_named():
    (sign,) = signs_of_idle_attention(maps(0.05))
    assert "attention is uniform: its entropy is 0.99" in sign or "1.000" in sign


def test_attention_at_one_place_is_named():
    one = maps(2.0, images=1, words=1)[0][0]
    (sign,) = signs_of_idle_attention([np.tile(one, (8, 1))] * 6)
    assert sign == f"attention is stuck: it is the same at 48 words of 6 images, highest at {one.argmax()}"


def test_attention_that_looks_is_healthy():
    assert signs_of_idle_attention(maps(1.0)) == []
    assert signs_of_idle_attention(maps(4.0)) == []


def test_too_little_says_nothing():
    assert signs_of_idle_attention([]) == []
    assert signs_of_idle_attention(maps(0.0, images=2)) == []
    assert signs_of_idle_attention(maps(0.0, regions=1)) == []
    assert signs_of_idle_attention([np.zeros((0, 49))] * 3) == []
