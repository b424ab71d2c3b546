"""``python cli.py score predictions.json references.json``: metrics for anybody's captions, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from commands.arguments import Parser, dashed
from commands.score_files import check_ids, first_ids, read_predictions, read_references, write_table
from core.errors import UserError
from core.text import say, say_json
from metrics.captions import score_images
from metrics.names import metric

Rows = dict[str, dict[str, float]]


def main(args: list[str]) -> int:
    """Scores captions and prints a table, or with ``--json`` one JSON object.

    Args:
        args: what follows ``score`` on the command line.

    Returns:
        Exit code 0; mistakes of the user are raised.

    Raises:
        UserError: a file is missing, broken or of another format, or predictions and references do not match.
    """
    options, rest = _parser().parse_known_args([_current_name(dashed(arg)) for arg in args])
    if rest and options.baselines is None:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    predictions = read_predictions(options.predictions)
    references, id_key = read_references(options.references, list(predictions), options.split)
    check_ids(
        predictions,
        references,
        predictions_path=options.predictions,
        references_path=options.references,
        allow_missing=options.allow_missing,
    )
    images = score_images(predictions, references)
    scores = images.corpus()
    if options.java:
        from metrics.java import java_scores

        scores |= java_scores(predictions, references, _note)
    if options.per_image is not None:
        write_table(options.per_image, images, predictions)
    rows: Rows = {}
    if options.baselines is not None:
        rows = baselines_of_data(options.baselines, rest, options.split, list(references))
    if options.json:
        say_json({"predictions": scores, **rows} if rows else scores)
    else:
        say(f"{len(predictions)} of {len(references)} images scored; images matched by {id_key}")
        print_table({"predictions": scores, **rows})
    if rows:
        from metrics.baselines.flags import baseline_warning

        if warning := baseline_warning("predictions", scores, rows):
            say(warning, err=True)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "cli.py score",
        description="BLEU-1 to 4, ROUGE-L and CIDEr-D of captions against references, as coco-caption computes them; "
        "METEOR and SPICE too where Java and pycocoevalcap are installed.",
    )
    add = parser.add_argument
    add("predictions", type=Path, help='COCO results JSON: [{"image_id": 1, "caption": "..."}, ...]')
    add("references", type=Path, help="COCO caption JSON or Karpathy JSON")
    add("--split", metavar="NAME", help="of a Karpathy JSON, use only the images of this split, such as test")
    add("--allow-missing", action="store_true", help="score only the images that have a prediction")
    add("--per-image", type=Path, metavar="FILE.csv", help="write the scores of every image")
    add(
        "--baselines",
        metavar="NAME",
        help="add baselines and upper bounds of a data set (names: python cli.py data --help) and report which "
        "baselines the predictions do not beat; flags of the data set follow: --root DIR --encoder NAME ...; with "
        "--json, scores by row",
    )
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--no-java", dest="java", action="store_false", help="do not try METEOR and SPICE")
    return parser


def _current_name(arg: str) -> str:
    """``--floors`` of the version before is read as ``--baselines``."""
    flag, equals, value = arg.partition("=")
    if flag != "--floors":
        return arg
    _note("--floors is now called --baselines")
    return f"--baselines{equals}{value}"


def baselines_of_data(name: str, args: list[str], split: str | None, image_ids: list[str]) -> Rows:
    """Baselines and upper bounds of a split of a data set, see `metrics.baselines.captions`.

    Args:
        name: name of the data set.
        args: its flags.
        split: train, val or test; None: test.
        image_ids: images of the references; they must be those of the split.

    Raises:
        UserError: unknown data set, flag or split, or the images are others.
    """
    from commands.data_sets import build_data, known_name
    from datamodules.audit.baselines import CaptionBaselines

    if split not in (None, "train", "val", "test"):
        raise UserError(f"--split {split}: expected train, val or test with --baselines")
    command = f"score --baselines {name}"
    data, _ = build_data(known_name(name, command), args, command)
    chosen = cast(Literal["train", "val", "test"], split or "test")
    known = data.references(chosen)
    others = [image_id for image_id in image_ids if image_id not in known]
    if others or len(known) != len(set(image_ids)):
        raise UserError(
            f"--baselines {name}: the references have {len(image_ids)} images, {len(others)} of them "
            f"({first_ids(others)}) not in split '{chosen}' of {len(known)}; give the references of that split, or "
            "--split NAME"
        )
    if data.has_images and data.feature_dim is None:
        _note(
            "baselines from images (nearest images, predicted class) are skipped: add --encoder NAME and "
            "--encoder_weights, such as --encoder torchvision/squeezenet1_0 --encoder_weights imagenet"
        )
    return data.baselines(chosen) or CaptionBaselines(data).scores(chosen)


def _note(line: str) -> None:
    say(f"note: {line}", err=True)  # stdout is for the scores


def print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Prints scores, a line per row and a column per metric that any row has."""
    from core.terminal import PlainTable, print_table

    shown = [metric(key) for key in dict.fromkeys(key for scores in rows.values() for key in scores)]
    table = PlainTable(box=None, pad_edge=False)
    table.add_column()
    for item in shown:
        table.add_column(item.title, justify="right")
    for label, scores in rows.items():
        table.add_row(label, *(item.format(scores.get(item.key)) or "-" for item in shown))
    print_table(table)
