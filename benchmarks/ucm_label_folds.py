"""Settings of UCM's multi-label classifier compared on held-out fifths of its training and validation images.

Command: python benchmarks/ucm_label_folds.py $CAPTION_DATA/ucm --weights WEIGHTS.pth
         and, a quarter of an hour a fold on one core: the same with --fine-tuned
The validation split alone (146 images here) does not tell settings apart. The test split is never read. Folds are made
of blocks of consecutive numbers, as the published splits are: neighbouring crops show the same ground, and folds of
images drawn at random are .03 too high. Per fold: about a fifth of the images is held out, a ninth chooses the
threshold, the rest is learnt; the table shows figures over all held-out images.
"""

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from folds import held_out_probabilities
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from datamodules.readers.records import Example, Split
from datamodules.stored_features.files import FeatureStore
from datamodules.ucm_captions import UCMCaptions
from lightning_modules import MultiLabel

Rows = NDArray[np.float64]
FOLDS, BLOCKS = 5, 9
MODELS: dict[str, dict[str, Any]] = {
    "mean": {"pooling": "mean"},
    "covariance (default)": {},
    "covariance, mixup 0.1": {"mixup": 0.1},
    "covariance, mixup 0.4": {"mixup": 0.4},
    "covariance, 1024 units": {"hidden_dims": [1024]},
    "covariance, no hidden layer": {"hidden_dims": []},
    "covariance, balanced loss": {"loss": "balanced_bce"},
}
"""What differs from the settings of experiments/ucm_multilabel.yaml."""
FINE_TUNED: dict[str, dict[str, Any]] = {
    "six blocks fine-tuned": {"fine_tune_blocks": 6, "lr_pretrained": 3e-4},
}
"""What differs from those and `TUNING`."""
DEFAULTS: dict[str, Any] = {
    **{"hidden_dims": [512], "pooling": "covariance", "normalize": True, "dropout": 0.5, "input_dropout": 0.2},
    **{"lr": 1e-3, "weight_decay": 0.05, "warmup_steps": 20, "schedule": "cosine"},
}
TUNING: dict[str, Any] = {
    **{"image_encoder": "torchvision/squeezenet1_0", "fine_tune_epochs": None, "lr_first": 1e-3},
    **{"dihedral": True, "views": 8},
}


def block_of(example: Example) -> int:
    """Which tenth of its class an image is in by its number, 0 to 8.

    Numbers from 80 on are one block: the ten of them that are not in the test split are the validation split.
    """
    return min((int(Path(example.image_name).stem) - 1) % 100 // 10, BLOCKS - 1)


class Part(FeatureStore):
    """Some rows of features, in memory."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows


class Fold(UCMCaptions):
    """The training and validation images of `data`, and rows of their features if it has any, divided anew."""

    def __init__(self, data: UCMCaptions, rows: torch.Tensor | None, fold: int) -> None:
        super().__init__(
            root=str(data.root),
            batch_size=32,
            num_workers=0,
            encoder=data.feature_source.encoder,
            image_size=data.transform.size,
        )
        self.encoder_weights = data.encoder_weights
        self._pool = [*data.examples("train"), *data.examples("val")]
        self._rows = rows
        decade = np.array([block_of(example) for example in self._pool])
        # nine blocks, the last one is the validation split's: five folds of two, the last one of one
        test, val = (2 * fold, 2 * fold + 1), (2 * fold + 2) % BLOCKS
        self._places = {
            "train": np.flatnonzero(~np.isin(decade, (*test, val))),
            "val": np.flatnonzero(decade == val),
            "test": np.flatnonzero(np.isin(decade, test)),
        }

    def load_examples(self, split: Split) -> list[Example]:
        """Images of a part."""
        return [self._pool[place] for place in self._places[split]]

    def features(self, split: Split) -> FeatureStore | None:
        """Their features."""
        return None if self._rows is None else Part(self._rows[torch.from_numpy(self._places[split])])


def main() -> None:
    """Trains every model on every fold, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--weights", required=True, help="weights of SqueezeNet 1.0")
    parser.add_argument("--seed", type=int, default=0, help="of the networks")
    parser.add_argument("--epochs", type=int, help="default: 40, fine-tuned 12")
    parser.add_argument("--encoder", default="eight-views/torchvision/squeezenet1_0", help="what makes the features")
    parser.add_argument("--image-size", type=int, default=224, help="side that pictures are scaled to, pixels")
    parser.add_argument("--fine-tuned", action="store_true", help="models whose CNN learns, too, from the pictures")
    parser.add_argument("--first", type=int, help="only so many of the folds")
    parser.add_argument("--only", nargs="*", help="names of models begin with one of these")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    tuned = options.fine_tuned
    epochs = options.epochs or (12 if tuned else 40)
    encoder, weights = (None, None) if tuned else (options.encoder, options.weights)
    data = UCMCaptions(
        root=options.root, num_workers=0, encoder=encoder, encoder_weights=weights, image_size=options.image_size
    )
    stores = [data.features(split) for split in ("train", "val")]
    rows = None if tuned else torch.cat([store[:] for store in stores if store is not None])
    parts = [Fold(data, rows, fold) for fold in range(FOLDS)[: options.first]]
    truth = [np.array([example.labels for example in part.examples("test")]) for part in parts]
    looked_at = f"pictures of {options.image_size} pixels, {'fine-tuned' if tuned else options.encoder}"
    print(
        f"UCM, {sum(map(len, truth))} training and validation images, {len(parts)} folds, {epochs} epochs, {looked_at}"
    )
    print("| model | micro-F1 | macro-F1 | macro AP | micro-F1 by fold | s/fold |")
    print("| --- | ---: | ---: | ---: | --- | ---: |")
    base = {**DEFAULTS, **TUNING, "image_weights": options.weights} if tuned else DEFAULTS
    for name, changes in (FINE_TUNED if tuned else MODELS).items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        start = time.perf_counter()
        found = [trained(part, {**base, **changes}, epochs, options.seed) for part in parts]
        seconds = (time.perf_counter() - start) / len(parts)
        cells = [f"{value:.3f}" for value in scores(found, truth)]
        by_fold = " ".join(f"{scores([rows], [known])[0]:.3f}" for rows, known in zip(found, truth, strict=True))
        print(f"| {name} | " + " | ".join([*cells, by_fold, f"{seconds:.0f}"]) + " |", flush=True)


def trained(data: UCMCaptions, settings: dict[str, Any], epochs: int, seed: int) -> tuple[Rows, float]:
    """Probabilities `(n, C)` of the held-out images, and the threshold chosen on the validation part."""
    lightning.seed_everything(seed, verbose=False)
    module = MultiLabel(**settings, num_labels=data.num_labels, feature_dim=data.feature_dim)
    module.load_pretrained()
    rows = held_out_probabilities(module, data, epochs, validates=True)
    return rows, module.threshold.item()


def scores(found: list[tuple[Rows, float]], truth: list[Rows]) -> list[float]:
    """Micro-F1, macro-F1 over all images, each with its fold's threshold; macro AP as the mean over the folds."""
    known = np.concatenate(truth) >= 0.5
    said = np.concatenate([rows >= threshold for rows, threshold in found])
    ranked = [average_precision_score(t >= 0.5, rows) for (rows, _), t in zip(found, truth, strict=True)]
    return [f1_score(known, said, average="micro"), f1_score(known, said, average="macro"), float(np.mean(ranked))]


if __name__ == "__main__":
    main()
