"""``data``: prepares a data set, computes its features, or checks every image and caption of it.

``data prepare coco --root DIR`` downloads, verifies and unpacks COCO 2017; after an interruption it continues.
``data prepare ucm_captions --root DIR`` lists which parts are there and where to get the others: their publishers ask
for a form or have no permanent address.
``data features NAME --root DIR --encoder ENCODER`` computes the features of a frozen encoder, which every run on these
images then finds; ``--shard I/N`` computes one part of N, on this machine or another one with the same folders.
``data check NAME --root DIR`` reports what is missing, broken or in two splits; every argument of the data module is a
flag. The exit code is 1 when something has to be fixed.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.arguments import Parser
from commands.data_sets import build_data, data_class, data_sets, known_name, underscored
from core.errors import UserError, command
from core.text import say, say_json

if TYPE_CHECKING:
    from datamodules.audit.checks import Findings
    from datamodules.readers.download import Archive, Progress
    from datamodules.readers.records import Example

_CHECK_OPTIONS = (
    {"flag": "--json", "action": "store_true", "help": "print one JSON object"},
    {"flag": "--limit", "type": int, "default": 20, "help": "problems to list; 0: all"},
)
_FEATURE_OPTIONS = (
    {"flag": "--split", "choices": ["train", "val", "test"], "default": "train", "help": "whose images"},
    {"flag": "--shard", "help": "I/N: compute part I of N only"},
)
_USAGE = "usage: python cli.py data prepare|features|check NAME --root DIR [options]"


def main(args: Sequence[str]) -> int:
    """Prepares a data set, computes its features, or checks it.

    Returns:
        0; 1 when `check` found problems.

    Raises:
        UserError: unknown action, name or value; or the data cannot be downloaded.
    """
    if not args or args[0] in ("-h", "--help"):
        say(*f"{_USAGE}\n\n{__doc__}\nnames: {', '.join(data_sets())}".splitlines())
        return 0
    action, rest = args[0], [underscored(arg) for arg in args[1:]]
    actions = {"prepare": prepare, "features": features, "check": check}
    if action not in actions:
        raise UserError(f"'{action}' is unknown: expected prepare, features or check ({_USAGE})")
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"data {action}: expected the data set's name first, one of {', '.join(data_sets())} ({_USAGE})"
        )
    name = known_name(rest[0], f"data {action}")
    return actions[action](name, rest[1:])


def prepare(name: str, args: list[str]) -> int:
    """Downloads a data set.

    Raises:
        UserError: there is nothing to download.
        DataError: the download fails.
    """
    cls = data_class(name)
    address, archives = cls.downloads()
    if archives:
        return _download(name, args, address, archives)
    parser = Parser(f"cli.py data prepare {name}")
    parser.add_argument("--root", type=Path, help="folder of the data set")
    root = parser.parse_args(args).root
    parts = cls.parts_in(root or Path(os.devnull))
    if not parts:
        others = ", ".join(other for other in data_sets() if data_class(other).downloads()[1])
        raise UserError(
            f"only {others} can be downloaded; check the files of {name} with: python cli.py data check {name}"
        )
    if root is None:
        parser.error("the following arguments are required: --root")
    return _explain(name, root, parts)


def _download(name: str, args: list[str], address: str, archives: "Mapping[str, Archive]") -> int:
    """Downloads, verifies and unpacks archives, with the flags of the command."""
    from datamodules.readers import download

    parser = Parser(f"cli.py data prepare {name}")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--parts", nargs="+", choices=list(archives), default=list(archives),
        help=", ".join(f"{part}: {archive.size / 1e9:.1f} GB" for part, archive in archives.items()),
    )  # fmt: skip
    variable = f"CAPTION_{name.upper()}_URL"
    address = os.environ.get(variable, address)
    parser.add_argument("--base_url", default=address, help=f"server or mirror, also ${variable} ({address})")
    parser.add_argument("--keep_archives", action="store_true", help="keep the zip files in the root")
    options = parser.parse_args(args)
    chosen = [archives[part] for part in dict.fromkeys(options.parts)]
    with _progress_of_files() as progress:
        lines = download.prepare(
            options.root, chosen, options.base_url, keep_archives=options.keep_archives, progress=progress
        )
    say(*lines)
    check = command("data", "check", name, "--root", options.root)
    say(f"{name} is in '{options.root}'; check every image with: {check}")
    return 0


def _explain(name: str, root: Path, parts: "Mapping[str, tuple[str, str]]") -> int:
    """Lists which parts of a data set are there and where to get the others; 1 when one is missing."""
    for part, (found, way) in parts.items():
        say(f"{part}: {found}" if found else f"{part}: missing. {way}")
    missing = [part for part, (found, _) in parts.items() if not found]
    if not missing:
        say(f"check every image with: {command('data', 'check', name, '--root', root)}")
    return 1 if missing else 0


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
    from datamodules.stored_features.shards import Shard

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


def check(name: str, args: list[str]) -> int:
    """Checks a data set and prints the findings.

    Returns:
        1 when something has to be fixed.
    """
    data, own = build_data(name, args, f"data check {name}", own=_CHECK_OPTIONS)
    from datamodules.audit.checks import check_data

    # the check finds bad images itself, so none may be skipped before
    skipping, data.on_bad_image = data.on_bad_image == "skip", "error"
    findings = check_data(data, None if own["json"] else _progress_of_examples)
    if skipping:
        findings.skip_bad_images()
    if own["json"]:
        problems = [{"kind": problem.kind, "message": problem.message} for problem in findings.problems]
        result = {"splits": findings.splits, "problems": problems, "notes": findings.notes}
        say_json(result, 1)
    else:
        _print_findings(findings, own["limit"])
    return 1 if findings.problems else 0


def _print_findings(findings: "Findings", limit: int) -> None:
    """Prints the table of splits, the problems and the notes."""
    from core.terminal import PlainTable, print_table

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
    for note in findings.notes:
        say(f"note: {note}")
    for problem in findings.problems[: limit or None]:
        say(f"{problem.kind}: {problem.message}")
    hidden = len(findings.problems) - limit
    if limit and hidden > 0:
        say(f"... and {hidden} more; --limit 0 lists all")
    counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    say(f"{len(findings.problems)} problems ({counts})" if findings.problems else "no problems")


def _progress_of_examples(examples: "Iterable[Example]", total: int) -> "Iterator[Example]":
    """Shows a bar while images are decoded."""
    from core.terminal import with_bar

    yield from with_bar(examples, "decoding images", total)


@contextmanager
def _progress_of_files() -> "Iterator[Progress]":
    """Shows bars for downloads and unpacking, on standard error."""
    from core.terminal import task_bar

    with task_bar() as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield show
