"""Caption metrics against NLTK, coco-caption's Python parts, hand calculations and published scores."""

import json
import math
import random

import numpy as np
import pytest

from core.errors import UserError
from metrics.caption_rows import STATISTICS
from metrics.captions import SCORES, References, corpus_scores, score_captions, score_images
from metrics.ngrams import lcs_length

WORDS = ["a", "the", "dog", "cat", "man", "runs", "on", "grass", "red"]


def corpus(seed: int, images: int = 30, shortest: int = 1) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Random captions of few words, so that n-grams repeat and match; up to 14 tokens."""
    draw = random.Random(seed)
    sentence = lambda: " ".join(draw.choices(WORDS, k=draw.randint(shortest, 14)))  # noqa: E731
    references = {str(i): [sentence() for _ in range(draw.randint(1, 5))] for i in range(images)}
    return {i: sentence() for i in references}, references


@pytest.mark.parametrize("seed", range(3))
def test_bleu_is_nltk_corpus_bleu(seed):
    from nltk.translate.bleu_score import corpus_bleu

    predictions, references = corpus(
        seed, images=200, shortest=4
    )  # below 4 tokens NLTK counts n-grams that are not there
    ours = score_captions(predictions, references)
    for n in range(1, 5):
        nltk = corpus_bleu(
            [[r.split() for r in references[i]] for i in predictions],
            [p.split() for p in predictions.values()],
            weights=[1 / n] * n,
        )
        assert ours[f"bleu{n}"] == pytest.approx(nltk, abs=1e-6)


def test_agrees_with_coco_caption_per_image_and_as_a_whole():
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = corpus(7, images=60)
    predictions["3"], predictions["4"], references["5"] = "", "zebra", ["one", "two words", "x y z w v"]
    images = score_images(predictions, references)
    whole, each = images.corpus(), images.table()
    results = {i: [p] for i, p in predictions.items()}
    bleu = BleuScorer(n=4)
    for i, prediction in predictions.items():
        bleu += (prediction, references[i])
    bleu_whole, bleu_each = bleu.compute_score(option="closest")
    for n in range(4):
        assert whole[f"bleu{n + 1}"] == pytest.approx(bleu_whole[n], rel=1e-9)
        np.testing.assert_allclose(each[f"bleu{n + 1}"], bleu_each[n], rtol=1e-9, atol=1e-300)
    for name, oracle in (("rouge_l", Rouge()), ("cider_d", Cider())):
        score, scores = oracle.compute_score(references, results)
        assert whole[name] == pytest.approx(score, rel=1e-9)
        np.testing.assert_allclose(each[name], scores, rtol=1e-9, atol=1e-12)


def test_closest_reference_length_is_the_shorter_of_two_equally_close():
    rows = score_images({"1": "a b c"}, {"1": ["a b", "a b c d"]}).rows
    assert rows[0, STATISTICS.index("reflen")] == 2


def test_n_grams_are_clipped_at_the_highest_count_in_one_reference():
    rows = score_images({"1": "the the the the"}, {"1": ["the cat the", "the"]}).rows
    assert rows[0, STATISTICS.index("correct1")] == 2


def test_lcs_is_the_textbook_table():
    draw = random.Random(0)
    for _ in range(200):
        a, b = (draw.choices("abcd", k=draw.randint(0, 12)) for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert lcs_length(a, b) == table[-1, -1]


def test_rouge_takes_precision_and_recall_from_different_references():
    # precision 1 from the long reference, recall 1 from the short one
    scores = score_captions({"1": "a b c d"}, {"1": ["a b c d e f", "a"]}, tokenize=str)
    assert scores["rouge_l"] == pytest.approx(1.0)


def test_cider_by_hand():
    # two images, so every n-gram here weighs log 2: unigrams share 1 of 2 (cosine 1/2), bigrams none, orders 3 and 4
    # are empty; the mean of the four orders, times 10
    references = {"1": ["red cat"], "2": ["blue bird"]}
    assert score_captions({"1": "red dog"}, references)["cider_d"] == pytest.approx(10 * 0.5 / 4)
    # two tokens more: the length penalty with sigma 6, and a cosine of 1 / sqrt(2 * 4)
    longer = 10 * math.exp(-(2**2) / (2 * 6**2)) / math.sqrt(8) / 4
    assert score_captions({"1": "red dog or fox"}, references)["cider_d"] == pytest.approx(longer)


def test_document_frequencies_come_from_all_references():
    predictions, references = corpus(3)
    whole = score_images(predictions, references)
    part = score_images(dict(list(predictions.items())[:10]), references)
    np.testing.assert_array_equal(part.rows, whole.rows[:10])
    assert part.corpus()["cider_d"] == pytest.approx(whole.table()["cider_d"][:10].mean())


def test_order_of_images_does_not_matter():
    predictions, references = corpus(4)
    backwards = dict(reversed(predictions.items()))
    assert score_captions(predictions, references) == pytest.approx(score_captions(backwards, references), rel=1e-12)


def test_perfect_and_empty_captions():
    references = {"1": ["a man rides a horse on a beach"], "2": ["two small dogs play in deep snow"]}
    perfect = score_captions({i: r[0] for i, r in references.items()}, references)
    shares = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")
    assert perfect == pytest.approx(dict.fromkeys(shares, 1.0) | {"cider_d": 10.0})
    for text in ("", " ", ".", "!"):
        assert score_captions({"1": text, "2": text}, references) == pytest.approx(dict.fromkeys(SCORES, 0.0), abs=1e-6)
    one = score_captions({"1": "a", "2": "two small"}, references)
    assert all(math.isfinite(value) for value in one.values())


def test_one_image_alone_has_no_cider():
    assert score_captions({"1": "a dog"}, {"1": ["a dog"]})["cider_d"] == 0.0


def test_no_rows_give_nan():
    assert all(math.isnan(value) for value in corpus_scores(np.zeros((0, len(STATISTICS)))).values())


def test_errors_name_the_image():
    with pytest.raises(UserError, match="no references: expected at least one image"):
        References({})
    with pytest.raises(UserError, match="image 'x' has no list of references"):
        References({"x": []})
    with pytest.raises(UserError, match="image 'x' has no list of references"):
        References({"x": "a dog"})
    with pytest.raises(UserError, match="image '2' is not among the 1 images"):
        score_captions({"2": "a"}, {"1": ["a"]})
    with pytest.raises(UserError, match="no predictions"):
        score_captions({}, {"1": ["a"]})


# ---- published scores, to the printed digit ----


@pytest.fixture(scope="module")
def published(data_root):
    return json.loads((data_root / "coco_eval/published_scores.json").read_text())


KEYS = {
    "Bleu_1": "bleu1",
    "Bleu_2": "bleu2",
    "Bleu_3": "bleu3",
    "Bleu_4": "bleu4",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider_d",
}


def assert_printed(ours: dict[str, float], theirs: dict[str, float], digits: int) -> None:
    for theirs_key, key in KEYS.items():
        assert round(ours[key], digits) == theirs[theirs_key], key


def test_fakecap_example_of_coco_caption(data_root, published):
    folder = data_root / "coco_eval/fakecap_val2014"
    results = json.loads((folder / "captions_val2014_fakecap_results.json").read_text())
    references = {}
    for record in json.loads((folder / "captions_val2014.json").read_text())["annotations"]:
        references.setdefault(str(record["image_id"]), []).append(record["caption"])
    images = score_images({str(r["image_id"]): r["caption"] for r in results}, references)
    assert_printed(images.corpus(), published["fakecap_val2014"]["scores"], 3)
    counts = published["fakecap_val2014"]["bleu_counts"]
    assert images.rows[:, :9].sum(axis=0).tolist() == [counts["reflen"], *counts["guess"], *counts["correct"]]


def test_nlg_eval_example_split_at_white_space(data_root, published):
    folder = data_root / "coco_eval/nlg_eval_example"
    lines = [(folder / name).read_text().splitlines() for name in ("hyp.txt", "ref1.txt", "ref2.txt")]
    predictions = {str(i): line for i, line in enumerate(lines[0])}
    references = {str(i): list(pair) for i, pair in enumerate(zip(*lines[1:], strict=True))}
    scores = score_captions(predictions, references, tokenize=str.strip)
    assert_printed(scores, published["nlg_eval_example"]["scores"], 6)


@pytest.mark.parametrize("quality", ["good", "bad"])
def test_clipscore_example(data_root, published, quality):
    folder = data_root / "coco_eval/clipscore_example"
    references = json.loads((folder / "refs.json").read_text())
    scores = score_captions(json.loads((folder / f"{quality}_captions.json").read_text()), references)
    assert_printed(scores, published["clipscore_example"][f"{quality}_captions"], 4)


def tau_c(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Stuart's tau-c from the table of counts; ratings are 1 .. 4."""
    values, place = np.unique(scores, return_inverse=True)
    table = np.zeros((len(values), 5))
    np.add.at(table, (place, ratings), 1)
    lower = np.cumsum(table[::-1], axis=0)[::-1][1:]  # pairs with a higher score
    higher_rating = np.cumsum(lower[:, ::-1], axis=1)[:, ::-1]
    concordant = (table[:-1, :-1] * higher_rating[:, 1:]).sum()
    discordant = (table[:-1, 1:] * np.cumsum(lower, axis=1)[:, :-1]).sum()
    classes = min(len(values), len(np.unique(ratings)))
    return 2 * (concordant - discordant) / (len(scores) ** 2 * (classes - 1) / classes)


def test_flickr8k_expert_correlation(data_root):
    """43.89 needs CIDEr-D with every rated pair as a document of its own (5664), not every image."""
    folder = data_root / "flickr8k"
    captions = dict(line.split("\t", 1) for line in (folder / "Flickr8k.token.txt").read_text().splitlines())
    own = {}
    for key, caption in captions.items():
        own.setdefault(key.split("#")[0], []).append(caption)
    lines = [line.split() for line in (folder / "ExpertAnnotations.txt").read_text().splitlines()]
    lines = [line for line in lines if line[1].split("#")[0] != line[0]]
    assert len(lines) == 5664
    references = {str(n): own[line[0]] for n, line in enumerate(lines)}
    table = score_images({str(n): captions[line[1]] for n, line in enumerate(lines)}, references).table()
    ratings = np.array([int(rating) for line in lines for rating in line[2:]])
    assert round(100 * tau_c(np.repeat(table["cider_d"], 3), ratings), 2) == 43.89
    assert round(100 * tau_c(np.repeat(table["rouge_l"], 3), ratings), 2) == 32.31
