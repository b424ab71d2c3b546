"""Content of the comparison page: tables, and images with the predictions of every run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from commands.comparison.paired import Predictions, image_scores
from commands.comparison.results import Result, all_baselines
from core.spread import spread
from metrics.baselines.flags import flagged
from metrics.bootstrap import Pair
from metrics.names import metric
from reporting.page import CAPTION_SCORE, Card, Entry, Label, Page, thumbnail

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
        predictions: predictions of the runs; None: show no images.
        images: maximum number of images, evenly spread over the data.
    """
    scores = {result.name: result.metrics for result in results}
    baselines = all_baselines(results)
    cards: list[Card] = []
    if predictions is not None:
        content = CardContent(scores=image_scores(predictions))
        cards = build_cards(predictions, list(scores), spread(list(predictions.references), images), content)
    return Page(
        title=f"Comparison of {len(results)} runs" if len(results) > 1 else results[0].name,
        notes=notes,
        metrics=[metric(key) for key in metrics],
        scores=scores,
        baselines=baselines,
        flags=flagged(scores, baselines),
        pairs=pairs,
        figures=figures,
        cards=cards,
        images=0 if predictions is None else len(predictions.references),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContent:
    """What cards show of some images besides references and predictions.

    Attributes:
        scores: run to image to the score of its prediction.
        score_name: what the scores are.
        groups: image to the reasons why it is shown.
        figures: image to a larger figure as a data address.
    """

    scores: Mapping[str, Mapping[str, float]]
    score_name: str = CAPTION_SCORE
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)


def build_cards(predictions: Predictions, runs: Sequence[str], ids: Sequence[str], content: CardContent) -> list[Card]:
    """Cards of some images, with references and the predictions of every run."""
    cards = []
    for image_id in ids:
        true = _true_labels(predictions, image_id)
        entries = (_entry(predictions, run, image_id, true, content) for run in runs)
        cards.append(
            Card(
                image_id=image_id,
                image=_thumbnail(predictions, image_id),
                references=predictions.references[image_id][:_REFERENCES],
                labels=[Label(name=name, is_true=True) for name in true] if predictions.probabilities else [],
                entries=[entry for entry in entries if entry is not None],
                groups=content.groups.get(image_id, ()),
                figure=content.figures.get(image_id),
            )
        )
    return cards


def _true_labels(predictions: Predictions, image_id: str) -> list[str]:
    targets = zip(predictions.label_names, predictions.targets[image_id], strict=False)
    return [name for name, value in targets if value >= _THRESHOLD]


def _entry(
    predictions: Predictions, run: str, image_id: str, true: Sequence[str], content: CardContent
) -> Entry | None:
    """The prediction of a run for an image; None if there is none."""
    score = content.scores.get(run, {}).get(image_id)
    if image_id in predictions.captions.get(run, {}):
        caption = predictions.captions[run][image_id]
        return Entry(run=run, caption=caption, score=score, score_name=content.score_name)
    if image_id not in predictions.probabilities.get(run, {}):
        return None
    likely = sorted(predictions.probabilities[run][image_id].items(), key=lambda item: -item[1])[:_LABELS]
    labels = [Label(name=name, is_true=name in true, probability=value) for name, value in likely]
    return Entry(run=run, labels=labels, score=score, score_name=content.score_name)


def _thumbnail(predictions: Predictions, image_id: str) -> str | None:
    """A thumbnail; None if the data has captions only or the image is missing."""
    try:
        return thumbnail(predictions.data.image(image_id))
    except (KeyError, ValueError, OSError):
        return None
