"""``data``: fetches a data set, or looks at every picture and caption of one.

``data prepare coco --root DIR`` downloads, checks and unpacks COCO 2017; interrupted, it goes on where it was.
``data prepare ucm_captions --root DIR`` says which of its parts are there and where the others come from: their
publishers ask for a form or have no address that stays.
``data check NAME --root DIR`` says what is missing, broken or in two splits; every argument of the data module is a
flag. The exit code is 1 when something has to be mended.
"""

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.arguments import Parser
from core.errors import UserError

if TYPE_CHECKING:
    from datamodules.audit.checks import Findings
    from datamodules.base import CaptionDataModule
    from datamodules.readers.download import Progress
    from datamodules.readers.records import Example

DATA_MODULES = {
    "coco": ("datamodules.coco", "COCOCaptions"),
    "folder_captions": ("datamodules.folder_captions", "FolderCaptions"),
    "folder_labels": ("datamodules.folder_labels", "FolderLabels"),
    "hub_captions": ("datamodules.hub_captions", "HubCaptions"),
    "flickr8k": ("datamodules.flickr8k", "Flickr8k"),
    "pseudo_labels": ("datamodules.pseudo_labels", "PseudoLabels"),
    "scenes": ("datamodules.scenes.datamodule", "SceneCaptions"),
    "socratis": ("datamodules.socratis", "Socratis"),
    "ucm_captions": ("datamodules.ucm_captions", "UCMCaptions"),
}
"""Data modules by the name of their file: where the class is."""

_SHORT = {"ucm": "ucm_captions", "flickr": "flickr8k"}
_USAGE = "usage: python cli.py data prepare|check NAME --root DIR [options]"


def main(args: Sequence[str]) -> int:
    """Prepares or checks a data set.

    Returns:
        0; 1 when `check` found problems.

    Raises:
        UserError: unknown action, name or value; or the data cannot be fetched.
    """
    if not args or args[0] in ("-h", "--help"):
        print(f"{_USAGE}\n\n{__doc__}\nnames: {', '.join(DATA_MODULES)}")
        return 0
    action, rest = args[0], [underscored(arg) for arg in args[1:]]
    if action not in ("prepare", "check"):
        raise UserError(f"'{action}' is unknown: expected prepare or check ({_USAGE})")
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"data {action}: expected the data set's name first, one of {', '.join(DATA_MODULES)} ({_USAGE})"
        )
    name = rest[0].replace("-", "_")
    name = _SHORT.get(name, name)
    if name not in DATA_MODULES:
        raise UserError(f"there is no data set '{rest[0]}': expected one of {', '.join(DATA_MODULES)}")
    return prepare(name, rest[1:]) if action == "prepare" else check(name, rest[1:])


def prepare(name: str, args: list[str]) -> int:
    """Fetches a data set.

    Raises:
        UserError: it cannot be fetched by a command.
        DataError: the download fails.
    """
    if name == "ucm_captions":
        return _explain_ucm(args)
    if name != "coco":
        raise UserError(f"{name} has nothing to download; only coco has. Look at your files with: data check {name}")
    from datamodules.readers import download

    parser = Parser("cli.py data prepare coco")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--parts", nargs="+", choices=list(download.COCO_ARCHIVES), default=list(download.COCO_ARCHIVES),
        help="what to fetch; train has 19 GB",
    )  # fmt: skip
    address = os.environ.get("CAPTION_COCO_URL", download.COCO_URL)
    parser.add_argument("--base_url", default=address, help=f"server or mirror, also $CAPTION_COCO_URL ({address})")
    parser.add_argument("--keep_archives", action="store_true", help="leave the zip files in the root")
    options = parser.parse_args(args)
    archives = [download.COCO_ARCHIVES[part] for part in dict.fromkeys(options.parts)]
    with _progress_of_files() as progress:
        lines = download.prepare(
            options.root, archives, options.base_url, keep_archives=options.keep_archives, progress=progress
        )
    print("\n".join(lines))
    print(f"COCO is in {options.root}; look at every picture with: python cli.py data check coco --root {options.root}")
    return 0


def _explain_ucm(args: list[str]) -> int:
    """Says which parts of UCM-Captions are there and where the others come from; 1 when one is missing."""
    from datamodules.ucm_captions import parts_of

    parser = Parser("cli.py data prepare ucm_captions")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    root = parser.parse_args(args).root
    parts = parts_of(root)
    for name, (found, way) in parts.items():
        print(f"{name}: {found}" if found else f"{name}: missing. {way}")
    missing = [name for name, (found, _) in parts.items() if not found]
    if not missing:
        print(f"look at every picture with: python cli.py data check ucm_captions --root {root}")
    return 1 if missing else 0


def check(name: str, args: list[str]) -> int:
    """Looks at a data set and prints what was found.

    Returns:
        1 when something has to be mended.
    """
    data, as_json, limit = _data_module(name, args)
    from datamodules.audit.checks import check_data

    findings = check_data(data, None if as_json else _progress_of_examples)
    if as_json:
        problems = [{"kind": problem.kind, "message": problem.message} for problem in findings.problems]
        result = {"splits": findings.splits, "problems": problems, "notes": findings.notes}
        print(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        _print_findings(findings, limit)
    return 1 if findings.problems else 0


def underscored(arg: str) -> str:
    """Makes dashes inside a flag's name underscores; its value stays.

    >>> underscored("--captions-file=my-file.csv")
    '--captions_file=my-file.csv'
    """
    if not arg.startswith("--"):
        return arg
    flag, equals, value = arg[2:].partition("=")
    return f"--{flag.replace('-', '_')}{equals}{value}"


def build_data(name: str, args: list[str], command: str) -> "CaptionDataModule":
    """Builds a data module from flags as they are typed.

    Args:
        name: key of `DATA_MODULES`, dashes or underscores.
        args: its constructor's arguments as flags, dashes or underscores.
        command: what was typed before them, for error messages.

    Raises:
        UserError: unknown name or flag, or a wrong value.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    key = name.replace("-", "_")
    if key not in DATA_MODULES:
        raise UserError(f"{command}: there is no data set '{name}': expected one of {', '.join(DATA_MODULES)}")
    module, class_name = DATA_MODULES[key]
    data_class = getattr(importlib.import_module(module), class_name)
    parser = ArgumentParser(prog=f"cli.py {command}", allow_abbrev=False, exit_on_error=False)
    parser.add_class_arguments(data_class)
    try:
        values = parser.instantiate(parser.parse_args([underscored(arg) for arg in args]))
        data: CaptionDataModule = data_class(**vars(values))
    except ArgumentError as error:
        hint = f"python cli.py data check {key} --help lists the data set's flags"
        raise UserError(f"{command}: {' '.join(str(error).split())} ({hint})") from error
    return data


def _data_module(name: str, args: list[str]) -> "tuple[CaptionDataModule, bool, int]":
    """Builds the data module from flags; also returns --json and --limit."""
    from jsonargparse import ArgumentError, ArgumentParser

    module, class_name = DATA_MODULES[name]
    data_class = getattr(importlib.import_module(module), class_name)
    parser = ArgumentParser(prog=f"cli.py data check {name}", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--limit", type=int, default=20, help="problems to list; 0 = all")
    # the check finds bad pictures itself, so nothing may be left out before
    parser.add_class_arguments(data_class, skip={"on_bad_image"})
    try:
        # a data module may have others as arguments
        values: dict[str, Any] = vars(parser.instantiate(parser.parse_args(args)))
    except ArgumentError as error:
        hint = f"python cli.py data check {name} --help lists the flags"
        raise UserError(f"data check {name}: {' '.join(str(error).split())} ({hint})") from error
    as_json, limit = values.pop("json"), values.pop("limit")
    return data_class(**values), as_json, limit


def _print_findings(findings: "Findings", limit: int) -> None:
    """Prints the table of splits, the problems and the notes."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    titles = ["split", "images", "captions", "per image", "words (mean)", "words (most)"]
    table = Table(*titles)
    for split, row in findings.splits.items():
        fewest, most = row["fewest_captions"], row["most_captions"]
        per_image = f"{fewest:.0f}" if fewest == most else f"{fewest:.0f}-{most:.0f}"
        numbers = [f"{row['images']:,}", f"{row['captions']:,}", per_image, f"{row['mean_words']:.1f}"]
        table.add_row(split, *numbers, f"{row['most_words']:.0f}")
    if findings.splits:
        console.print(table)
    # plain prints: file names may have brackets, and a line must stay a line
    for note in findings.notes:
        print(f"note: {note}")
    for problem in findings.problems[: limit or None]:
        print(f"{problem.kind}: {problem.message}")
    hidden = len(findings.problems) - limit
    if limit and hidden > 0:
        print(f"... and {hidden} more; --limit 0 lists all")
    counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    print(f"{len(findings.problems)} problems ({counts})" if findings.problems else "no problems")


def _progress_of_examples(examples: "Iterable[Example]", total: int) -> "Iterator[Example]":
    """Shows a bar while pictures are decoded."""
    from rich.console import Console
    from rich.progress import track

    yield from track(examples, "decoding pictures", total=total, console=Console(stderr=True), transient=True)


@contextmanager
def _progress_of_files() -> "Iterator[Progress]":
    """Shows bars for downloads and unpacking, on standard error."""
    from rich import progress
    from rich.console import Console

    columns = ("{task.description}", progress.BarColumn(), "{task.percentage:>3.0f}%", progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, progress.TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield show
