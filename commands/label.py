"""``label``: labels of any pictures, or captions, with their probabilities."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed
from commands.caption import choose_device, find_pictures
from core.errors import DataError, UserError

if TYPE_CHECKING:
    from PIL import Image


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py label", __doc__)
    parser.add_argument("--ckpt", required=True, help="run folder or checkpoint")
    parser.add_argument("images", nargs="*", help="pictures and folders of pictures; none for a model of text alone")
    parser.add_argument(
        "--text", action="append", default=[], help="caption, for models that read them: one for each picture, in order"
    )
    parser.add_argument("--threshold", type=float, help="predict from this probability on, instead of the run's own")
    parser.add_argument("--top", type=int, help="show this many labels, most probable first; 0 = all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument("--json", action="store_true", help="one JSON object per picture and line, with all labels")
    parser.add_argument("--skip-bad", action="store_true", help="name pictures that do not decode and go on")
    return parser


def main(args: Sequence[str]) -> int:
    """Prints the labels of every picture; the exit code is 1 when a picture had to be left out.

    Raises:
        UserError: no such checkpoint, picture or device, or pictures and texts do not fit the model.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: expected at least 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g}: expected 0 to 1")
    if options.top is not None and options.top < 0:
        raise UserError(f"--top {options.top}: expected 0 or more")
    paths = list(find_pictures(options.images))

    from lightning_modules import load_classifier

    classifier = load_classifier(options.ckpt, choose_device(options.device))
    if options.threshold is not None:
        classifier.threshold = options.threshold
    _check_inputs(paths, options.text, classifier.reads_images, classifier.reads_text, options.ckpt)
    bad = 0
    count = len(paths) if classifier.reads_images else len(options.text)
    for start in range(0, count, options.batch_size):
        rows = list(range(start, min(count, start + options.batch_size)))
        images = None
        if classifier.reads_images:
            opened = {row: _open(paths[row], classifier.transform.min_side, options.skip_bad) for row in rows}
            images = {row: picture for row, picture in opened.items() if picture is not None}
            bad += len(opened) - len(images)
            rows = list(images)
        texts = [options.text[row] for row in rows] if classifier.reads_text else None
        found = classifier.label(None if images is None else list(images.values()), texts)
        for row, probabilities in zip(rows, found.tolist(), strict=True):
            scored = dict(zip(classifier.label_names, probabilities, strict=True))
            path = str(paths[row]) if classifier.reads_images else None
            text = options.text[row] if classifier.reads_text else None
            show(path, text, scored, classifier.threshold, options.top, options.json)
    return 1 if bad else 0


def show(
    path: str | None, text: str | None, scored: dict[str, float], threshold: float, top: int | None, as_json: bool
) -> None:
    """Prints the labels of one picture, the most probable first.

    Args:
        path: of the picture, if it was looked at.
        text: its caption, if it was read.
        scored: probability of every label.
        threshold: labels from it on are predicted.
        top: how many are shown, 0 for all; None: those predicted.
        as_json: one line of JSON, with all labels.
    """
    ordered = sorted(scored.items(), key=lambda item: -item[1])
    predicted = [name for name, value in ordered if value >= threshold]
    if as_json:
        given = {key: value for key, value in (("image", path), ("text", text)) if value is not None}
        rounded = {name: round(value, 4) for name, value in ordered}
        facts = {**given, "labels": predicted, "threshold": round(threshold, 4), "probabilities": rounded}
        print(json.dumps(facts, ensure_ascii=False), flush=True)
        return
    shown = ordered[: len(predicted) if top is None else top or None]
    said = ", ".join(f"{name} {value:.2f}" for name, value in shown)
    nothing = f"(none reaches {threshold:.2f}; the most probable is {ordered[0][0]} {ordered[0][1]:.2f})"
    print(f"{path if path is not None else text}: {said or nothing}", flush=True)


def _check_inputs(paths: list[Path], texts: list[str], reads_images: bool, reads_text: bool, ckpt: str) -> None:
    """One picture, one text, or one of each, as the model wants."""
    if reads_images and not paths:
        raise UserError(f"'{ckpt}' looks at pictures: name one, or a folder of them")
    if not reads_images and paths:
        raise UserError(f"'{ckpt}' reads captions alone: give --text instead of pictures")
    if reads_text and not texts:
        raise UserError(f"'{ckpt}' reads captions: give --text once for each picture")
    if not reads_text and texts:
        raise UserError(f"'{ckpt}' looks at pictures alone: leave --text out")
    if reads_images and reads_text and len(paths) != len(texts):
        raise UserError(f"{len(texts)} times --text for {len(paths)} pictures: expected one for each, in their order")


def _open(path: Path, min_side: int, skip_bad: bool) -> "Image.Image | None":
    """Reads a picture; None when it does not decode and may be left out."""
    from datamodules.readers.images import WAYS_OUT, open_image

    try:
        return open_image(path, min_side=min_side)
    except DataError as error:
        message = str(error).removesuffix(f"; {WAYS_OUT}")
        if not skip_bad:
            raise UserError(f"{message}; --skip-bad goes on without it") from error
        print(f"left out: {message}", file=sys.stderr)
        return None
