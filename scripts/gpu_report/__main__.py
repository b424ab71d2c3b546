"""Measures the methods of this project on a GPU and checks what is promised of it.

    make gpu-report
    python -m scripts.gpu_report --device cpu --small   # tries the report itself, where there is no GPU

It ends with 0 when all promises are kept, with 1 when one is broken, and with 2 where there is no GPU.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from core.files import replacing
from scripts.gpu_report.checks import Plan, Row, measure
from scripts.gpu_report.methods import NAMES
from scripts.gpu_report.page import page
from scripts.gpu_report.resume import ROOT, TOLERANCE, killed_and_resumed, on_two

MINUTES = 27
"""No method is begun after this time."""


def parser() -> argparse.ArgumentParser:
    """Options."""
    made = argparse.ArgumentParser(prog="python -m scripts.gpu_report", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: only to try the report")
    made.add_argument("--small", action="store_true", help="the twins of experiments/offline, a few steps")
    made.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    made.add_argument("--steps", type=int, default=None, help="of the timed runs")
    made.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu-report.md", help="page to write")
    made.add_argument("--skip_runs", action="store_true", help="leave out what is killed and resumed, and two devices")
    return made


def main(args: Sequence[str] | None = None) -> int:
    """Measures, writes the page, and returns the exit code."""
    options = parser().parse_args(args)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here: run this where torch.cuda.is_available(), or try it with --device cpu --small")
        return 2
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    began = time.monotonic()
    rows: list[Row] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = options.steps or (4 if options.small else 20)
        plan = Plan(options.device, options.small, steps, min(3, steps), 0 if options.small else 8, folder)
        notes, problems = ([], []) if options.skip_runs else run_all(folder, options.device, options.small)
        broken += problems
        for method in options.methods:
            if time.monotonic() - began > 60 * MINUTES:
                broken.append(f"{method}: not measured, {MINUTES} minutes were over")
                continue
            row = tried(method, plan, broken)
            if row is not None:
                rows.append(row)
                broken += [f"{method}: {text}" for text in row.broken]
    minutes = (time.monotonic() - began) / 60
    command = "make gpu-report" if args is None and len(sys.argv) == 1 else "python -m scripts.gpu_report ..."
    text = page(rows, [*notes, f"{minutes:.1f} minutes in all"], broken, device=options.device, command=command)
    with replacing(options.out) as file:
        file.write(text.encode())
    for problem in broken:
        print(f"broken: {problem}")
    print(f"written: {options.out}")
    return 1 if broken else 0


def tried(method: str, plan: Plan, broken: list[str]) -> Row | None:
    """Measures a method; a failure is a broken promise, and the next one is measured all the same."""
    start = time.monotonic()
    try:
        row = measure(method, plan)
    except Exception as error:  # whatever it is, it belongs into the report
        said = (str(error).splitlines() or [""])[0]
        broken.append(f"{method}: {type(error).__name__}: {said}")
        return None
    print(f"{method}: {time.monotonic() - start:.0f} s")
    return row


def run_all(folder: Path, device: str, small: bool) -> tuple[list[str], list[str]]:
    """Runs that are killed, resumed, and shared: notes and broken promises."""
    images = 64 if small else 640
    notes: list[str] = []
    broken: list[str] = []
    try:
        distance = killed_and_resumed(folder, device, images)
        notes.append(f"killed with SIGKILL and resumed: weights differ by {distance:.1e} from those of a whole run")
        if distance > TOLERANCE:
            broken.append(f"a resumed run is {distance:.1e} from a whole one, promised {TOLERANCE:.0e}")
    except RuntimeError as error:
        broken.append(f"killed and resumed: {error}")
    count = torch.cuda.device_count() if device == "cuda" else 0
    for strategy in ("ddp", "fsdp") if count > 1 else ():
        try:
            on_two(folder, device, images, strategy)
            notes.append(f"two GPUs, {strategy}: trained")
        except RuntimeError as error:
            broken.append(f"two GPUs, {strategy}: {error}")
    if count < 2:
        notes.append(f"two GPUs: not tried, there {'is one' if count else 'is none'}")
    return notes, broken


def quiet() -> None:
    """Leaves out what Lightning says of every run."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    quiet()
    sys.exit(main())
