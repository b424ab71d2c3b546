"""Runs every offline twin for a batch or two, the way its header says: ``python -m scripts.smoke``.

The twins are the files of experiments/offline. Each one runs ``fit`` with ``fast_dev_run``, unless `STAGES` says what
it needs from other twins; a twin that others need trains two batches instead, so that it leaves a checkpoint.
Everything runs in this process, in a temporary folder.
"""

import contextlib
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = ROOT / "experiments" / "offline"

STAGES: dict[str, tuple[str, ...]] = {
    "emotion_pseudo_labels": (
        "predict",
        "--ckpt_path={emotion_teacher}",
        "--data.init_args.tokenizer={emotion_teacher}",
        "--data.init_args.num_train=64",
    ),
    "emotion_student": (
        "fit",
        "--data.init_args.labels={emotion_pseudo_labels}",
        "--data.init_args.source.init_args.tokenizer={emotion_teacher}",
        "--data.init_args.source.init_args.num_train=64",
    ),
    "ucm_distillation": ("fit", "--model.init_args.text_from={ucm_text_autoencoder}"),
    "ucm_captioning": (
        "fit",
        "--model.init_args.text_from={ucm_text_autoencoder}",
        "--model.init_args.image_from={ucm_distillation}",
    ),
}
"""Command and options of the twins that need another one's run; ``{NAME}`` stands for the run folder of twin NAME."""

FAST = ("--trainer.fast_dev_run=true",)
KEPT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--wandb=off")
"""Options of a run whose checkpoint is needed: ``fast_dev_run`` writes none."""
TAIL = 40
"""Lines of a failed run's output that are shown."""


def needs(name: str, stages: Mapping[str, Sequence[str]] = STAGES) -> set[str]:
    """The twins whose runs a twin needs.

    >>> sorted(needs("emotion_student"))
    ['emotion_pseudo_labels', 'emotion_teacher']
    """
    return {found for option in stages.get(name, ()) for found in re.findall(r"{(\w+)}", option)}


def commands(names: Sequence[str], runs: Path, stages: Mapping[str, Sequence[str]] = STAGES) -> dict[str, list[str]]:
    """The command line of every twin, in an order in which each finds what it needs.

    Args:
        names: the twins, files of experiments/offline without their suffix.
        runs: folder of the run folders.
        stages: the twins that need others, see `STAGES`.

    Raises:
        SystemExit: a stage has no file, or needs a twin that has none.
    """
    required = {name: needs(name, stages) for name in sorted(names)}
    missing = {*stages, *set().union(*required.values())} - set(names)
    if missing:
        raise SystemExit(f"error: scripts/smoke.py names {', '.join(sorted(missing))}: no such file in {OFFLINE}")
    folders = {name: runs / name for name in names}
    lines = {}
    for name in TopologicalSorter(required).static_order():
        command, *options = stages.get(name, ("fit",))
        limits = KEPT if any(name in others for others in required.values()) else FAST
        lines[name] = [
            *(command, "--config", str(OFFLINE / f"{name}.yaml"), "--run_dir", str(folders[name])),
            *(option.format_map(folders) for option in options),
            *(limits if command == "fit" else ()),
        ]
    return lines


def smoke(run: Callable[[Sequence[str]], int], names: Sequence[str], folder: Path) -> int:
    """Runs the twins one after the other, a line each, up to the first that fails.

    Args:
        run: takes the arguments of a command line and returns its exit code.
        names: the twins.
        folder: an empty folder for runs and outputs.

    Returns:
        0, or 1 when a twin failed; the end of its output is shown.
    """
    lines = commands(names, folder / "runs")
    began = time.perf_counter()
    for name, line in lines.items():
        start, output = time.perf_counter(), folder / f"{name}.txt"
        with captured(output):
            code = _exit_code(run, line)
        seconds = time.perf_counter() - start
        print(f"{name:<24}{line[0]:<9}{seconds:5.1f} s  {'ok' if code == 0 else 'FAILED'}", flush=True)
        if code != 0:
            print(*output.read_text("utf-8", "replace").splitlines()[-TAIL:], sep="\n")
            print(f"failed: python cli.py {' '.join(line)}")
            return 1
    print(f"{len(lines)} twins ran in {time.perf_counter() - began:.0f} s")
    return 0


def _exit_code(run: Callable[[Sequence[str]], int], line: Sequence[str]) -> int:
    """Runs one command line; what it leaves in the environment ends with it."""
    before = dict(os.environ)
    try:
        return run(line)
    except (Exception, SystemExit):
        traceback.print_exc()
        return 1
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def captured(path: Path) -> Iterator[None]:
    """Sends everything that this process prints to a file, that of libraries with a stream of their own too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def main() -> int:
    """Runs all twins offline, in a temporary folder."""
    import cli

    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "CAPTION_CACHE": str(Path(folder) / "cache")}
        return smoke(cli.main, sorted(path.stem for path in OFFLINE.glob("*.yaml")), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
