"""``python cli.py score predictions.json references.json``: metrics for anybody's captions, without torch."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from commands.arguments import Parser, dashed
from core.errors import DataError, UserError
from metrics.captions import SCORES, ImageScores, score_images

_KARPATHY_IDS = ("cocoid", "imgid", "filename")
_SHOWN = 3
"""So many ids are named in an error that may concern thousands."""

References = dict[str, list[str]]
Rows = dict[str, dict[str, float]]


def main(args: list[str]) -> int:
    """Score captions and print a table, or with ``--json`` one JSON object.

    Args:
        args: What follows ``score`` on the command line.

    Returns:
        Exit code 0; mistakes of the user are raised.

    Raises:
        UserError: A file is missing, broken or of another format, or predictions and references do not fit together.
    """
    options, rest = _parser().parse_known_args([dashed(arg) for arg in args])
    if rest and options.floors is None:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    predictions = read_predictions(options.predictions)
    references, id_key = read_references(options.references, list(predictions), options.split)
    check_ids(predictions, references, options.predictions, options.references, options.allow_missing)
    images = score_images(predictions, references)
    scores = images.corpus()
    if options.java:
        from metrics.java import java_scores

        scores |= java_scores(predictions, references, _note)
    if options.per_image is not None:
        write_table(options.per_image, images, predictions)
    bounds = {} if options.floors is None else bounds_of_data(options.floors, rest, options.split, list(references))
    if options.json:
        print(json.dumps({"predictions": scores, **bounds} if bounds else scores))
    else:
        print(f"{len(predictions)} of {len(references)} images scored; images matched by {id_key}")
        print_table({"predictions": scores, **bounds})
    if bounds:
        from metrics.baselines.captions import floor_warning

        if warning := floor_warning("predictions", scores, bounds):
            print(warning, file=sys.stderr)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "cli.py score",
        description="BLEU-1..4, ROUGE-L and CIDEr-D of captions against references, as coco-caption computes them; "
        "METEOR and SPICE too where Java and pycocoevalcap are installed.",
    )
    parser.add_argument("predictions", type=Path, help='COCO results JSON: [{"image_id": 1, "caption": "..."}, ...]')
    parser.add_argument("references", type=Path, help="COCO caption JSON or Karpathy JSON")
    parser.add_argument("--split", metavar="NAME", help="Karpathy JSON: use only the images of this split, e.g. test")
    parser.add_argument("--allow-missing", action="store_true", help="score the images that have a prediction")
    parser.add_argument("--per-image", type=Path, metavar="FILE.csv", help="write the scores of every image")
    parser.add_argument(
        "--floors",
        metavar="NAME",
        help="add the floors and ceilings of a data set (names: python cli.py data --help) and say which floors the "
        "predictions do not beat; behind the two files follow the data set's own flags, --root DIR --encoder NAME ...; "
        "with --json, scores by row",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--no-java", dest="java", action="store_false", help="do not try METEOR and SPICE")
    return parser


def bounds_of_data(name: str, args: list[str], split: str | None, image_ids: list[str]) -> Rows:
    """Floors and ceilings of a split of a data set, see `metrics.baselines.captions`.

    Args:
        name: of the data set.
        args: its flags.
        split: train, val or test; None: test.
        image_ids: images of the references; they must be those of the split.

    Raises:
        UserError: unknown data set, flag or split, or the images are others.
    """
    from commands.data import build_data
    from datamodules.audit.baselines import CaptionBaselines

    if split not in (None, "train", "val", "test"):
        raise UserError(f"--split {split}: --floors knows train, val and test: choose one of these")
    data = build_data(name, args, f"score --floors {name}")
    chosen = cast(Literal["train", "val", "test"], split or "test")
    known = data.references(chosen)
    others = [image_id for image_id in image_ids if image_id not in known]
    if others or len(known) != len(set(image_ids)):
        raise UserError(
            f"--floors {name}: the references have {len(image_ids)} images, {len(others)} of them ({_examples(others)})"
            f" not in split '{chosen}' of {len(known)}; give the references of that split, or --split NAME"
        )
    if data.has_images and data.feature_dim is None:
        _note(
            "rows that look at the pictures (nearest images, predicted class) are left out: add --encoder NAME and "
            "--encoder_weights, such as --encoder torchvision/squeezenet1_0 --encoder_weights imagenet"
        )
    return data.baselines(chosen) or CaptionBaselines(data).scores(chosen)


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)  # stdout is for the scores


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); is the file truncated?"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8 text: expected a JSON file") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply for a caption file: expected COCO or Karpathy JSON") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): give the path of a JSON file") from None


def _field(record: Any, key: str, path: Path, place: str, kinds: tuple[type, ...]) -> Any:
    """``record[key]``, checked to be of one of ``kinds``."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise DataError(f"{path}: {place}: expected an object with {key!r} ({expected}), got {_short(record)}")
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_predictions(path: Path) -> dict[str, str]:
    """Captions by image id, from a COCO results file.

    Raises:
        UserError: No such file, not that format, empty, or two different captions for one image.
    """
    records = _load(path)
    if not isinstance(records, list) or not records:
        raise DataError(
            f'{path}: expected a list of {{"image_id": ..., "caption": "..."}} with one record or more, '
            f"got {_short(records)}"
        )
    captions: dict[str, str] = {}
    for number, record in enumerate(records):
        image_id = str(_field(record, "image_id", path, f"record {number}", (int, str)))
        caption = _field(record, "caption", path, f"record {number}", (str,))
        if captions.setdefault(image_id, caption) != caption:
            raise DataError(
                f"{path}: record {number}: image {image_id} has two different captions "
                f"({_short(captions[image_id])} and {_short(caption)}): keep one caption per image"
            )
    return captions


def read_references(path: Path, predicted: Sequence[str], split: str | None = None) -> tuple[References, str]:
    """References by image id, from COCO caption JSON or Karpathy JSON.

    Args:
        path: The file.
        predicted: Ids of the predictions; a Karpathy file has three ids for an image, the one that most of these match
            is used.
        split: Use only this split of a Karpathy file; None = all.

    Returns:
        The references and the name of the id that was used.

    Raises:
        UserError: No such file, not one of the two formats, no references, or an unknown split.
    """
    content = _load(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if split is not None:
            raise UserError(f"--split {split}: {path} is a COCO file, which has no splits: leave the option out")
        references, id_key = _coco_references(content["annotations"], path), "image_id"
    elif isinstance(content, dict) and isinstance(content.get("images"), list):
        references, id_key = _karpathy_references(content["images"], path, predicted, split)
    else:
        raise DataError(
            f"{path}: expected COCO caption JSON (an object with 'annotations') or Karpathy JSON (an object with "
            f"'images' that have 'sentences'), got {_short(content)}"
        )
    if not references:
        raise DataError(f"{path}: has no reference captions: expected one or more")
    return references, id_key


def _coco_references(annotations: list[Any], path: Path) -> References:
    references: References = {}
    for number, record in enumerate(annotations):
        image_id = str(_field(record, "image_id", path, f"annotation {number}", (int, str)))
        references.setdefault(image_id, []).append(_field(record, "caption", path, f"annotation {number}", (str,)))
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
        sentences = _field(image, "sentences", path, f"image {number}", (list,))
        image_id = str(_field(image, key, path, f"image {number}", (int, str)))
        if image_id in references:
            raise DataError(f"{path}: image {number}: {key} {image_id} occurs twice: expected one record per image")
        captions = [_field(s, "raw", path, f"image {number}, sentence {i}", (str,)) for i, s in enumerate(sentences)]
        if captions:
            references[image_id] = captions
    return references, key


def _matching_key(images: list[Any], predicted: set[str]) -> str:
    """The id of Karpathy files that most predictions match; the first of `_KARPATHY_IDS` among equals."""
    present = [key for key in _KARPATHY_IDS if any(isinstance(image, dict) and key in image for image in images)]
    matches = {
        key: len(predicted & {str(image.get(key)) for image in images if isinstance(image, dict)}) for key in present
    }
    return max(matches, key=matches.__getitem__, default=_KARPATHY_IDS[0])


def check_ids(
    predictions: Mapping[str, str],
    references: Mapping[str, list[str]],
    predictions_path: Path,
    references_path: Path,
    allow_missing: bool = False,
) -> None:
    """Check that every prediction has references and, unless ``allow_missing``, every referenced image a prediction.

    Raises:
        UserError: It is not so; the message counts the images and names three.
    """
    unknown = [image_id for image_id in predictions if image_id not in references]
    if unknown:
        raise UserError(
            f"{predictions_path}: {len(unknown)} of {len(predictions)} predictions are for images without references "
            f"in {references_path}: {_examples(unknown)}; give the references of these images"
        )
    missing = [image_id for image_id in references if image_id not in predictions]
    if missing and not allow_missing:
        raise UserError(
            f"{predictions_path}: no prediction for {len(missing)} of the {len(references)} images in "
            f"{references_path}: {_examples(missing)}; caption these too, or score the rest with --allow-missing"
        )


def _examples(ids: list[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")


def write_table(path: Path, images: ImageScores, predictions: Mapping[str, str]) -> None:
    """Write a CSV file with image id, caption and scores of every image.

    Raises:
        UserError: The file cannot be written.
    """
    columns = images.table()
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image_id", "caption", *SCORES])
            for i, image_id in enumerate(images.image_ids):
                writer.writerow([image_id, predictions[image_id], *(f"{columns[name][i]:.6f}" for name in SCORES)])
    except OSError as error:
        raise UserError(f"--per-image {path}: cannot be written ({error.strerror}): give another file name") from None


def print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print scores, one line per labelled row, one column per score that any row has."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    table = Table("", *names, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, scores in rows.items():
        table.add_row(label, *(f"{scores[name]:.3f}" if name in scores else "-" for name in names))
    Console().print(table)
