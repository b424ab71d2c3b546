"""Signs of captioners that have learnt to please a metric."""

import pytest

from metrics.caption_statistics import caption_statistics, signs_of_collapse

HEALTHY = [f"a dog runs to house {number} on the beach" for number in range(30)]


def test_healthy_captions_have_no_sign():
    assert not signs_of_collapse(caption_statistics(HEALTHY), caption_statistics(HEALTHY))


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ([f"{text} with a" for text in HEALTHY[:4]] + HEALTHY[4:], "4 captions break off"),
        ([f"{text} on the beach" for text in HEALTHY[:5]] + HEALTHY[5:], "5 captions repeat a word or phrase at once"),
        ([text.replace("dog", "dog dog") for text in HEALTHY], "30 captions repeat a word or phrase at once"),
    ],
)
def test_what_a_metric_that_is_trained_on_pays_for_is_named(captions, said):
    assert any(said in line for line in signs_of_collapse(caption_statistics(captions), caption_statistics(HEALTHY)))


def test_what_references_do_is_no_sign():
    odd = [f"{text} with" for text in HEALTHY]
    assert not signs_of_collapse(caption_statistics(odd), caption_statistics(odd))
