"""Training on a teacher's predictions: the images of any data module with pseudo-labels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from core.errors import DataError, UserError
from core.text import log_of, visible
from datamodules.base import CaptionDataModule
from datamodules.readers.probability_files import read_probabilities
from datamodules.readers.records import Example, Problem, Split
from datamodules.splitting.label_selection import Audit, audit_labels, choose_labels
from datamodules.splitting.splits import seeded_order

AUDIT_FILE = "pseudo_label_audit.json"
_log = log_of(__name__)


class PseudoLabels(CaptionDataModule):
    """Images and captions of another data module, labels from a teacher's probabilities.

    The probabilities come from ``predict`` with the callback `callbacks.pseudo_labels.PseudoLabelWriter`. Of an image
    with several captions they are the mean over its captions. Images without probabilities, and those that no label is
    chosen for, are skipped.

    Before training, an audit of the labels is printed and written as ``pseudo_label_audit.json`` into the run folder:
    how often each label is given, beside the target's share, and a loud warning when they have collapsed, as the
    published ones had (calm on 99.98% of the images, six emotions on none).

    Defaults are the published choice: 4 labels an image, since the target has 3.98, no threshold, no limit per label.

    Args:
        source: the data module of the images, with its own arguments.
        labels: folder of the probabilities, or the run folder of ``predict``; must be given.
        split: split of the source whose images are used.
        per_image: most labels of an image; null: no limit.
        threshold: least probability of a label; null: none.
        per_label: most images of a label, the most probable ones; null: no limit.
        targets: "hard" trains on the chosen labels (1) and the others (0); "soft" on the probabilities of all labels,
            and the choice only decides which images are used.
        sample_fraction: share of the labelled images that is used, drawn with a seed; published: 0.1.
        sample_seed: seed of that draw.
        val_fraction: share of those images for validation and test, which are the same here.
        target: the data module that the student is meant for; its training labels are what the audit compares with.
        on_collapse: "warn", or "error" to refuse to train.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        *,
        source: CaptionDataModule,
        labels: str = "",
        split: Split = "train",
        per_image: int | None = 4,
        threshold: float | None = None,
        per_label: int | None = None,
        targets: Literal["hard", "soft"] = "hard",
        sample_fraction: float = 1.0,
        sample_seed: int = 42,
        val_fraction: float = 0.1,
        target: CaptionDataModule | None = None,
        on_collapse: Literal["warn", "error"] = "warn",
    ) -> None:
        super().__init__(**source.shared_options())
        if not 0 < sample_fraction <= 1 or not 0 < val_fraction < 1:
            raise UserError(
                f"sample_fraction={sample_fraction}, val_fraction={val_fraction}: expected above 0, at most 1 and "
                "below 1"
            )
        choose_labels(np.zeros((1, 1)), per_image, threshold, per_label)  # refuses bad values now
        self.source, self.target, self.split = source, target, split
        self.labels, self.targets, self.on_collapse = labels, targets, on_collapse
        self.per_image, self.threshold, self.per_label = per_image, threshold, per_label
        self.sample_fraction, self.sample_seed, self.val_fraction = sample_fraction, sample_seed, val_fraction
        self.has_images = source.has_images
        self._labelled: tuple[tuple[str, ...], dict[Split, list[Example]], Audit] | None = None

    # labels

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the teacher's labels."""
        return self._label()[0]

    @property
    def audit(self) -> Audit:
        """What the labels look like."""
        return self._label()[2]

    def load_examples(self, split: Split) -> list[Example]:
        """Examples of the source with pseudo-labels.

        Raises:
            DataError: there are no probabilities, or not of these images.
        """
        return self._label()[1][split]

    def setup(self, stage: str) -> None:
        """Prints and writes the audit before training.

        Raises:
            UserError: the labels have collapsed and `on_collapse` is "error".
        """
        if stage != "fit":
            return
        warning = self.audit.warning()
        if warning is not None and self.on_collapse == "error":
            raise UserError(f"{self.labels}: {warning} (on_collapse=warn trains all the same)")
        if self.trainer is None or self.trainer.is_global_zero:
            self._tell(warning)

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """The audit for ``data check``: collapsed labels are a problem."""
        audit, warning = self.audit, self.audit.warning()
        problems = [] if warning is None else [Problem("file", f"{self.labels}: {warning}")]
        return problems, audit_lines(audit)

    def _tell(self, warning: str | None) -> None:
        for line in audit_lines(self.audit):
            rank_zero_info(visible(f"pseudo-labels: {line}"))
        if warning is not None:
            _log.warning("%s", warning)
        folder = None if self.trainer is None else self.trainer.default_root_dir
        if folder is not None and not self.trainer.fast_dev_run:  # type: ignore[union-attr]
            path = Path(folder) / AUDIT_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.audit.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")

    def _label(self) -> tuple[tuple[str, ...], dict[Split, list[Example]], Audit]:
        """Names of the labels, the examples by split and the audit; read once."""
        if self._labelled is None:
            examples, names, values = self._matched()
            chosen = choose_labels(values, self.per_image, self.threshold, self.per_label)
            audit = audit_labels(chosen, names, self._prior(names))
            targets = values if self.targets == "soft" else chosen.astype(np.float32)
            labelled = [
                replace(example, labels=tuple(row.tolist()))
                for example, row, own in zip(examples, targets, chosen, strict=True)
                if own.any()
            ]
            self._labelled = names, self._divided(labelled), audit
        return self._labelled

    def _matched(self) -> tuple[list[Example], tuple[str, ...], Any]:
        """The sampled examples of the source that have probabilities, and these, `(n, C)`."""
        if not self.labels:
            raise UserError("labels is empty: give the run folder of predict (data.init_args.labels=RUN)")
        found = read_probabilities(self.labels)
        places = {image_id: place for place, image_id in enumerate(found.image_ids)}
        whole = self.source.examples(self.split)
        examples = [example for example in whole if str(example.image_id) in places]
        if not examples:
            raise DataError(
                f"{self.labels}: none of its {len(places)} images is in split '{self.split}' of "
                f"{type(self.source).__name__} (such as {whole[0].image_id}); predict on it "
                f"(data.init_args.evaluate_on={self.split})"
            )
        if len(examples) < len(whole):
            _log.warning(
                "pseudo-labels: %d of %d images have no probabilities in %s and are skipped",
                len(whole) - len(examples), len(whole), self.labels,
            )  # fmt: skip
        if self.sample_fraction < 1:
            count = max(2, round(self.sample_fraction * len(examples)))
            order = seeded_order([str(example.image_id) for example in examples], self.sample_seed)
            examples = [examples[place] for place in sorted(order[:count])]  # in the order of the source
        rows = [places[str(example.image_id)] for example in examples]
        return examples, found.label_names, found.values[rows]

    def _prior(self, names: tuple[str, ...]) -> list[float] | None:
        """Share of the target's training images that have each label."""
        if self.target is None:
            return None
        own = self.target.label_names
        if own != names:
            raise UserError(
                f"the target {type(self.target).__name__} has other labels ({', '.join(own[:4]) or 'none'} ...) than "
                f"{self.labels} ({', '.join(names[:4])} ...): give the data that the teacher was trained for"
            )
        labels = np.array([example.labels for example in self.target.examples("train")])
        return [float(share) for share in (labels >= 0.5).mean(axis=0)]

    def _divided(self, examples: list[Example]) -> dict[Split, list[Example]]:
        """Takes validation images out; test has the same."""
        order = seeded_order([str(example.image_id) for example in examples], self.sample_seed + 1)
        held = set(order[: max(1, round(self.val_fraction * len(examples)))])
        val = [example for place, example in enumerate(examples) if place in held]
        train = [example for place, example in enumerate(examples) if place not in held]
        return {"train": train, "val": val, "test": val}

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers need neither labels nor the target."""
        return {**super().__getstate__(), "_labelled": None, "target": None}


def audit_lines(audit: Audit) -> list[str]:
    """An audit in a few lines of text."""
    per_image = f"{audit.images} images, {audit.labels_per_image:.2f} labels each, {audit.without_label} with none"
    lines = [f"{per_image}, {audit.different_sets} different sets of labels"]
    beside = f", {audit.target_entropy:.2f} in the target, distance {audit.distance:.2f}" if audit.target_share else ""
    lines.append(f"entropy {audit.entropy:.2f} bits of at most {np.log2(len(audit.share)):.2f}{beside}")
    ordered = sorted(audit.share, key=lambda name: -audit.share[name])
    cells = [
        f"{name} {audit.share[name]:.1%}" + (f" ({audit.target_share[name]:.1%})" if audit.target_share else "")
        for name in ordered
    ]
    title = "share of the images by label" + (" (in the target)" if audit.target_share else "")
    return [*lines, f"{title}: {', '.join(cells)}"]
