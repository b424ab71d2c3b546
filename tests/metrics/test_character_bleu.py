import json
import warnings
from collections import Counter

import pytest

from core.errors import UserError
from metrics.character_bleu import character_bleu

KEYS = [f"as_published/bleu{n}_char" for n in range(1, 5)]


def precision(text: str, reference: str, n: int) -> float:
    """Clipped character n-gram precision by hand; no brevity penalty, so only for a longer candidate."""
    grams, limits = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (text, reference))
    return sum(min(count, limits[gram]) for gram, count in grams.items()) / sum(grams.values())


def test_is_the_precision_of_character_n_grams_each_order_by_itself():
    text, reference = "a black dog runs in the grass", "the dog runs on black grass"
    scores = character_bleu({"1": text}, {"1": [reference]})
    assert list(scores) == KEYS
    assert list(scores.values()) == pytest.approx([precision(text, reference, n) for n in range(1, 5)])


def test_is_the_mean_over_captions_and_empty_ones_count_zero():
    references = {"1": ["a dog runs"], "2": ["a dog runs"]}
    scores = character_bleu({"1": "a dog runs", "2": ""}, references)
    assert list(scores.values()) == pytest.approx([0.5] * 4)


def test_nothing_in_common_is_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert character_bleu({"1": "xyz"}, {"1": ["abcabc"]})[KEYS[0]] == 0


def test_unrelated_real_captions_score_high(data_root):
    annotations = json.loads((data_root / "coco_mini/annotations/captions_val2017.json").read_text())["annotations"]
    references = {}
    for record in annotations:
        references.setdefault(record["image_id"], []).append(record["caption"].strip())
    ids = list(references)
    unrelated = {i: references[other][0] for i, other in zip(ids, ids[1:] + ids[:1], strict=True)}
    assert 0.55 < character_bleu(unrelated, {i: references[i][:1] for i in ids})[KEYS[0]] < 0.65
    assert 0.8 < character_bleu(unrelated, references)[KEYS[0]] < 0.9


def test_mistakes_are_named():
    with pytest.raises(UserError, match="no predictions"):
        character_bleu({}, {})
    with pytest.raises(UserError, match="image '1' has no references"):
        character_bleu({"1": "a"}, {"1": []})
