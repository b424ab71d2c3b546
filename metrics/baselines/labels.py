"""What a classifier into several labels must be read against: floors that look at no picture or use no network.

Letters: N training images, n evaluation images, C labels, D feature width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]  # publishes no types
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from core.errors import UserError
from metrics.baselines.captions import Features, predict_classes
from metrics.labels import choose_threshold, label_scores

Targets = NDArray[np.float64]

PRIOR = "label prior"
WORDS = "logistic regression on words"
FEATURES = "logistic regression on features"
PREDICTED_CLASS = "predicted class, its labels"
TRUE_CLASS = "true class, its labels"

FLOORS = (PRIOR, WORDS, FEATURES, PREDICTED_CLASS)
"""Rows that a classifier should beat, in the order of printing."""
CEILINGS = (TRUE_CLASS,)
"""Rows that know more than a classifier does; it may pass them."""

_TRAIN_LIMIT = 5000


def label_bounds(
    train_targets: Targets,
    targets: Targets,
    *,
    train_texts: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    train_features: Features | None = None,
    features: Features | None = None,
    train_classes: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, dict[str, float]]:
    """All floors and ceilings that can be made from what is given.

    The prior, the frequency of every label in training, is given to every image, with the threshold that has the
    highest micro-F1 in training; the rows of classes predict what more than half of a class has, the regressions from a
    probability of .5 on.

    Args:
        train_targets: `(N, C)` in [0, 1]; regressions see at most 5000 evenly spread ones.
        targets: `(n, C)`.
        train_texts: captions of the training images, and
        texts: of the evaluation images, for models that read them.
        train_features: `(N, D)`, and
        features: `(n, D)`.
        train_classes: class of the training images, and
        classes: of the evaluation images.

    Returns:
        What `metrics.labels.label_scores` says, by row, in the order of `FLOORS`, then `CEILINGS`; rows that need what
        is not given are absent.
    """
    known, frequency = train_targets >= 0.5, train_targets.mean(axis=0)
    flat = np.broadcast_to(frequency, train_targets.shape)
    predicted: dict[str, Targets] = {PRIOR: np.broadcast_to(frequency, targets.shape)}
    some = np.linspace(0, len(known) - 1, min(len(known), _TRAIN_LIMIT)).astype(int)
    if train_texts is not None and texts is not None:
        predicted[WORDS] = word_regression([train_texts[place] for place in some], known[some], texts)
    if train_features is not None and features is not None:
        predicted[FEATURES] = feature_regression(train_features[some], known[some], features)
    if train_classes is not None and classes is not None:
        usual = class_labels(train_classes, train_targets)
        predicted[TRUE_CLASS] = np.array([usual.get(name, frequency) for name in classes])
        if train_features is not None and features is not None and len(usual) > 1:
            found = predict_classes(train_features[some], [train_classes[place] for place in some], features)
            predicted[PREDICTED_CLASS] = np.array([usual[name] for name in found])
    majority = float(np.nextafter(0.5, 1))
    thresholds = {PRIOR: choose_threshold(flat, train_targets), TRUE_CLASS: majority, PREDICTED_CLASS: majority}
    return {
        name: label_scores(predicted[name], targets, thresholds.get(name, 0.5), frequency)
        for name in (*FLOORS, *CEILINGS)
        if name in predicted
    }


def class_labels(classes: Sequence[str], targets: Targets) -> dict[str, Targets]:
    """Frequency of every label, `(C,)`, among the images of each class."""
    names = np.array(classes)
    return {str(name): targets[names == name].mean(axis=0) for name in np.unique(names)}


def feature_regression(
    train_features: Features, targets: NDArray[np.bool_], features: Features, inverse_penalty: float = 0.1
) -> Targets:
    """Probabilities by one logistic regression for each label on standardised features.

    Args:
        train_features: `(N, D)`.
        targets: `(N, C)`.
        features: `(n, D)`.
        inverse_penalty: scikit-learn's C; the default was the best of .001, .01, .1, 1 on the validation split of UCM.

    Returns:
        `(n, C)`; a label that all training images have, or none, keeps that.

    Raises:
        UserError: numbers of images and features differ.
    """
    if len(train_features) != len(targets):
        raise UserError(
            f"floors: train features have shape {train_features.shape} for {len(targets)} images, expected one row each"
        )
    scaler = StandardScaler().fit(train_features)
    return _regressions(scaler.transform(train_features), targets, scaler.transform(features), inverse_penalty)


def word_regression(
    train_texts: Sequence[str], targets: NDArray[np.bool_], texts: Sequence[str], inverse_penalty: float = 1.0
) -> Targets:
    """Probabilities by one logistic regression for each label on TF-IDF of words and pairs of words.

    Args:
        train_texts: N captions, several of one image joined.
        targets: `(N, C)`.
        texts: n captions.
        inverse_penalty: scikit-learn's C.

    Returns:
        `(n, C)`; a label that all training images have, or none, keeps that.

    Raises:
        UserError: no training text has a word.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        known = vectorizer.fit_transform(train_texts)
    except ValueError as error:  # scikit-learn: "empty vocabulary"
        raise UserError("floors: no training caption has a word; check the captions of split 'train'") from error
    return _regressions(known, targets, vectorizer.transform(texts), inverse_penalty)


def label_floors_above(
    scores: Mapping[str, float], bounds: Mapping[str, Mapping[str, float]], metric: str = "macro_ap"
) -> list[str]:
    """Floors that a classifier does not beat, the highest first.

    >>> label_floors_above({"macro_ap": 0.1}, {PRIOR: {"macro_ap": 0.14}, FEATURES: {"macro_ap": 0.05}})
    ['label prior']
    """
    if metric not in scores:
        return []
    above = [name for name in FLOORS if name in bounds and not bounds[name][metric] < scores[metric]]
    return sorted(above, key=lambda name: -bounds[name][metric])


def label_warning(name: str, scores: Mapping[str, float], bounds: Mapping[str, Mapping[str, float]]) -> str | None:
    """One line that says which floors a classifier does not beat; None when it beats them all.

    Macro AP is held against all floors, top-1 accuracy against the prior's, below which the published models were.

    >>> label_warning("this model", {"macro_ap": 0.1, "top1": 0.1}, {PRIOR: {"macro_ap": 0.14, "top1": 0.67}})
    'BELOW ITS FLOOR: macro_ap 0.100 of this model does not beat label prior (0.140); top1 0.100 does not beat 0.670'
    """
    parts = []
    if above := label_floors_above(scores, bounds):
        rows = ", ".join(f"{floor} ({bounds[floor]['macro_ap']:.3f})" for floor in above)
        parts.append(f"macro_ap {scores['macro_ap']:.3f} of {name} does not beat {rows}")
    prior = bounds.get(PRIOR, {}).get("top1")
    if prior is not None and "top1" in scores and scores["top1"] < prior:
        of_whom = "" if parts else f" of {name}"
        parts.append(f"top1 {scores['top1']:.3f}{of_whom} does not beat {'' if parts else f'{PRIOR} '}{prior:.3f}")
    return f"BELOW ITS FLOOR: {'; '.join(parts)}" if parts else None


def _regressions(known: Features, targets: NDArray[np.bool_], features: Features, inverse_penalty: float) -> Targets:
    columns = []
    for column in targets.T:
        if column.all() or not column.any():
            columns.append(np.full(features.shape[0], float(column[0])))
            continue
        model = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(known, column)
        columns.append(model.predict_proba(features)[:, 1])
    return np.stack(columns, axis=1)
