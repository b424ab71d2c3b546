"""The rows over arrays are those of the plain implementation, whatever the text."""

import json
import random
import tracemalloc

import numpy as np
import pytest

from metrics.captions import References
from metrics.tokenize import tokenize_caption
from tests.metrics.plain_captions import plain_rows
from tests.metrics.test_captions import corpus

ODD = [
    "a",
    "b",
    "c",
    "a b",
    "",
    " ",
    "  ",
    "\u00a0",
    "\t",
    "\n",
    "3\u00a01/2",
    "日本",
    "😀",
    "é",
    "e\u0301",
    "\x1c",
    "\u2028",
    "\x00",
    "A",
]


def assert_same(predictions, references, tokenize=str):
    prepared = References(references, tokenize=tokenize)
    rows = prepared.score(predictions).rows
    np.testing.assert_allclose(rows, plain_rows(predictions, references, tokenize), rtol=0, atol=1e-12)
    return prepared, rows


@pytest.mark.parametrize("seed", range(5))
def test_captions_of_few_words(seed):
    assert_same(*corpus(seed, images=60))


@pytest.mark.parametrize("glue", ["", " "])
@pytest.mark.parametrize("seed", range(5))
def test_odd_text(seed, glue):
    """White space of all kinds, empty captions: BLEU and CIDEr-D split at white space, ROUGE-L at blanks."""
    draw = random.Random(seed)
    text = lambda: glue.join(draw.choices(ODD, k=draw.randint(0, 8)))  # noqa: E731
    references = {str(i): [text() for _ in range(draw.randint(1, 4))] for i in range(40)}
    assert_same({i: text() for i in references}, references)
    plain = {i: ["a b c", *texts] for i, texts in corpus(seed, images=40)[1].items()}  # no odd text in the references
    assert_same({i: text() for i in plain}, plain)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 63, 64, 65, 130])
def test_captions_of_every_length(length):
    """Masks of 64 bits hold the references of up to 64 words."""
    draw = random.Random(length)
    text = lambda size: " ".join(draw.choices("abcdefgh", k=size))  # noqa: E731
    references = {str(i): [text(length), text(5), text(draw.randint(1, 2 * length))] for i in range(8)}
    assert_same({i: text(draw.randint(1, 2 * length)) for i in references}, references)
    assert_same({i: texts[0] for i, texts in references.items()}, references)


def test_nothing_in_common_nothing_at_all_and_one_image():
    assert_same({"1": "x y z", "2": "w"}, {"1": ["a b c"], "2": ["a", "b"]})
    assert_same({"1": "", "2": ""}, {"1": [""], "2": ["", ""]})
    assert_same({"1": "", "2": "a b"}, {"1": ["a b c d"], "2": [""]})
    assert_same({"1": "a b c d e"}, {"1": ["a b c d e", "a b"]})
    assert_same({"2": "a b c d e"}, {"1": ["b c"], "2": ["a b c d e", "a b"], "3": ["c d"]})
    assert_same({"1": "a b a b a b"}, {"1": ["a"], "2": ["b"]})  # no bigram in any reference


def test_parts_and_repeated_images_give_the_same_rows(monkeypatch):
    predictions, references = corpus(2, images=50)
    prepared, rows = assert_same(predictions, references)
    ids, texts = list(predictions), list(predictions.values())
    each = [prepared.rows([image_id], [text])[0] for image_id, text in predictions.items()]
    np.testing.assert_allclose(each, rows, rtol=0, atol=1e-12)
    monkeypatch.setattr("metrics.captions._BLOCK", 7)
    np.testing.assert_allclose(prepared.rows(ids[::-1] + ids, texts[::-1] + texts), [*rows[::-1], *rows], atol=1e-12)
    assert prepared.rows([], []).shape == (0, rows.shape[1])


def test_lists_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="2 image ids for 1 captions"):
        References({"1": ["a"]}).rows(["1", "1"], ["a"])


def test_scoring_keeps_nothing():
    """Epoch after epoch of captions with ever new words."""
    prepared = References(corpus(0, images=50)[1], tokenize=str)

    def epoch(number):
        prepared.rows(prepared.image_ids, [f"a new{number} word{number}_{i} on grass" for i in prepared.image_ids])

    epoch(0)
    tracemalloc.start()
    try:
        epoch(1)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2, 40):
            epoch(number)
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_real_captions(data_root):
    draw = random.Random(0)
    references = {}
    for record in json.loads((data_root / "coco_eval/captions_val2017.json").read_text())["annotations"]:
        references.setdefault(str(record["image_id"]), []).append(record["caption"])
    references = dict(list(references.items())[:1000])
    words = [word for texts in references.values() for text in texts for word in text.split()]
    predictions = {
        image_id: " ".join(draw.choice(words) if draw.random() < 0.3 else word for word in draw.choice(texts).split())
        for image_id, texts in references.items()
    }
    assert_same(predictions, references, tokenize_caption)
