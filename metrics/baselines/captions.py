"""Baselines and upper bounds of captioning.

A baseline is a cheap way to write captions, from no image or only from its class; a captioner that does not beat it has
learnt nothing that its score shows. An upper bound says how far the score can be expected to go. All are made from the
training captions and scored exactly as a captioner is. Everything random is a function of the seed.

Letters: N training images, M images to be captioned, D width of their features.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.spread import spread
from metrics.baselines.ngram_model import END, LONGEST, NGramModel, draw_word
from metrics.baselines.rows import (
    BASELINES,
    CONSTANT,
    HUMAN,
    LANGUAGE,
    LANGUAGE_SAMPLED,
    NEAREST,
    PREDICTED_CLASS,
    SHUFFLED,
    STEPS,
    STEPS_SAMPLED,
    TRUE_CLASS,
    WORDS,
)
from metrics.captions import References, score_captions
from metrics.ngrams import NGrams, bleu_from_sums, bleu_statistics, ngram_counts
from metrics.tokenize import tokenize_caption

Captions = Mapping[str, Sequence[str]]
"""Image id to its captions."""
Features = NDArray[np.float32]

_TRAIN_LIMIT = 5000


# captions


def consensus_caption(train: Captions, candidates: int = 30, images: int = 200) -> str:
    """The training caption that is the best single caption for all given images.

    Candidates are the most frequent captions (as metric tokens); the one with the highest corpus BLEU-4 against all
    references of the images wins, the more frequent one of two equals.

    Args:
        train: image id to captions.
        candidates: how many captions are tried.
        images: how many images, evenly spread, they are tried on.

    >>> consensus_caption({"1": ["A red roof .", "a red roof"], "2": ["a red roof", "one tree"]})
    'a red roof'
    """
    tokenized = {image_id: [tokenize_caption(text) for text in texts] for image_id, texts in train.items()}
    counts = Counter(text for texts in tokenized.values() for text in texts if text)
    if not counts:
        raise UserError("baselines: no training caption has a word; check the captions of split 'train'")
    prepared = [_prepare(tokenized[image_id]) for image_id in spread(list(tokenized), images)]
    tried = [text for text, _ in counts.most_common(candidates)]
    return max(tried, key=lambda text: _corpus_bleu4(text.split(), prepared))


def word_frequency(train: Captions, image_ids: Iterable[str], seed: int = 0) -> dict[str, str]:
    """Words drawn one by one from their frequencies, the end among them; one caption for each image."""
    model = NGramModel(_token_lists(train), order=1)
    draws = random.Random(seed)
    return {image_id: " ".join(model.sample(draws)) for image_id in image_ids}


def step_frequency(train: Captions, image_ids: Iterable[str], seed: int | None = None) -> dict[str, str]:
    """Words by their frequencies at each step, the end among them.

    Args:
        train: image id to captions.
        image_ids: images to caption.
        seed: None: the most frequent word of every step, the same caption for all; a number: drawn.
    """
    steps: list[Counter[str]] = [Counter() for _ in range(LONGEST)]
    for tokens in _token_lists(train):
        for step, word in zip(steps, [*tokens, END], strict=False):
            step[word] += 1
    steps = [step for step in steps if step]
    if seed is None:
        caption = _until_end(max(step, key=lambda word: (step[word], word)) for step in steps)
        return dict.fromkeys(image_ids, caption)
    draws = random.Random(seed)
    return {image_id: _until_end(draw_word(step, draws) for step in steps) for image_id in image_ids}


def language_model(
    train: Captions, image_ids: Iterable[str], seed: int | None = None, order: int = 4, beams: int = 5
) -> dict[str, str]:
    """Captions of an n-gram language model that never saw an image.

    Args:
        train: image id to captions.
        image_ids: images to caption.
        seed: None: the most likely caption per word that a beam search finds, the same for all; a number: drawn.
        order: longest n-gram; interpolated absolute discounting (Ney, Essen and Kneser 1994), discount 0.75.
        beams: width of the beam search.
    """
    model = NGramModel(_token_lists(train), order)
    if seed is None:
        return dict.fromkeys(image_ids, " ".join(model.search(beams)))
    draws = random.Random(seed)
    return {image_id: " ".join(model.sample(draws)) for image_id in image_ids}


def shuffled_captions(references: Captions, seed: int = 0) -> dict[str, str]:
    """For each image a human caption of another image, drawn at random: what language and subject matter alone give.

    Raises:
        UserError: there is only one image.
    """
    names = list(references)
    if len(names) < 2:
        raise UserError("baselines: shuffled images need at least 2 images with references")
    draws = random.Random(seed)
    captions = {}
    for place, name in enumerate(names):
        other = (place + draws.randrange(1, len(names))) % len(names)
        captions[name] = draws.choice(references[names[other]])
    return captions


def nearest_captions(
    train: Captions, train_features: Features, image_ids: Sequence[str], features: Features, neighbours: int = 5
) -> dict[str, str]:
    """For each image the most frequent caption of its nearest training images by cosine; of equals the nearer one's.

    Args:
        train: N images to captions.
        train_features: `(N, D)`, in the order of `train`.
        image_ids: M images to caption.
        features: `(M, D)`, in their order.
        neighbours: how many training images are asked.

    Raises:
        UserError: numbers of images and features differ.
    """
    _check_rows("train", len(train), train_features)
    _check_rows("evaluation", len(image_ids), features)
    texts = list(train.values())
    known = _normalised(train_features)
    captions = {}
    for image_id, row in zip(image_ids, _normalised(features), strict=True):
        order = np.argsort(-(known @ row), kind="stable")[:neighbours]
        counts = Counter(tokenize_caption(text) for place in order for text in texts[place])
        captions[image_id] = counts.most_common(1)[0][0]
    return captions


def class_captions(train: Captions, classes: Mapping[str, str]) -> dict[str, str]:
    """One caption for each class: the `consensus_caption` of its training images."""
    members: dict[str, dict[str, Sequence[str]]] = defaultdict(dict)
    for image_id, texts in train.items():
        if image_id in classes:
            members[classes[image_id]][image_id] = texts
    return {name: consensus_caption(images) for name, images in sorted(members.items())}


def predict_classes(
    train_features: Features, train_classes: Sequence[str], features: Features, inverse_penalty: float = 0.1
) -> list[str]:
    """Classes by multinomial logistic regression on standardised features.

    Args:
        train_features: `(N, D)`.
        train_classes: N names.
        features: `(M, D)`.
        inverse_penalty: scikit-learn's C; the default was the best of .001, .01, .1, 1 on the validation split of UCM.

    Raises:
        UserError: numbers of images and features differ, or there is only one class.
    """
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # publishes no types
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    _check_rows("train", len(train_classes), train_features)
    if len(set(train_classes)) < 2:
        raise UserError(f"baselines: {len(set(train_classes))} class in the training images, expected at least 2")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000))
    model.fit(train_features, list(train_classes))
    return [str(name) for name in model.predict(features)]


# scores


def leave_one_out(references: Captions) -> dict[str, float]:
    """Leave-one-out human scores: every reference in turn against the others of its image, the mean over the turns.

    Images with fewer references than others begin anew with their first; images with one cannot take part.

    Raises:
        UserError: no image has two references.
    """
    several = {image_id: list(texts) for image_id, texts in references.items() if len(texts) > 1}
    if not several:
        raise UserError("baselines: no image has two references, so none can be left out")
    turns = []
    for turn in range(max(map(len, several.values()))):
        chosen = {image_id: texts[turn % len(texts)] for image_id, texts in several.items()}
        others = {
            image_id: [text for place, text in enumerate(texts) if place != turn % len(texts)]
            for image_id, texts in several.items()
        }
        turns.append(score_captions(chosen, others))
    return {name: sum(turn[name] for turn in turns) / len(turns) for name in turns[0]}


def baseline_captions(
    train: Captions,
    references: Captions,
    *,
    train_classes: Mapping[str, str] | None = None,
    classes: Mapping[str, str] | None = None,
    train_features: Features | None = None,
    features: Features | None = None,
    seed: int = 0,
) -> dict[str, dict[str, str]]:
    """The captions of all baselines, and of the upper bound by classes, that can be made from what is given.

    Args:
        train: training images to captions; of more than 5000 images, rows that look at no image use 5000 evenly
            spread ones.
        references: M evaluation images to references.
        train_classes: class of the training images, and
        classes: classes of the evaluation images; an image without one gets the constant caption.
        train_features: `(N, D)` in the order of `train`, and
        features: `(M, D)` in the order of `references`, for the rows that look at images.
        seed: seed of all draws.

    Returns:
        Row to image to caption, in the order of `BASELINES`, then the true class; rows that need what is not given are
        absent.
    """
    some = {name: train[name] for name in spread(list(train), _TRAIN_LIMIT)}
    ids = list(references)
    constant = consensus_caption(some)
    captions = {
        CONSTANT: dict.fromkeys(ids, constant),
        WORDS: word_frequency(some, ids, seed),
        STEPS: step_frequency(some, ids),
        STEPS_SAMPLED: step_frequency(some, ids, seed),
        LANGUAGE: language_model(some, ids),
        LANGUAGE_SAMPLED: language_model(some, ids, seed),
    }
    if len(ids) > 1:
        captions[SHUFFLED] = shuffled_captions(references, seed)
    if train_features is not None and features is not None:
        captions[NEAREST] = nearest_captions(train, train_features, ids, features)
    if train_classes and classes:
        fixed = class_captions(train, train_classes)
        captions[TRUE_CLASS] = {name: fixed.get(classes.get(name, ""), constant) for name in ids}
        if train_features is not None and features is not None:
            kept = [place for place, name in enumerate(train) if name in train_classes]
            named = [train_classes[name] for name in train if name in train_classes]
            found = predict_classes(train_features[kept], named, features)
            captions[PREDICTED_CLASS] = {name: fixed[group] for name, group in zip(ids, found, strict=True)}
    return {name: captions[name] for name in (*BASELINES, TRUE_CLASS) if name in captions}


def caption_baselines(captions: Mapping[str, Mapping[str, str]], references: Captions) -> dict[str, dict[str, float]]:
    """Scores of baselines and upper bounds.

    Args:
        captions: what `baseline_captions` made.
        references: evaluation images to references.

    Returns:
        Scores by row, in the order of `captions`, and last, where images have several references, those of the
        leave-one-out human.
    """
    prepared = References(references)
    scores = {name: prepared.score(row).corpus() for name, row in captions.items()}
    if any(len(texts) > 1 for texts in references.values()):
        scores[HUMAN] = leave_one_out(references)
    return scores


def baseline_file(name: str) -> str:
    """The name of a baseline as that of a file.

    >>> baseline_file("predicted class, one caption")
    'predicted_class_one_caption'
    """
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))


# parts


def _prepare(texts: Sequence[str]) -> tuple[list[int], list[NGrams]]:
    """Lengths of an image's references, and per order the highest count of each n-gram in one of them."""
    tokens = [text.split() for text in texts]
    limits: list[NGrams] = [Counter() for _ in range(4)]
    for words in tokens:
        limits = [limit | counts for limit, counts in zip(limits, ngram_counts(words), strict=True)]
    return [len(words) for words in tokens], limits


def _corpus_bleu4(candidate: Sequence[str], prepared: Sequence[tuple[list[int], list[NGrams]]]) -> float:
    """Corpus BLEU-4 of one caption for all images."""
    counts = ngram_counts(candidate)
    rows = np.array([bleu_statistics(candidate, counts, lengths, limits) for lengths, limits in prepared])
    return float(bleu_from_sums(rows.sum(axis=0))[3])


def _token_lists(train: Captions) -> list[list[str]]:
    return [words for texts in train.values() for text in texts if (words := tokenize_caption(text).split())]


def _until_end(words: Iterable[str]) -> str:
    kept: list[str] = []
    for word in words:
        if word == END:
            break
        kept.append(word)
    return " ".join(kept)


def _normalised(features: Features) -> Features:
    """Rows of length 1."""
    wide = np.asarray(features, dtype=np.float32)
    result: Features = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return result


def _check_rows(split: str, images: int, features: Features) -> None:
    if features.ndim != 2 or len(features) != images:
        raise UserError(
            f"baselines: {split} features have shape {features.shape} for {images} images, expected one row each"
        )
