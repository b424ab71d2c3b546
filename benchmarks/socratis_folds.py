"""Emotions from captions alone on Socratis, five folds, each model beside the label prior and a linear model.

Command: python benchmarks/socratis_folds.py $CAPTION_DATA/socratis
The linear model is scikit-learn's: TF-IDF of words + logistic regression. Networks start from random weights. Nothing
is chosen on the test folds: epochs and rates are fixed, and there is no validation.
"""

import argparse
import logging
import time
import warnings
from typing import Any

import lightning
import numpy as np
from folds import held_out_probabilities
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from datamodules.socratis import Socratis
from lightning_modules import EmotionLabeller
from metrics.labels import average_precisions, ranking_scores

Rows = NDArray[np.float64]
COLUMNS = ("macro AP", "top-1", "top-2", "top-3", "recall@3")
LINEAR = "TF-IDF + logistic regression"
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "text (default)": (3, {"architecture": "text", "lr": 30.0, "weight_decay": 0.0}),
    "light student, captions only": (
        12,
        {"architecture": "light", "use_image": False, "word_dim": 128, "hidden_dim": 256, "lr": 1e-3},
    ),
    "VisualBERT, 4 layers of 128, captions only": (
        12,
        {"architecture": "visual_bert", "use_image": False, "layers": 4, "heads": 4, "bert_dim": 128, "lr": 5e-4},
    ),
}
"""Epochs and settings of each model."""


def main() -> None:
    """Trains every model on four fifths, five times, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the folds and the networks")
    parser.add_argument("--samples", type=int, default=1000, help="resamples of the bootstrap")
    parser.add_argument("--only", nargs="*", help="names of models begin with one of these")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    chosen = {name: m for name, m in MODELS.items() if not options.only or name.startswith(tuple(options.only))}
    found: dict[str, list[Rows]] = {name: [] for name in ("label prior", LINEAR, *chosen)}
    truth, seconds = [], dict.fromkeys(found, 0.0)
    for fold in range(options.folds):
        data = fold_of(options.root, options.folds, fold, options.seed)
        train, test = data.examples("train"), data.examples("test")
        labels, texts = np.array([e.labels for e in train]), [e.captions[0] for e in train]
        truth.append(np.array([e.labels for e in test]))
        found["label prior"].append(np.tile(labels.mean(axis=0), (len(test), 1)))
        start = time.perf_counter()
        found[LINEAR].append(linear(texts, labels, [e.captions[0] for e in test]))
        seconds[LINEAR] += time.perf_counter() - start
        for name, (epochs, settings) in chosen.items():
            start = time.perf_counter()
            found[name].append(trained(data, epochs, settings, options.seed))
            seconds[name] += time.perf_counter() - start
    print_table(found, truth, seconds, options.samples)


def fold_of(root: str, folds: int, fold: int, seed: int) -> Socratis:
    """The data with one fold held out and no validation split."""
    return Socratis(
        root=root, captions_only=True, folds=folds, fold=fold, val_fraction=0.0, split_seed=seed, batch_size=64
    )


def linear(texts: list[str], labels: Rows, test_texts: list[str]) -> Rows:
    """Probabilities of scikit-learn's model, `(n, C)`."""
    tfidf = TfidfVectorizer()
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(tfidf.fit_transform(texts), labels)
    probabilities: Rows = model.predict_proba(tfidf.transform(test_texts))
    return probabilities


def trained(data: Socratis, epochs: int, settings: dict[str, Any], seed: int) -> Rows:
    """Probabilities of one of our models, `(n, C)`, trained for so many epochs."""
    lightning.seed_everything(seed, verbose=False)
    module = EmotionLabeller(
        **{"threshold": 0.5, **settings},
        num_labels=data.num_labels,
        vocab_size=data.vocab_size,
        pad_id=data.pad_id,
    )
    return held_out_probabilities(module, data, epochs, validates=False)


def print_table(found: dict[str, list[Rows]], truth: list[Rows], seconds: dict[str, float], samples: int) -> None:
    """One row a model: means over the folds; beside macro AP its spread and the difference to the linear model."""
    images, labels = sum(map(len, truth)), truth[0].shape[1]
    print(f"Socratis, captions only, {images} images, {labels} labels, mean of {len(truth)} folds")
    print("| model | " + " | ".join(COLUMNS) + " | macro AP against linear (95 %) | p | s/fold |")
    print("| --- |" + " ---: |" * (len(COLUMNS) + 3))
    for name, rows in found.items():
        values = np.array([scores(p, t) for p, t in zip(rows, truth, strict=True)])
        cells = [f"{mean:.3f}" for mean in values.mean(axis=0)]
        cells[0] += f" ± {values[:, 0].std():.3f}"
        own = ["", ""] if name == LINEAR else against(found[LINEAR], rows, truth, samples)
        print(f"| {name} | " + " | ".join([*cells, *own, f"{seconds[name] / len(truth):.1f}"]) + " |", flush=True)


def against(first: list[Rows], second: list[Rows], truth: list[Rows], samples: int) -> list[str]:
    """Paired bootstrap of the mean macro AP: difference with its interval, and p.

    Images are drawn within their folds, for scores of different folds must not be ranked together: a fold with many
    images of a label leaves few for training, so that the prior it is given is low. Images that are drawn twice raise
    the average precision of good rankings, so the draws are moved to have the folds' own mean.
    """
    generator = np.random.default_rng(0)
    differences = np.zeros(samples)
    for one, other, known in zip(first, second, truth, strict=True):
        for number in range(samples):
            rows = generator.integers(0, len(known), len(known))
            differences[number] += macro_ap(other[rows], known[rows]) - macro_ap(one[rows], known[rows])
    differences /= len(truth)
    mean = np.mean([macro_ap(b, t) - macro_ap(a, t) for a, b, t in zip(first, second, truth, strict=True)])
    differences += mean - differences.mean()
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return [f"{mean:+.3f} ({low:+.3f} to {high:+.3f})", f"{min(1.0, 2 * (tail + 1) / (samples + 1)):.3f}"]


def macro_ap(probabilities: Rows, truth: Rows) -> float:
    """Mean average precision of the labels that occur."""
    return float(np.nanmean(average_precisions(probabilities, truth >= 0.5)))


def scores(probabilities: Rows, truth: Rows) -> list[float]:
    """`COLUMNS` on one fold."""
    ranked = ranking_scores(probabilities, truth >= 0.5)
    return [macro_ap(probabilities, truth), *(ranked[name] for name in ("top1", "top2", "top3", "recall3"))]


if __name__ == "__main__":
    main()
