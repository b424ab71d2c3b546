"""``label``: labels images, or captions, with a trained classifier and prints the probabilities."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed
from commands.images import add_model_options, choose_device, find_images, open_or_skip
from commands.jobs.options import add_job_options, job_source
from core.collection import lasting
from core.errors import UserError
from core.text import say, say_json

if TYPE_CHECKING:
    from commands.jobs.tasks import LabelTask
    from lightning_modules.serving import LoadedClassifier


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py label", description=__doc__)
    add_model_options(parser, "*", "images and folders of images; none for a model that reads only text")
    add = parser.add_argument
    add("--text", action="append", default=[], help="caption, for models that read one: once per image, in order")
    add(
        "--threshold",
        type=float,
        help="predict labels with at least this probability; default: the threshold of the run, or the most "
        "probable label where labels exclude each other",
    )
    add("--top", type=int, help="show this many labels, most probable first; 0: all; default: the predicted ones")
    add("--json", action="store_true", help="print one JSON object per image and line, with all labels")
    add_job_options(parser)
    return parser


def main(args: Sequence[str]) -> int:
    """Prints the labels of every image; the exit code is 1 when an image was skipped.

    Raises:
        UserError: no such checkpoint, image or device, or images and texts do not match the model.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: expected 0 to 1")
    if options.top is not None and options.top < 0:
        raise UserError(f"--top {options.top}: expected 0 or more")
    source = job_source(options, without=("text", "top", "json"))
    if source is not None:
        from commands.jobs.engine import run_job

        return run_job(partial(make_task, options), source, options, args)
    paths = find_images(options.images)
    classifier = _load(options)
    _check_inputs(paths, options.text, classifier, options.ckpt)
    labelled = 0
    for path, text, scored in _labelled(classifier, paths, options):
        labelled += 1
        show(path, text, scored, threshold=classifier.threshold, top=options.top, as_json=options.json)
    return 1 if classifier.reads_images and labelled < len(paths) else 0


def make_task(options: argparse.Namespace) -> "LabelTask":
    """What a job does with a batch, by the options of the command."""
    from commands.jobs.tasks import LabelTask

    return LabelTask(model=_load(options))


@lasting()
def _load(options: argparse.Namespace) -> "LoadedClassifier":
    from lightning_modules import load_classifier

    classifier = load_classifier(options.ckpt, choose_device(options.device))
    if options.threshold is not None:
        classifier.threshold = options.threshold
    return classifier


def _labelled(
    classifier: "LoadedClassifier", paths: Sequence[Path], options: argparse.Namespace
) -> Iterator[tuple[str | None, str | None, dict[str, float]]]:
    """Path, text and the probability of every label, image by image; without skipped images."""
    count = len(paths) if classifier.reads_images else len(options.text)
    for start in range(0, count, options.batch_size):
        rows = list(range(start, min(count, start + options.batch_size)))
        images = None
        if classifier.reads_images:
            opened = {row: open_or_skip(paths[row], classifier.transform.min_side, options.skip_bad) for row in rows}
            images = {row: image for row, image in opened.items() if image is not None}
            rows = list(images)
        texts = [options.text[row] for row in rows] if classifier.reads_text else None
        found = classifier.label(None if images is None else list(images.values()), texts)
        for row, probabilities in zip(rows, found.tolist(), strict=True):
            path = str(paths[row]) if classifier.reads_images else None
            text = options.text[row] if classifier.reads_text else None
            yield path, text, dict(zip(classifier.label_names, probabilities, strict=True))


def show(
    path: str | None,
    text: str | None,
    scored: dict[str, float],
    *,
    threshold: float | None,
    top: int | None,
    as_json: bool,
) -> None:
    """Prints the labels of one image, the most probable first.

    Args:
        path: path of the image; None when the model reads only text.
        text: its caption; None when the model reads none.
        scored: probability of every label.
        threshold: labels from it on are predicted; None: the most probable one.
        top: how many are shown, 0: all; None: those predicted.
        as_json: one line of JSON, with all labels.
    """
    ordered = sorted(scored.items(), key=lambda item: -item[1])
    least = ordered[0][1] if threshold is None else threshold
    predicted = [name for name, value in ordered if value >= least]
    if as_json:
        given = {key: value for key, value in (("image", path), ("text", text)) if value is not None}
        rounded = {name: round(value, 4) for name, value in ordered}
        bound = {} if threshold is None else {"threshold": round(threshold, 4)}
        say_json({**given, "labels": predicted, **bound, "probabilities": rounded})
        return
    shown = ordered[: len(predicted) if top is None else top or None]
    listed = ", ".join(f"{name} {value:.2f}" for name, value in shown)
    nothing = f"(none reaches {least:.2f}; the most probable is {ordered[0][0]} {ordered[0][1]:.2f})"
    say(f"{path if path is not None else text}: {listed or nothing}")


def _check_inputs(paths: Sequence[Path], texts: Sequence[str], classifier: "LoadedClassifier", ckpt: str) -> None:
    """One image, one text, or one of each, as the model needs."""
    if classifier.reads_images and not paths:
        raise UserError(f"'{ckpt}' reads images: give one, or a folder of them")
    if not classifier.reads_images and paths:
        raise UserError(f"'{ckpt}' reads only captions: give --text instead of images")
    if classifier.reads_text and not texts:
        raise UserError(f"'{ckpt}' reads captions: give --text once per image")
    if not classifier.reads_text and texts:
        raise UserError(f"'{ckpt}' reads only images: remove --text")
    if classifier.reads_images and classifier.reads_text and len(paths) != len(texts):
        raise UserError(f"{len(texts)} times --text for {len(paths)} images: expected one per image, in their order")
