"""Baselines and upper bounds of multi-label classification, which look at no image or use no network of their own.

Letters: N training images, n evaluation images, C labels, D feature width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from metrics.baselines.captions import Features, predict_classes
from metrics.baselines.rows import (
    FEATURE_REGRESSION,
    LABEL_BASELINES,
    LABEL_UPPER_BOUNDS,
    PREDICTED_CLASS_LABELS,
    PRIOR,
    TRUE_CLASS_LABELS,
    WORD_REGRESSION,
)
from metrics.labels import choose_threshold, label_scores

Targets = NDArray[np.float64]

_TRAIN_LIMIT = 5000


def label_baselines(
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
    """All baselines and upper bounds that can be made from what is given.

    The prior, the frequency of every label in training, is given to every image, with the threshold that has the
    highest micro-F1 in training; the rows of classes predict what more than half of a class has, the regressions from a
    probability of .5 on.

    Args:
        train_targets: `(N, C)` in [0, 1]; regressions see at most 5000 evenly spread ones.
        targets: `(n, C)`.
        train_texts: captions of the training images, and
        texts: texts of the evaluation images, for models that read them.
        train_features: `(N, D)`, and
        features: `(n, D)`.
        train_classes: class of the training images, and
        classes: classes of the evaluation images.

    Returns:
        Scores of `metrics.labels.label_scores` by row, in the order of `LABEL_BASELINES`, then `LABEL_UPPER_BOUNDS`;
        rows that need what is not given are absent.
    """
    known, frequency = train_targets >= 0.5, train_targets.mean(axis=0)
    flat = np.broadcast_to(frequency, train_targets.shape)
    predicted: dict[str, Targets] = {PRIOR: np.broadcast_to(frequency, targets.shape)}
    some = np.linspace(0, len(known) - 1, min(len(known), _TRAIN_LIMIT)).astype(int)
    if train_texts is not None and texts is not None:
        predicted[WORD_REGRESSION] = word_regression([train_texts[place] for place in some], known[some], texts)
    if train_features is not None and features is not None:
        predicted[FEATURE_REGRESSION] = feature_regression(train_features[some], known[some], features)
    if train_classes is not None and classes is not None:
        usual = class_labels(train_classes, train_targets)
        predicted[TRUE_CLASS_LABELS] = np.array([usual.get(name, frequency) for name in classes])
        if train_features is not None and features is not None and len(usual) > 1:
            found = predict_classes(train_features[some], [train_classes[place] for place in some], features)
            predicted[PREDICTED_CLASS_LABELS] = np.array([usual[name] for name in found])
    majority = float(np.nextafter(0.5, 1))
    thresholds = {
        PRIOR: choose_threshold(flat, train_targets),
        TRUE_CLASS_LABELS: majority,
        PREDICTED_CLASS_LABELS: majority,
    }
    return {
        name: label_scores(predicted[name], targets, thresholds.get(name, 0.5), frequency)
        for name in (*LABEL_BASELINES, *LABEL_UPPER_BOUNDS)
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
            f"baselines: train features have shape {train_features.shape} for {len(targets)} images, expected one row "
            "each"
        )
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

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
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        known = vectorizer.fit_transform(train_texts)
    except ValueError as error:  # scikit-learn: "empty vocabulary"
        raise UserError("baselines: no training caption has a word; check the captions of split 'train'") from error
    return _regressions(known, targets, vectorizer.transform(texts), inverse_penalty)


def _regressions(known: Features, targets: NDArray[np.bool_], features: Features, inverse_penalty: float) -> Targets:
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # publishes no types

    columns = []
    for column in targets.T:
        if column.all() or not column.any():
            columns.append(np.full(features.shape[0], float(column[0])))
            continue
        model = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(known, column)
        columns.append(model.predict_proba(features)[:, 1])
    return np.stack(columns, axis=1)
