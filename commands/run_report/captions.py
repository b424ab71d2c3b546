"""The part of a run's report about captions: their statistics beside the references', and chosen images."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from commands.comparison.cards import CardContent, build_cards
from commands.comparison.paired import Predictions, image_scores
from commands.comparison.results import Result
from core.spread import spread
from metrics.caption_statistics import CaptionStatistics, caption_statistics, signs_of_collapse, word_difference
from reporting.page import Card, Section, Table, data_address
from reporting.pictures import figure_path
from reporting.report_figures import length_figure

_SHOWN = 15
"""Rows of the tables of captions and words."""
_SEED = 0


def caption_sections(result: Result, predictions: Predictions) -> tuple[list[Section], list[str]]:
    """Statistics of the captions.

    Args:
        result: the evaluation.
        predictions: predictions of this run alone.

    Returns:
        The sections, and signs of collapse.
    """
    captions = predictions.captions[result.name]
    own = caption_statistics(captions.values())
    first = [texts[0] for texts in predictions.references.values() if texts]
    references = caption_statistics(first) if first else None
    signs = signs_of_collapse(own, references)
    tables = [_overview(own, references), _most_frequent(captions.values())]
    if references is not None:
        over, under = word_difference(own, references, _SHOWN)
        columns = ("word", "here", "in references")
        tables.append(Table(title="Words used too often, per 1,000 words", columns=columns, rows=over))
        tables.append(Table(title="Words used too rarely, per 1,000 words", columns=columns, rows=under))
    lengths = {"captions": own.lengths} | ({"references": references.lengths} if references else {})
    section = Section(
        title=f"Captions of the {result.split} split",
        notes=["The references are the first one of each image."] if references else [],
        tables=tables,
        figures={"Words per caption": length_figure(lengths)},
    )
    return [section], [f"Captions on {result.split}: {sign}." for sign in signs]


def _overview(own: CaptionStatistics, references: CaptionStatistics | None) -> Table:
    sides = [own] if references is None else [own, references]
    rows: list[tuple[str, *tuple[float | int | str, ...]]] = [
        ("captions", *(side.captions for side in sides)),
        ("distinct captions", *(side.distinct for side in sides)),
        ("different words", *(len(side.words) for side in sides)),
        ("words per caption", *(side.mean_length for side in sides)),
        ("share of the most frequent caption", *(side.most_frequent_share for side in sides)),
        ("share that repeats a word at once", *(side.repeated for side in sides)),
        ("empty captions", *(side.empty for side in sides)),
    ]
    columns = ("", "this run", "references")[: len(sides) + 1]
    return Table(title="Statistics", columns=columns, rows=rows)


def _most_frequent(captions: Iterable[str]) -> Table:
    rows = [(caption or "(empty)", images) for caption, images in Counter(captions).most_common(_SHOWN)]
    return Table(title="Most frequent captions", columns=("caption", "images"), rows=rows)


def caption_cards(result: Result, predictions: Predictions, count: int) -> list[Card]:
    """Images with the best, the worst, and random captions, and all whose attention was drawn.

    Args:
        result: the evaluation.
        predictions: predictions of this run alone.
        count: maximum number of images.
    """
    scores = image_scores(predictions).get(result.name, {})
    groups = choose_images(list(predictions.references), scores, count)
    attention = {image: path for image in predictions.references if (path := _attention(result.folder, image))}
    for image in spread(list(attention), max(0, count - len(groups)) if scores else count):
        groups.setdefault(image, []).append("attention")
    content = CardContent(scores={result.name: scores}, groups=groups, figures=attention)
    return build_cards(predictions, [result.name], list(groups), content)


def choose_images(ids: Sequence[str], scores: Mapping[str, float], count: int) -> dict[str, list[str]]:
    """Chooses images by their scores: a third each of the best, the worst and random ones.

    Args:
        ids: all images.
        scores: image to score; empty when there are none.
        count: maximum number of images.

    Returns:
        Image to the groups that it is in, in the order best, worst, random.

    >>> choose_images(["a", "b", "c", "d"], {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2}, 3)
    {'b': ['best'], 'a': ['worst'], 'd': ['random']}
    """
    third = count // 3 if scores else 0
    ordered = sorted((image for image in ids if image in scores), key=lambda image: -scores[image])
    groups: dict[str, list[str]] = {}
    for name, chosen in (("best", ordered[:third]), ("worst", ordered[::-1][:third])):
        for image in chosen:
            groups.setdefault(image, []).append(name)
    others = [image for image in ids if image not in groups]
    chosen_others = random.Random(_SEED).sample(others, min(len(others), max(0, count - len(groups))))
    return groups | {image: ["random"] for image in others if image in set(chosen_others)}


def _attention(folder: Path, image_id: str) -> str | None:
    """The figure of an image's attention that the evaluation drew, as a data address."""
    path = figure_path(folder / "attention", image_id)
    return data_address(path.read_bytes(), "png") if path.is_file() else None
