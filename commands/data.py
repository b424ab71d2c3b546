"""``data``: prepares a data set, computes its features, or checks every image and caption of it.

``data prepare NAME --root DIR`` brings COCO, Flickr8k, Socratis, UCM-Captions, Sydney-Captions or RSICD into a folder:
it unpacks what it needs of archives that lie there (``--archives FILE`` elsewhere), downloads what has an address
(``--base_url`` names a mirror), goes on after an interruption, writes files from a table of the hub (``--table ID``),
and says which files are still missing and where they can be had (``--list`` does nothing else).
``data features NAME --root DIR --encoder ENCODER`` computes the features of a frozen encoder, which every run on these
images then finds; ``--shard I/N`` computes one part of N, on this machine or another one with the same folders.
``data export NAME --root DIR --out FOLDER`` writes any of them as a folder of images with a file of captions, which
`folder_captions` reads; ``--captioned .5 --draw_seed 1`` leaves half of the training images their captions.
``data check NAME --root DIR`` reports what is missing, broken or in two splits, and shows how sizes of images, lengths
of captions, labels and words are distributed (``--figures DIR``: as pictures, too); every argument of the data module
is a flag. ``data shard NAME --root DIR --out FOLDER`` converts it to tar archives, from which training streams; NAME
may also be a configuration, ``RUN/config.yaml`` for instance (``--images_per_shard``, ``--splits``). The exit
code is 1 when something has to be fixed.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.data_prepare import prepare
from commands.data_sets import build_data, data_sets, known_name, underscored
from commands.data_shard import shard
from core.errors import UserError
from core.text import say, say_json

if TYPE_CHECKING:
    from datamodules.audit.checks import Findings
    from datamodules.readers.records import Example

_CHECK_OPTIONS = (
    {"flag": "--json", "action": "store_true", "help": "print one JSON object"},
    {"flag": "--limit", "type": int, "default": 20, "help": "problems to list; 0: all"},
    {
        "flag": "--figures",
        "type": Path,
        "default": None,
        "help": "folder for figures of sizes, lengths, labels, words",
    },
)
_FEATURE_OPTIONS = (
    {"flag": "--split", "choices": ["train", "val", "test"], "default": "train", "help": "whose images"},
    {"flag": "--shard", "help": "I/N: compute part I of N only"},
)
_EXPORT_OPTIONS = (
    {"flag": "--out", "type": Path, "default": None, "help": "folder to write"},
    {"flag": "--captioned", "type": float, "default": 1.0, "help": "share of the training images that keep captions"},
    {"flag": "--draw_seed", "type": int, "default": 0, "help": "seed of the draw of these images"},
)
_USAGE = "usage: python cli.py data prepare|features|export|check|shard NAME --root DIR [options]"


def main(args: Sequence[str]) -> int:
    """Prepares a data set, computes its features, checks it, or converts it to shards.

    Returns:
        0; 1 when `check` found problems.

    Raises:
        UserError: unknown action, name or value; or the data cannot be downloaded.
    """
    if not args or args[0] in ("-h", "--help"):
        say(*f"{_USAGE}\n\n{__doc__}\nnames: {', '.join(data_sets())}".splitlines())
        return 0
    action, rest = args[0], [underscored(arg) for arg in args[1:]]
    actions = {"prepare": prepare, "features": features, "export": export, "check": check, "shard": shard}
    if action not in actions:
        raise UserError(f"'{action}' is unknown: expected {', '.join(list(actions)[:-1])} or shard ({_USAGE})")
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"data {action}: expected the data set's name first, one of {', '.join(data_sets())} ({_USAGE})"
        )
    name = rest[0] if action == "shard" else known_name(rest[0], f"data {action}")
    return actions[action](name, rest[1:])


def features(name: str, args: list[str]) -> int:
    """Computes the features of a split's images, or one part of them.

    Returns:
        0.

    Raises:
        UserError: there is no encoder to compute them with, or it cannot be built; no room on the disk.
        DataError: an image cannot be decoded.
    """
    data, own = build_data(name, args, f"data features {name}", skip=("augment",), own=_FEATURE_OPTIONS)
    frozen = data.feature_source.frozen(data.num_workers)
    if frozen is None:
        raise UserError("there is nothing to compute: name an encoder with --encoder (and --encoder_weights)")
    from core.shards import Shard

    shard = None if own["shard"] is None else Shard.parse(own["shard"])
    examples, start = data.examples(own["split"]), time.perf_counter()
    store = frozen.store(examples) if shard is None else frozen.shard(examples, shard)
    images, regions, width = store.shape
    part = "" if shard is None or images == len(examples) else f", part {shard} of {len(examples):,}"
    say(
        f"{store.folder}: {images:,} images{part}, {regions} x {width:,}, {images * regions * width * 2 / 1e9:.2f} GB, "
        f"{time.perf_counter() - start:.0f} s"
    )
    if part:
        say("when all parts are there, the same command without --shard (or the first run) puts them together")
    return 0


def export(name: str, args: list[str]) -> int:
    """Writes images and captions as a folder that `folder_captions` reads.

    Returns:
        0.

    Raises:
        UserError: no folder to write to, or one with other captions.
        DataError: an image cannot be read.
    """
    data, own = build_data(name, args, f"data export {name}", own=_EXPORT_OPTIONS)
    if own["out"] is None:
        raise UserError(f"data export {name}: expected --out FOLDER, where images and captions are to be written")
    from core.terminal import with_bar
    from datamodules.readers.folder_export import export_folder

    def watch(examples: "Iterable[Example]", total: int) -> "Iterable[Example]":
        return with_bar(examples, "writing images", total)

    say(*export_folder(data, own["out"], captioned=own["captioned"], draw_seed=own["draw_seed"], watch=watch))
    return 0


def check(name: str, args: list[str]) -> int:
    """Checks a data set and prints the findings.

    Returns:
        1 when something has to be fixed.
    """
    data, own = build_data(name, args, f"data check {name}", own=_CHECK_OPTIONS)
    # the check finds bad images itself, so none may be skipped before
    skipping, data.on_bad_image = data.on_bad_image == "skip", "error"
    from datamodules.audit.checks import check_data

    findings = check_data(data, None if own["json"] else _progress_of_examples)
    if skipping:
        findings.skip_bad_images()
    if own["json"]:
        problems = [{"kind": problem.kind, "message": problem.message} for problem in findings.problems]
        shown = {
            found.name: {"title": found.title, "counts": found.counts, "total": found.total, "notes": found.notes}
            for found in findings.distributions
        }
        splits = {"splits": findings.splits, "problems": problems, "notes": findings.notes}
        say_json({**splits, "distributions": shown}, 1)
    else:
        _print_findings(findings, own["limit"])
    if own["figures"] is not None:
        _draw(findings, own["figures"])
    return 1 if findings.problems else 0


def _print_findings(findings: "Findings", limit: int) -> None:
    """Prints the table of splits, the problems and the notes."""
    from core.terminal import PlainTable, print_table
    from datamodules.audit.distributions import as_text

    titles = ["split", "images", "captions", "per image", "words (mean)", "words (most)"]
    table = PlainTable()
    for title in titles:
        table.add_column(title)
    for split, row in findings.splits.items():
        fewest, most = row["fewest_captions"], row["most_captions"]
        per_image = f"{fewest:.0f}" if fewest == most else f"{fewest:.0f}-{most:.0f}"
        numbers = [f"{row['images']:,}", f"{row['captions']:,}", per_image, f"{row['mean_words']:.1f}"]
        table.add_row(split, *numbers, f"{row['most_words']:.0f}")
    if findings.splits:
        print_table(table)
    for found in findings.distributions:
        say(*as_text(found), "")
    for note in findings.notes:
        say(f"note: {note}")
    for problem in findings.problems[: limit or None]:
        say(f"{problem.kind}: {problem.message}")
    hidden = len(findings.problems) - limit
    if limit and hidden > 0:
        say(f"... and {hidden} more; --limit 0 lists all")
    counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    say(f"{len(findings.problems)} problems ({counts})" if findings.problems else "no problems")


def _draw(findings: "Findings", folder: Path) -> None:
    """Writes a figure for each distribution."""
    from reporting.data_figures import frequency_figure, histogram_figure
    from reporting.pictures import save_figure

    for found in findings.distributions:
        draw = histogram_figure if found.is_histogram else frequency_figure
        save_figure(draw(found.title, found.counts, found.notes), folder, found.name)


def _progress_of_examples(examples: "Iterable[Example]", total: int) -> "Iterator[Example]":
    """Shows a bar while images are decoded."""
    from core.terminal import with_bar

    yield from with_bar(examples, "decoding images", total)
