"""``tag``: captions pictures for training, with how sure the captioner is of each caption.

The table has a row for each picture: ``caption``, ``log_prob``, ``tokens``, ``confidence`` (geometric mean of the
probabilities of the tokens), ``agreement`` (with the captions of the other beams), and ``source``, the captioner; with
``--samples`` also ``captions``, drawn at random.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from commands.arguments import Parser, dashed, natural, positive
from commands.images import add_model_options, choose_device
from commands.jobs.options import add_job_options, job_source

if TYPE_CHECKING:
    from commands.jobs.tasks import TagTask

BEAMS = 5
"""Least beams: with fewer there is little to agree with."""


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py tag", description=__doc__)
    add_model_options(parser, "+", "a folder of images, a list of them, Parquet files or tar archives")
    parser.add_argument(
        "--beams", type=positive, help=f"beam width; default: the one of the run, and {BEAMS} if that is less"
    )
    parser.add_argument(
        "--samples", type=natural, default=0, help="also draw so many captions of each picture; default: 0, none"
    )
    parser.add_argument("--top-p", type=float, default=0.9, help="probability mass that they are drawn from")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    add_job_options(parser, required=True)
    return parser


def main(args: Sequence[str]) -> int:
    """Writes the table, part by part.

    Raises:
        UserError: no such checkpoint, images or device.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    source = job_source(options)
    assert source is not None, "--out is required"

    from commands.jobs.engine import run_job

    return run_job(partial(make_task, options), source, options, args)


def make_task(options: argparse.Namespace) -> "TagTask":
    """What the job does with a batch, by the options of the command."""
    from commands.jobs.tasks import TagTask
    from lightning_modules import load_captioner

    captioner = load_captioner(options.ckpt, choose_device(options.device))
    beams = options.beams or max(BEAMS, captioner.settings.beams)
    search = captioner.decoding(beams=beams, num_captions=beams)
    sampling = None
    if options.samples:
        sampling = captioner.decoding(sample=True, num_captions=options.samples, top_p=options.top_p)
    return TagTask(model=captioner, decoding=search, sampling=sampling, seed=options.seed)
