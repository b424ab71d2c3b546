"""Content of the comparison page: tables, and images with the predictions of every run."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from commands.comparison.paired import Predictions, image_scores
from commands.comparison.results import Result, all_baselines
from core.spread import spread
from metrics.baselines.flags import flagged
from metrics.bootstrap import Pair
from metrics.names import metric
from reporting.page import Card, Entry, Label, Page, thumbnail

_LABELS = 5
"""Number of most probable labels shown per classifier."""
_REFERENCES = 5
"""Number of references shown per image."""
_THRESHOLD = 0.5
"""Targets of at least this value count as true."""


def build_page(
    results: Sequence[Result],
    metrics: Sequence[str],
    notes: Sequence[str],
    *,
    pairs: Sequence[Pair],
    figures: Mapping[str, Figure],
    predictions: Predictions | None,
    images: int,
) -> Page:
    """Collects the content of the page.

    Args:
        results: the runs.
        metrics: columns of the table, by key.
        notes: lines below the title.
        pairs: the paired bootstrap.
        figures: title to figure.
        predictions: of the runs; None: show no images.
        images: maximum number of images, evenly spread over the data.
    """
    scores = {result.name: result.metrics for result in results}
    baselines = all_baselines(results)
    return Page(
        title=f"Comparison of {len(results)} runs" if len(results) > 1 else results[0].name,
        notes=notes,
        metrics=[metric(key) for key in metrics],
        scores=scores,
        baselines=baselines,
        flags=flagged(scores, baselines),
        pairs=pairs,
        figures=figures,
        cards=[] if predictions is None else build_cards(predictions, list(scores), images),
        images=0 if predictions is None else len(predictions.references),
    )


def build_cards(predictions: Predictions, runs: Sequence[str], count: int) -> list[Card]:
    """Images evenly spread over the data, with references and the predictions of every run."""
    ids = list(predictions.references)
    scores = image_scores(predictions)
    cards = []
    for image_id in spread(ids, count):
        true = _true_labels(predictions, image_id)
        entries = (_entry(predictions, run, image_id, true, scores.get(run, {})) for run in runs)
        cards.append(
            Card(
                image_id=image_id,
                image=_thumbnail(predictions, image_id),
                references=predictions.references[image_id][:_REFERENCES],
                labels=[Label(name, True) for name in true] if predictions.probabilities else [],
                entries=[entry for entry in entries if entry is not None],
            )
        )
    return cards


def _true_labels(predictions: Predictions, image_id: str) -> list[str]:
    targets = zip(predictions.label_names, predictions.targets[image_id], strict=False)
    return [name for name, value in targets if value >= _THRESHOLD]


def _entry(
    predictions: Predictions, run: str, image_id: str, true: Sequence[str], scores: Mapping[str, float]
) -> Entry | None:
    """The prediction of a run for an image; None if there is none."""
    if image_id in predictions.captions.get(run, {}):
        return Entry(run=run, caption=predictions.captions[run][image_id], score=scores.get(image_id))
    if image_id not in predictions.probabilities.get(run, {}):
        return None
    likely = sorted(predictions.probabilities[run][image_id].items(), key=lambda item: -item[1])[:_LABELS]
    return Entry(run=run, labels=[Label(name, name in true, value) for name, value in likely])


def _thumbnail(predictions: Predictions, image_id: str) -> str | None:
    """A thumbnail; None if the data has captions only or the image is missing."""
    try:
        return thumbnail(predictions.data.image(image_id))
    except (KeyError, ValueError, OSError):
        return None
