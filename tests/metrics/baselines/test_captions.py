import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from core.errors import UserError
from datamodules.ucm_captions import UCMCaptions
from metrics.baselines import captions as baselines
from metrics.baselines import rows
from metrics.baselines.ngram_model import END, NGramModel
from metrics.captions import score_captions
from networks.encoders.build import build_encoder

TRAIN = {
    "1": ["A dog runs .", "a dog runs", "the dog is fast"],
    "2": ["a dog runs", "one dog"],
    "3": ["two cats sleep", "two cats"],
}


def bounds_of(train, references, **known):
    return baselines.caption_baselines(baselines.baseline_captions(train, references, **known), references)


def rounded(bound):
    return round(bound["bleu4"], 3), round(bound["cider_d"], 2)


@pytest.fixture(scope="module")
def raw(data_root):
    return UCMCaptions(root=str(data_root / "ucm"), text="raw")


# the real data; expected values are those of the data set's description


def test_the_class_template_of_ucm(raw):
    """True class -> one caption: BLEU-4 .802, CIDEr-D 3.86 on the 147 test images."""
    fixed = baselines.class_captions(raw.references("train"), raw.classes("train"))
    assert len(fixed) == 21
    said = {image_id: fixed[name] for image_id, name in raw.classes("test").items()}
    assert rounded(score_captions(said, raw.references("test"))) == (0.802, 3.86)


def test_humans_of_ucm_against_each_other(raw):
    """.748 and 3.76, the mean over which of the five speaks."""
    assert rounded(baselines.leave_one_out(raw.references("test"))) == (0.748, 3.76)


def test_baselines_without_images_are_far_below_those_with_classes(raw):
    bounds = bounds_of(
        raw.references("train"), raw.references("val"), train_classes=raw.classes("train"), classes=raw.classes("val")
    )
    blind = [row for row in rows.BASELINES if row in bounds]
    assert max(bounds[row]["cider_d"] for row in blind) < 0.8 < 3 < bounds[rows.TRUE_CLASS]["cider_d"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # 1254 pictures through SqueezeNet
def test_the_rows_of_ucm_that_look_at_pictures(data_root):
    """Predicted class: .733 and 3.50 with 88 % right; 5 nearest images: .579 and 2.77. Another classifier and distance
    measure give slightly other values."""
    weights = next((data_root / "weights").glob("squeezenet*.pth"))
    data = UCMCaptions(
        root=str(data_root / "ucm"), text="raw", encoder="torchvision/squeezenet1_0", encoder_weights=str(weights)
    )
    bounds = data.baselines("test")
    assert bounds[rows.PREDICTED_CLASS]["bleu4"] == pytest.approx(0.733, abs=0.02)
    assert bounds[rows.PREDICTED_CLASS]["cider_d"] == pytest.approx(3.50, abs=0.1)
    assert bounds[rows.NEAREST]["bleu4"] == pytest.approx(0.6, abs=0.05)
    assert bounds[rows.NEAREST]["cider_d"] == pytest.approx(2.8, abs=0.15)
    found = baselines.predict_classes(
        data.features("train").means(), list(data.classes("train").values()), data.features("test").means()
    )
    right = np.mean([a == b for a, b in zip(found, data.classes("test").values(), strict=True)])
    assert right == pytest.approx(0.88, abs=0.03)


def test_features_of_pictures_tell_the_class(data_root):
    """The same on a few real pictures, quickly."""
    weights = next((data_root / "weights").glob("squeezenet*.pth"))
    data = UCMCaptions(root=str(data_root / "ucm"))
    encoder = build_encoder("torchvision/squeezenet1_0", str(weights)).eval()
    classes = data.classes("train")
    chosen = [e for e in data.examples("train") if classes[str(e.image_id)] in ("beach", "harbor", "forest")]
    train, test = chosen[::12], chosen[5::24]
    with torch.no_grad():
        rows = [
            encoder.vector(torch.stack([data.transform(data.open_image(e)) for e in part])).numpy()
            for part in (train, test)
        ]
    found = baselines.predict_classes(rows[0], [classes[str(e.image_id)] for e in train], rows[1])
    assert np.mean([name == classes[str(e.image_id)] for name, e in zip(found, test, strict=True)]) >= 0.8


# laws


def test_the_consensus_caption_is_the_best_of_all_by_the_real_metric():
    best = baselines.consensus_caption(TRAIN)
    tried = {text for texts in TRAIN.values() for text in texts}
    scores = {text: score_captions(dict.fromkeys(TRAIN, text), TRAIN)["bleu4"] for text in tried}
    assert scores[best] == pytest.approx(max(scores.values()))
    with pytest.raises(UserError, match="no training caption has a word"):
        baselines.consensus_caption({"1": ["."]})


def test_most_frequent_words_of_each_step():
    captions = {"1": ["a dog runs", "a cat runs", "one dog"], "2": ["a dog", "the dog sleeps"]}
    # steps: a (3 of 5), dog (4), runs (2) and end (2): of equals the later in the alphabet
    assert baselines.step_frequency(captions, ["x", "y"]) == dict.fromkeys(("x", "y"), "a dog runs")


def test_sampled_words_follow_their_frequencies():
    captions = {"1": ["a a a b"]}
    drawn = baselines.word_frequency(captions, map(str, range(4000)), seed=1)
    counts = Counter(word for text in drawn.values() for word in text.split())
    assert counts["a"] / counts["b"] == pytest.approx(3, rel=0.1)
    ends = len(drawn) / (sum(counts.values()) + len(drawn))
    assert ends == pytest.approx(1 / 5, rel=0.05)
    first = Counter(text.split()[0] for text in baselines.step_frequency(TRAIN, map(str, range(3000)), seed=1).values())
    assert first["a"] / 3000 == pytest.approx(3 / 7, abs=0.03)


def test_the_language_model_is_a_distribution_and_absolute_discounting_by_hand():
    model = NGramModel([["a", "b"], ["a", "c"], ["a", "b"]], order=2)
    words = ["a", "b", "c", END]
    for history in [("<s>",), ("a",), ("b",), ("unknown",), ("<s>", "a")]:
        assert sum(model.probability(word, history) for word in words) == pytest.approx(1)
    # after a: b twice, c once; single words: a 3, b 2, c 1, end 3 of 9
    assert model.probability("b", ("<s>", "a")) == pytest.approx((2 - 0.75) / 3 + 0.75 * 2 / 3 * 2 / 9)


def test_the_language_model_samples_from_its_own_probabilities():
    model = NGramModel([["a", "b"], ["a", "c"], ["a", "b"]], order=2)
    draws = random.Random(0)
    first = Counter((model.sample(draws) or [END])[0] for _ in range(4000))
    for word in ("a", "b", "c", END):
        assert first[word] / 4000 == pytest.approx(model.probability(word, ("<s>",)), abs=0.02)


def test_the_search_finds_the_caption_with_the_highest_mean_log_probability():
    sentences = [["a", "b"], ["a", "c", "d"], ["a", "b", "d"], ["b"]]
    model = NGramModel(sentences, order=3)

    def mean(words):
        steps = [*words, END]
        total = sum(math.log(model.probability(word, ("<s>", *words[:place]))) for place, word in enumerate(steps))
        return total / len(steps)

    found = model.search(beams=50)
    assert mean(found) >= max(map(mean, sentences))
    assert baselines.language_model({"1": ["a dog", "a dog", "a cat"]}, ["x"]) == {"x": "a dog"}


def test_shuffled_captions_are_never_an_images_own():
    references = {str(index): [f"{index} {k}" for k in range(3)] for index in range(20)}
    for seed in range(5):
        shuffled = baselines.shuffled_captions(references, seed)
        assert all(text not in references[name] for name, text in shuffled.items())
    assert baselines.shuffled_captions(references, 1) == baselines.shuffled_captions(references, 1)
    with pytest.raises(UserError, match="at least 2 images"):
        baselines.shuffled_captions({"1": ["a"]})


def test_nearest_captions_by_cosine_majority_and_then_nearness():
    train = {"a": ["red", "red"], "b": ["blue"], "c": ["blue", "blue"], "d": ["green"]}
    known = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [-1, 0]], dtype=np.float32)
    asked = np.array([[10, 0.1], [-5, 0]], dtype=np.float32)
    assert baselines.nearest_captions(train, known, ["x", "y"], asked, 1) == {"x": "red", "y": "green"}
    assert baselines.nearest_captions(train, known, ["x"], asked[:1], 3) == {"x": "blue"}  # 3 blue against 2 red
    assert baselines.nearest_captions(train, known, ["x"], asked[:1], 2) == {"x": "red"}
    with pytest.raises(UserError, match=r"train features have shape \(3, 2\) for 4 images"):
        baselines.nearest_captions(train, known[:3], ["x"], asked[:1])


def test_leave_one_out_by_hand():
    references = {"1": ["a dog runs", "a dog sleeps"], "2": ["two cats", "two cats here"], "3": ["alone"]}
    turns = [
        score_captions({"1": "a dog runs", "2": "two cats"}, {"1": ["a dog sleeps"], "2": ["two cats here"]}),
        score_captions({"1": "a dog sleeps", "2": "two cats here"}, {"1": ["a dog runs"], "2": ["two cats"]}),
    ]
    found = baselines.leave_one_out(references)
    for name in found:
        assert found[name] == pytest.approx((turns[0][name] + turns[1][name]) / 2)
    with pytest.raises(UserError, match="no image has two references"):
        baselines.leave_one_out({"1": ["a"]})


def test_rows_that_need_what_is_not_given_are_absent():
    bounds = bounds_of(TRAIN, TRAIN)
    assert set(bounds) == {*rows.BASELINES[:7], rows.HUMAN}
    features = np.eye(3, dtype=np.float32)
    classes = {"1": "dog", "2": "dog", "3": "cat"}
    whole = bounds_of(TRAIN, TRAIN, train_classes=classes, classes=classes, train_features=features, features=features)
    assert list(whole) == [*rows.BASELINES, *rows.UPPER_BOUNDS]
    assert {name: whole[name] for name in bounds} == bounds


def test_one_class_cannot_be_predicted():
    with pytest.raises(UserError, match="1 class in the training images"):
        baselines.predict_classes(np.zeros((2, 3), np.float32), ["a", "a"], np.zeros((1, 3), np.float32))
