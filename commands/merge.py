"""``merge``: one table of the parts that a job has written, wherever it ran and however often it was killed."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser, dashed
from core.errors import UserError


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py merge", description=__doc__)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="of one job; several where machines had one each")
    add("--out", type=Path, metavar="FILE", help="Parquet file to write")
    add("--verify", action="store_true", help="read every row, and say which images are there more than once")
    return parser


def main(args: Sequence[str]) -> int:
    """Checks the parts and writes the table; the exit code is 1 when something is missing or differs.

    Raises:
        UserError: a folder holds no job, parts are missing or damaged, or the table cannot be written.
    """
    options: argparse.Namespace = build_parser().parse_args([dashed(arg) for arg in args])
    if options.out is None and not options.verify:
        raise UserError("merge does nothing without --out FILE or --verify: give one or both")
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out {options.out}: is a folder; expected a file, such as {options.out}.parquet")

    from commands.jobs.merging import merge

    merge(options.folders, options.out, verify=options.verify)
    return 0
