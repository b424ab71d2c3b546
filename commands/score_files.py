"""The files that `score` reads and writes: predictions, references, scores per image.

Captions are taken as they stand, white space and empty ones included, since the scores must be those of coco-caption;
the readers of data sets clean and refuse such captions.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.csv_files import csv_text
from core.errors import DataError, UserError
from core.inputs import parse_json, read_text, shown
from datamodules.readers.records import Problem, has_keys
from metrics.captions import SCORES, ImageScores

References = dict[str, list[str]]
_KARPATHY_IDS = ("cocoid", "imgid", "filename")
_ID = (int, str)
_SHOWN = 3
"""Ids named in an error that may concern thousands."""


def read_predictions(path: Path) -> dict[str, str]:
    """Captions by image id, from a COCO results file.

    Raises:
        UserError: no such file, another format, empty, or two different captions for one image.
    """
    records = parse_json(read_text(path), path)
    if not isinstance(records, list) or not records:
        raise DataError(
            f'{path}: expected a list of {{"image_id": ..., "caption": "..."}} with one record or more, '
            f"found {_short(records)}"
        )
    captions: dict[str, str] = {}
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        _require(record, {"image_id": _ID, "caption": (str,)}, where)
        image_id, caption = str(record["image_id"]), record["caption"]
        if captions.setdefault(image_id, caption) != caption:
            raise DataError(
                f"{where}: image {image_id} has two different captions ({_short(captions[image_id])} and "
                f"{_short(caption)}): keep one caption per image"
            )
    return captions


def read_references(path: Path, predicted: Sequence[str], split: str | None = None) -> tuple[References, str]:
    """References by image id, from COCO caption JSON or Karpathy JSON.

    Args:
        path: the file.
        predicted: ids of the predictions; a Karpathy file has three ids per image, and the one that matches most of
            these is used.
        split: use only this split of a Karpathy file; None: all.

    Returns:
        The references and the name of the id that was used.

    Raises:
        UserError: no such file, neither of the two formats, no references, or an unknown split.
    """
    content = parse_json(read_text(path), path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if split is not None:
            raise UserError(f"--split {split}: {path} is a COCO file, which has no splits: remove the option")
        references, id_key = _coco_references(content["annotations"], path), "image_id"
    elif isinstance(content, dict) and isinstance(content.get("images"), list):
        references, id_key = _karpathy_references(content["images"], path, predicted, split)
    else:
        raise DataError(
            f"{path}: expected COCO caption JSON (an object with 'annotations') or Karpathy JSON (an object with "
            f"'images' that have 'sentences'), found {_short(content)}"
        )
    if not references:
        raise DataError(f"{path}: has no reference captions: expected one or more")
    return references, id_key


def _coco_references(annotations: list[Any], path: Path) -> References:
    references: References = {}
    for number, record in enumerate(annotations):
        _require(record, {"image_id": _ID, "caption": (str,)}, f"{path}: annotation {number}")
        references.setdefault(str(record["image_id"]), []).append(record["caption"])
    return references


def _karpathy_references(
    images: list[Any], path: Path, predicted: Sequence[str], split: str | None
) -> tuple[References, str]:
    if split is not None:
        known = {str(image.get("split")) for image in images if isinstance(image, dict)}
        images = [image for image in images if isinstance(image, dict) and image.get("split") == split]
        if not images:
            raise UserError(f"--split {split}: not in {path}, which has: {', '.join(sorted(known))}")
    key = _matching_key(images, set(predicted))
    references: References = {}
    for number, image in enumerate(images):
        where = f"{path}: image {number}"
        _require(image, {key: _ID, "sentences": (list,)}, where)
        image_id = str(image[key])
        if image_id in references:
            raise DataError(f"{where}: {key} {image_id} is there twice: expected one record per image")
        for place, sentence in enumerate(image["sentences"]):
            _require(sentence, {"raw": (str,)}, f"{where}, sentence {place}")
            references.setdefault(image_id, []).append(sentence["raw"])
    return references, key


def _matching_key(images: list[Any], predicted: set[str]) -> str:
    """The id of Karpathy files that most predictions match; of equal ones the first of `_KARPATHY_IDS`."""
    records = [image for image in images if isinstance(image, dict)]
    present = [key for key in _KARPATHY_IDS if any(key in image for image in records)]
    matches = {key: len(predicted & {str(image.get(key)) for image in records}) for key in present}
    return max(matches, key=matches.__getitem__, default=_KARPATHY_IDS[0])


def _require(record: Any, keys: dict[str, tuple[type, ...]], where: str) -> None:
    """Makes sure that a record is an object that has these keys with these types."""

    def fail(problem: Problem) -> None:
        raise DataError(problem.message)

    has_keys(record, keys, where, fail)


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = shown(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_ids(
    predictions: Mapping[str, str],
    references: Mapping[str, list[str]],
    *,
    predictions_path: Path,
    references_path: Path,
    allow_missing: bool = False,
) -> None:
    """Checks that every prediction has references and, unless `allow_missing`, every referenced image a prediction.

    Raises:
        UserError: it is not so; the message counts the images and names three.
    """
    unknown = [image_id for image_id in predictions if image_id not in references]
    if unknown:
        raise UserError(
            f"{predictions_path}: {len(unknown)} of {len(predictions)} predictions are for images without references "
            f"in {references_path}: {first_ids(unknown)}; give the references of these images"
        )
    missing = [image_id for image_id in references if image_id not in predictions]
    if missing and not allow_missing:
        raise UserError(
            f"{predictions_path}: no prediction for {len(missing)} of the {len(references)} images in "
            f"{references_path}: {first_ids(missing)}; caption these too, or score the others with --allow-missing"
        )


def first_ids(ids: Sequence[str]) -> str:
    """The first ids of a list, for a message."""
    return ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")


def write_table(path: Path, images: ImageScores, predictions: Mapping[str, str]) -> None:
    """Writes a CSV file with id, caption and scores of every image.

    Raises:
        UserError: the file cannot be written.
    """
    columns = images.table()
    captions = [predictions[image_id] for image_id in images.image_ids]
    rows = zip(images.image_ids, captions, *(columns[name] for name in SCORES), strict=True)
    try:
        path.write_text(
            csv_text(["image_id", "caption", *SCORES], rows, "%.6f"), "utf-8", errors="backslashreplace", newline=""
        )
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--per-image {path}: cannot be written ({reason}): give another file name") from error
