"""Paired bootstrap between runs: captions or probabilities of the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commands.comparison.data import build_data
from commands.comparison.results import Captions, Probabilities, Result, data_differences, read_predictions
from core.errors import UserError
from metrics.bootstrap import Comparison

if TYPE_CHECKING:
    from datamodules.base import CaptionDataModule
    from datamodules.readers.records import Example, Split


@dataclass(frozen=True, slots=True)
class Pair:
    """Comparison of two runs, score by score: `b` minus `a`."""

    a: str
    b: str
    scores: Mapping[str, Comparison]


@dataclass(frozen=True, slots=True)
class RetrievedCaptions:
    """What runs said of the same images, and what is true.

    Attributes:
        captions: run to its captions; empty when the runs label.
        probabilities: run to its probabilities; empty when the runs caption.
        references: image id to captions.
        targets: image id to labels.
        label_names: of the labels, in the order of the targets.
        data: gives the pictures.
    """

    captions: Mapping[str, Captions]
    probabilities: Mapping[str, Probabilities]
    references: Mapping[str, Sequence[str]]
    targets: Mapping[str, Sequence[float]]
    label_names: Sequence[str]
    data: "CaptionDataModule"


def gather(results: Sequence[Result]) -> RetrievedCaptions | None:
    """Reads all predictions, and references from the data of the first run whose configuration is there.

    Returns:
        None when no run has predictions or no data can be read.

    Raises:
        UserError: runs predicted for different images, or some captions and others labels.
    """
    captions: dict[str, Captions] = {}
    probabilities: dict[str, Probabilities] = {}
    for result in results:
        words, chances = read_predictions(result)
        if words:
            captions[result.name] = words
        elif chances:
            probabilities[result.name] = chances
    if not captions and not probabilities:
        return None
    if captions and probabilities:
        raise UserError(
            f"'{next(iter(captions))}' writes captions and '{next(iter(probabilities))}' labels: compare runs of one "
            "kind"
        )
    said = {name: set(words) for name, words in captions.items()}
    said |= {name: set(chances) for name, chances in probabilities.items()}
    _check_images(said)
    source = next((result for result in results if result.data), None)
    if source is None:
        return None
    data = build_data(source.data)
    predicted = next(iter(said.values()))
    here = _examples(data, predicted, source)
    return RetrievedCaptions(
        captions,
        probabilities,
        {str(example.image_id): list(example.captions) for example in here},
        {str(example.image_id): list(example.labels or ()) for example in here},
        list(data.label_names) or list(next(iter(next(iter(probabilities.values()), {}).values()), {})),
        data,
    )


def _examples(data: "CaptionDataModule", predicted: set[str], source: Result) -> "list[Example]":
    """Examples of the split that was predicted for: an evaluation's folder does not say when it read another one."""
    splits: list[Split] = [data.evaluation_split(source.split), "val", "test", "train"]
    for split in dict.fromkeys(splits):
        found = [example for example in data.examples(split) if str(example.image_id) in predicted]
        if len({str(example.image_id) for example in found}) == len(predicted):
            return found
    raise UserError(
        f"'{source.name}' has predictions for images that its data ({source.run}/config.yaml) does not have: the data "
        "has changed; test the run again"
    )


def _check_images(said: Mapping[str, set[str]]) -> None:
    first = next(iter(said))
    for name, predictions in said.items():
        different = predictions ^ said[first]
        if different:
            raise UserError(
                f"'{first}' was evaluated on {len(said[first])} images and '{name}' on {len(predictions)}, "
                f"{len(different)} of them by one only (such as {min(different)}): name evaluations of the same images "
                "(RUN/eval/test-2), or pass --different-data for a table without tests"
            )


def pairs_of(names: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Which runs to compare: each with the baseline; without one, each with the first.

    Raises:
        UserError: there is no run of the baseline's name.
    """
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: expected one of {', '.join(names)}")
    first = baseline or names[0]
    return [(first, name) for name in names if name != first]


def compare_pairs(
    evidence: RetrievedCaptions, pairs: Sequence[tuple[str, str]], samples: int, thresholds: Mapping[str, float]
) -> list[Pair]:
    """Bootstraps every pair.

    Args:
        evidence: predictions and truth.
        pairs: names of runs; those without predictions are left out.
        samples: number of resamples.
        thresholds: of runs that label.
    """
    found = []
    if evidence.captions and any(evidence.references.values()):
        from metrics.bootstrap import paired_bootstrap
        from metrics.captions import References

        ids = [name for name, captions in evidence.references.items() if captions]
        prepared = References({name: list(evidence.references[name]) for name in ids})
        scored = {
            name: prepared.score({image: captions[image] for image in ids})
            for name, captions in evidence.captions.items()
        }
        for a, b in pairs:
            if a in scored and b in scored:
                found.append(Pair(a, b, paired_bootstrap(scored[a], scored[b], samples)))
    elif evidence.probabilities and all(evidence.targets.values()):
        from metrics.label_bootstrap import paired_label_bootstrap

        truth = list(evidence.targets.values())
        for a, b in pairs:
            if a in evidence.probabilities and b in evidence.probabilities:
                one, other = (matrix(evidence, name) for name in (a, b))
                limits = (thresholds.get(a, 0.5), thresholds.get(b, 0.5))
                found.append(Pair(a, b, paired_label_bootstrap(one, other, truth, limits, samples)))
    return found


def matrix(evidence: RetrievedCaptions, name: str) -> list[list[float]]:
    """Probabilities of a run, images and labels in the order of the targets.

    Raises:
        UserError: the run knows other labels than the data.
    """
    run = evidence.probabilities[name]
    try:
        return [[run[image][label] for label in evidence.label_names] for image in evidence.targets]
    except KeyError as error:
        raise UserError(
            f"'{name}' has no probability of {error}: the runs know other labels; test them on one data"
        ) from error


def image_scores(evidence: RetrievedCaptions) -> dict[str, dict[str, float]]:
    """CIDEr-D of every caption by itself: run to image id to score; empty for runs that label."""
    from metrics.captions import References

    ids = [name for name, captions in evidence.references.items() if captions]
    if not evidence.captions or not ids:
        return {}
    prepared = References({name: list(evidence.references[name]) for name in ids})
    found = {}
    for name, captions in evidence.captions.items():
        scored = prepared.score({image: captions[image] for image in ids})
        found[name] = dict(zip(scored.image_ids, scored.table()["cider_d"].tolist(), strict=True))
    return found


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
    evidences: list[RetrievedCaptions] = []
    for pair in runs:
        if different := data_differences(pair):
            raise UserError(f"they were tested on different data ({'; '.join(different)})")
        evidence = gather(pair)
        if evidence is None or len(evidence.captions) + len(evidence.probabilities) < len({r.name for r in pair}):
            raise UserError("predictions are missing, or the data to read references from")
        evidences.append(evidence)
    names = [(a.name, b.name) for a, b in runs]
    if evidences[0].captions and any(evidences[0].references.values()):
        return _captions_over_seeds(evidences, names, samples)
    if not all(evidence.probabilities and all(evidence.targets.values()) for evidence in evidences):
        raise UserError("there are no references or labels to score them against")
    from metrics.label_bootstrap import paired_label_bootstrap

    sides = [[matrix(evidence, own[side]) for evidence, own in zip(evidences, names, strict=True)] for side in (0, 1)]
    truths = [list(evidence.targets.values()) for evidence in evidences]
    limits = [[pair[side].metrics.get("threshold", 0.5) for pair in runs] for side in (0, 1)]
    same = all(evidence.targets == evidences[0].targets for evidence in evidences)
    return paired_label_bootstrap(sides[0], sides[1], truths[:1] if same else truths, (limits[0], limits[1]), samples)


def _captions_over_seeds(
    evidences: Sequence[RetrievedCaptions], names: Sequence[tuple[str, str]], samples: int
) -> dict[str, Comparison]:
    import numpy as np

    from metrics.bootstrap import paired_bootstrap
    from metrics.captions import ImageScores, References

    same = all(evidence.references == evidences[0].references for evidence in evidences)
    sides: list[list[ImageScores]] = [[], []]
    for evidence, own in zip(evidences, names, strict=True):
        references = {name: list(captions) for name, captions in evidence.references.items() if captions}
        prepared = References(references)
        for side, name in zip(sides, own, strict=True):
            side.append(prepared.score({image: evidence.captions[name][image] for image in references}))
    pooled = []
    for scored in sides:
        if same:  # corpus scores are ratios of sums, so the mean row of the seeds weighs them alike
            pooled.append(ImageScores(scored[0].image_ids, np.mean([item.rows for item in scored], axis=0)))
        else:
            ids = [f"{number} {image}" for number, item in enumerate(scored) for image in item.image_ids]
            pooled.append(ImageScores(ids, np.concatenate([item.rows for item in scored])))
    return paired_bootstrap(pooled[0], pooled[1], samples)
