"""Options that every command has which can be a job."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands.arguments import Parser, positive
from core.errors import UserError
from core.shards import Shard
from datamodules.sources.base import PictureSource
from datamodules.sources.find import find_source

_DEFAULTS: dict[str, Any] = {
    "shard": None,
    "workers": 2,
    "rows_per_part": 1024,
    "on_bad_image": "error",
    "sidecars": None,
    "subset": None,
    "split": None,
    "engine": "processes",
    "actors": 1,
}
"""Options that mean nothing without --out, and their defaults there."""


def add_job_options(parser: Parser, *, required: bool = False) -> None:
    """Adds the options of a job.

    Args:
        parser: parser of the command.
        required: it is always a job.
    """
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=required,
        metavar="FOLDER",
        help="write a table into this folder, in parts; called again, it goes on. The images are then a folder, a list "
        "(.txt, .csv, .tsv, .jsonl), Parquet files with images, tar archives, or a data set (hf://datasets/OWNER/NAME, "
        "or a folder of save_to_disk); cli.py merge gives one table",
    )
    given = argparse.SUPPRESS  # so that it is known which were given
    add("--shard", type=_shard, default=given, metavar="I/N", help="with --out: only part I of N, from 1 on")
    add("--workers", type=_workers, default=given, help="with --out: processes that decode images; default: 2")
    add(
        "--rows-per-part",
        type=positive,
        default=given,
        help="with --out: images of a file, which a kill costs at most; default: 1024",
    )
    add(
        "--on-bad-image",
        choices=("skip", "error"),
        default=given,
        help="with --out: skip gives an image that cannot be decoded a row with the reason; default: error",
    )
    add(
        "--engine",
        choices=("processes", "ray"),
        default=given,
        help="with --out: ray works on the cluster of $RAY_ADDRESS, else on this machine; default: processes",
    )
    add("--actors", type=positive, default=given, help="with --engine ray: models side by side; default: 1")
    add("--subset", default=given, help="with --out: configuration of a data set on the hub that has several")
    add("--split", default=given, help="with --out: split of a data set; default: all of them")
    add("--sidecars", type=Path, default=given, metavar="FOLDER", help="with --out: also one .txt file for each image")


def job_source(options: argparse.Namespace, *, without: Sequence[str] = ()) -> PictureSource | None:
    """The pictures of a job, with the defaults of its options filled in.

    Args:
        options: options of the command; defaults are added to them.
        without: options of the command that a job does not have.

    Returns:
        None without ``--out``.

    Raises:
        UserError: there are no such pictures, or options do not go together.
    """
    given = [name for name in _DEFAULTS if hasattr(options, name)]
    if options.out is None:
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} needs --out FOLDER: it is an option of jobs")
        return None
    if wrong := [name for name in without if getattr(options, name)]:
        raise UserError(f"--{wrong[0]} and --out exclude each other: leave one of them away")
    for name, value in _DEFAULTS.items():
        setattr(options, name, getattr(options, name, value))
    if "actors" in given and options.engine != "ray":
        raise UserError(f"--actors {options.actors} needs --engine ray: processes have one model")
    if options.skip_bad:
        options.on_bad_image = "skip"
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out}: is a file; expected a folder")
    return find_source(options.images, subset=options.subset, split=options.split)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _workers(text: str) -> int:
    if not text.isdigit() or int(text) > 256:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 256, found '{text}'")
    return int(text)
