"""Paired bootstrap between runs: captions or probabilities of the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commands.comparison.data import build_data
from commands.comparison.results import Captions, Probabilities, Result, data_differences, read_predictions
from core.errors import UserError
from metrics.bootstrap import Comparison, Pair

if TYPE_CHECKING:
    from datamodules.base import CaptionDataModule
    from datamodules.readers.records import Example, Split
    from metrics.captions import ImageScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What runs predicted for the same images, beside the references.

    Attributes:
        captions: run to its captions; empty for classifiers.
        probabilities: run to its probabilities; empty for captioners.
        references: image id to captions.
        targets: image id to labels.
        label_names: names of the labels, in the order of the targets.
        data: opens the images.
    """

    captions: Mapping[str, Captions]
    probabilities: Mapping[str, Probabilities]
    references: Mapping[str, Sequence[str]]
    targets: Mapping[str, Sequence[float]]
    label_names: Sequence[str]
    data: "CaptionDataModule"

    @property
    def have_captions(self) -> bool:
        """Whether there are captions and references to score them against."""
        return bool(self.captions) and any(self.references.values())

    @property
    def have_labels(self) -> bool:
        """Whether there are probabilities and true labels to score them against."""
        return bool(self.probabilities) and all(self.targets.values())

    def scored_captions(self) -> "dict[str, ImageScores]":
        """Scores of every run's captions; images without references are skipped."""
        from metrics.captions import References

        references = {image: list(captions) for image, captions in self.references.items() if captions}
        prepared = References(references)
        return {
            name: prepared.score({image: captions[image] for image in references})
            for name, captions in self.captions.items()
        }


def gather(results: Sequence[Result], data: "CaptionDataModule | None" = None) -> Predictions | None:
    """Reads all predictions, and references from the data of the first run whose configuration is there.

    Args:
        results: the runs.
        data: the data module of the first run, where it is built already.

    Returns:
        None when no run has predictions or no data can be read.

    Raises:
        UserError: runs predicted for different images, or some are captioners and others classifiers.
    """
    captions: dict[str, Captions] = {}
    probabilities: dict[str, Probabilities] = {}
    for result in results:
        texts, scores = read_predictions(result)
        if texts:
            captions[result.name] = texts
        elif scores:
            probabilities[result.name] = scores
    if not captions and not probabilities:
        return None
    if captions and probabilities:
        raise UserError(
            f"'{next(iter(captions))}' predicted captions and '{next(iter(probabilities))}' labels: compare runs of "
            "one kind"
        )
    images = {name: set(rows) for name, rows in (captions | probabilities).items()}
    _check_images(images)
    source = next((result for result in results if result.data), None)
    if source is None:
        return None
    data = data or build_data(source.data)
    examples = _examples(data, next(iter(images.values())), source)
    return Predictions(
        captions=captions,
        probabilities=probabilities,
        references={str(example.image_id): list(example.captions) for example in examples},
        targets={str(example.image_id): list(example.labels or ()) for example in examples},
        label_names=list(data.label_names) or list(next(iter(next(iter(probabilities.values()), {}).values()), {})),
        data=data,
    )


def _examples(data: "CaptionDataModule", predicted: set[str], source: Result) -> "list[Example]":
    """Examples of the split that was predicted: the folder of an evaluation does not tell which one it read."""
    splits: list[Split] = [data.evaluation_split(source.split), "val", "test", "train"]
    for split in dict.fromkeys(splits):
        found = [example for example in data.examples(split) if str(example.image_id) in predicted]
        if len({str(example.image_id) for example in found}) == len(predicted):
            return found
    raise UserError(
        f"'{source.name}' has predictions for images that its data ({source.run}/config.yaml) does not have: the data "
        "has changed; test the run again"
    )


def _check_images(images: Mapping[str, set[str]]) -> None:
    first = next(iter(images))
    for name, own in images.items():
        different = own ^ images[first]
        if different:
            raise UserError(
                f"'{first}' was evaluated on {len(images[first])} images and '{name}' on {len(own)}, "
                f"{len(different)} of them by one only (such as {min(different)}): give evaluations of the same images "
                "(RUN/eval/test-2), or pass --different-data for a table without tests"
            )


def pairs_of(names: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Which runs to compare: every run with the reference run, by default the first.

    Raises:
        UserError: there is no run of that name.
    """
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: expected one of {', '.join(names)}")
    first = baseline or names[0]
    return [(first, name) for name in names if name != first]


def compare_pairs(
    predictions: Predictions, pairs: Sequence[tuple[str, str]], samples: int, thresholds: Mapping[str, float]
) -> list[Pair]:
    """Bootstraps every pair.

    Args:
        predictions: predictions of all runs, with the references.
        pairs: names of runs; those without predictions are skipped.
        samples: number of resamples.
        thresholds: run to the threshold of a classifier.
    """
    found = []
    if predictions.have_captions:
        from metrics.bootstrap import paired_bootstrap

        scored = predictions.scored_captions()
        for a, b in pairs:
            if a in scored and b in scored:
                found.append(Pair(a=a, b=b, scores=paired_bootstrap(scored[a], scored[b], samples)))
    elif predictions.have_labels:
        from metrics.label_bootstrap import paired_label_bootstrap

        targets = list(predictions.targets.values())
        for a, b in pairs:
            if a in predictions.probabilities and b in predictions.probabilities:
                one, other = (matrix(predictions, name) for name in (a, b))
                limits = (thresholds.get(a, 0.5), thresholds.get(b, 0.5))
                found.append(
                    Pair(
                        a=a, b=b, scores=paired_label_bootstrap(one, other, targets, thresholds=limits, samples=samples)
                    )
                )
    return found


def matrix(predictions: Predictions, name: str) -> list[list[float]]:
    """Probabilities of a run, images and labels in the order of the targets.

    Raises:
        UserError: the labels of the run are not those of the data.
    """
    run = predictions.probabilities[name]
    try:
        return [[run[image][label] for label in predictions.label_names] for image in predictions.targets]
    except KeyError as error:
        raise UserError(
            f"'{name}' has no probability of {error}: its labels are not those of the data; test it on this data"
        ) from error


def image_scores(predictions: Predictions) -> dict[str, dict[str, float]]:
    """CIDEr-D of every single caption: run to image id to score; empty for classifiers."""
    if not predictions.have_captions:
        return {}
    return {
        name: dict(zip(scored.image_ids, scored.table()["cider_d"].tolist(), strict=True))
        for name, scored in predictions.scored_captions().items()
    }


def compare_over_seeds(runs: Sequence[tuple[Result, Result]], samples: int = 1000) -> dict[str, Comparison]:
    """Bootstraps two methods, each trained with several seeds; scores are means over the seeds.

    Args:
        runs: the two runs of every seed.
        samples: number of resamples.

    Returns:
        Comparison by score, second minus first.

    Raises:
        UserError: runs of a seed cannot be compared, or predictions or the data are missing.
    """
    seeds = [_gather_pair(pair) for pair in runs]
    names = [(a.name, b.name) for a, b in runs]
    if seeds[0].have_captions:
        return _captions_over_seeds(seeds, names, samples)
    if not all(seed.have_labels for seed in seeds):
        raise UserError("there are no references or labels to score them against")
    from metrics.label_bootstrap import paired_label_bootstrap

    first, second = ([matrix(seed, own[side]) for seed, own in zip(seeds, names, strict=True)] for side in (0, 1))
    targets = [list(seed.targets.values()) for seed in seeds]
    limits = [[pair[side].metrics.get("threshold", 0.5) for pair in runs] for side in (0, 1)]
    same = all(seed.targets == seeds[0].targets for seed in seeds)
    return paired_label_bootstrap(
        first, second, targets[:1] if same else targets, thresholds=(limits[0], limits[1]), samples=samples
    )


def _gather_pair(pair: tuple[Result, Result]) -> Predictions:
    """Predictions of two runs of one seed."""
    if different := data_differences(pair):
        raise UserError(f"they were tested on different data ({'; '.join(different)})")
    predictions = gather(pair)
    wanted = {result.name for result in pair}
    if predictions is None or len(predictions.captions) + len(predictions.probabilities) < len(wanted):
        raise UserError("predictions are missing, or the data to read references from")
    return predictions


def _captions_over_seeds(
    seeds: Sequence[Predictions], names: Sequence[tuple[str, str]], samples: int
) -> dict[str, Comparison]:
    import numpy as np

    from metrics.bootstrap import paired_bootstrap
    from metrics.captions import ImageScores

    same = all(seed.references == seeds[0].references for seed in seeds)
    sides: tuple[list[ImageScores], list[ImageScores]] = ([], [])
    for seed, own in zip(seeds, names, strict=True):
        scored = seed.scored_captions()
        for side, name in zip(sides, own, strict=True):
            side.append(scored[name])
    pooled = []
    for side in sides:
        if same:  # corpus scores are ratios of sums, so the mean row of the seeds weighs them alike
            pooled.append(ImageScores(side[0].image_ids, np.mean([item.rows for item in side], axis=0)))
        else:
            ids = [f"{number} {image}" for number, item in enumerate(side) for image in item.image_ids]
            pooled.append(ImageScores(ids, np.concatenate([item.rows for item in side])))
    return paired_bootstrap(pooled[0], pooled[1], samples)
