"""The part of a run's report about labels: per-label figures, the threshold, what is taken for what."""

import numpy as np

from commands.comparison.cards import CardContent, build_cards
from commands.comparison.paired import Predictions, matrix
from commands.comparison.results import Result
from commands.run_report.captions import choose_images
from metrics.label_health import signs_of_label_collapse
from metrics.labels import average_precisions, checked, confusions, per_label, threshold_curve
from reporting.page import Card, Section, Table
from reporting.report_figures import threshold_figure

_DEFAULT_THRESHOLD = 0.5


def label_sections(result: Result, predictions: Predictions) -> tuple[list[Section], list[str]]:
    """Per-label table, curve over the threshold and confusions.

    Args:
        result: the evaluation.
        predictions: predictions of this run alone.

    Returns:
        The sections, and signs of collapse.
    """
    probabilities = matrix(predictions, result.name)
    signs = [
        f"Labels on {result.split}: {sign}." for sign in signs_of_label_collapse(probabilities, predictions.label_names)
    ]
    if not predictions.have_labels:
        return [], signs
    targets = list(predictions.targets.values())
    names, threshold = predictions.label_names, result.metrics.get("threshold", _DEFAULT_THRESHOLD)
    rows = [
        (
            *(row["label"], row["support"], row["predicted"]),
            *(row["precision"], row["recall"], row["f1"], row["average_precision"]),
        )
        for row in per_label(probabilities, targets, names, threshold)
    ]
    columns = ("label", "images", "predicted", "precision", "recall", "F1", "average precision")
    confused = confusions(probabilities, targets, names, threshold)
    section = Section(
        title=f"Labels of the {result.split} split",
        notes=[f"A label is predicted from a probability of {threshold:.3f} on."],
        tables=[
            Table(title="Per label", columns=columns, rows=rows),
            Table(
                title="Most frequent confusions", columns=("true, missed", "predicted, wrong", "images"), rows=confused
            ),
        ],
        figures={"Scores over the threshold": threshold_figure(threshold_curve(probabilities, targets), threshold)},
    )
    return [section], signs


def label_cards(result: Result, predictions: Predictions, count: int) -> list[Card]:
    """Images with the best, the worst and random predictions, by the average precision of each image's labels.

    Args:
        result: the evaluation.
        predictions: predictions of this run alone.
        count: maximum number of images.
    """
    scores: dict[str, float] = {}
    if predictions.have_labels:
        values, truth = checked(matrix(predictions, result.name), list(predictions.targets.values()))
        precisions = average_precisions(values.T, truth.T)
        scores = {
            image: float(value)
            for image, value in zip(predictions.targets, precisions, strict=True)
            if not np.isnan(value)
        }
    groups = choose_images(list(predictions.references), scores, count)
    content = CardContent(scores={result.name: scores}, score_name="average precision of this image", groups=groups)
    return build_cards(predictions, [result.name], list(groups), content)
