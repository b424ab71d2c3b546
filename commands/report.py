"""``report RUN``: the report of a run as one page that needs no other file.

It is written by ``fit`` and ``test`` too: what was run, metrics beside baselines and upper bounds, curves, the best,
worst and random predictions, statistics that show collapse, and facts about the data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed
from core.errors import UserError
from core.text import say

if TYPE_CHECKING:
    from commands.run_report.content import LiveData

FILE = "report.html"
IMAGES = 60


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py report", description=__doc__.split("\n\n")[1] if __doc__ else None)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    add("--out", type=Path, metavar="FILE", help="file to write, for one RUN; default: RUN/report.html")
    add("--images", type=int, default=IMAGES, help="maximum number of images on the page; 0: none")
    add(
        "--trust",
        action="store_true",
        help="accept classes from outside this project in the configurations of runs; their code is run",
    )
    return parser


def main(args: Sequence[str]) -> int:
    """Writes the report of every run.

    Raises:
        UserError: a folder holds no run, or a file in it is broken.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if options.images < 0:
        raise UserError(f"--images {options.images}: expected 0 or more")
    if options.out is not None and len(options.runs) > 1:
        raise UserError(f"--out {options.out} is one file, for {len(options.runs)} runs: give one run, or omit --out")
    for run in options.runs:
        say(f"written: {write_report(run, options.out, images=options.images, trust=options.trust)}")
    return 0


def write_report(
    run: Path, out: Path | None = None, *, images: int = IMAGES, trust: bool = False, live: "LiveData | None" = None
) -> Path:
    """Writes the report of a run; the file is replaced whole or not at all.

    Args:
        run: run folder.
        out: file; None: ``report.html`` in the run folder.
        images: maximum number of images shown.
        trust: the configuration may name anybody's classes.
        live: data module of an evaluation that has just ended.

    Returns:
        The file.

    Raises:
        UserError: the folder holds no run, or a file in it is broken.
    """
    from commands.run_report.content import build_report
    from core.files import write_text
    from reporting.page import render_report

    path = out or run / FILE
    write_text(path, render_report(build_report(run, images=images, trust=trust, live=live)))
    return path
