"""Trains every offline twin here and at another commit, and compares what was logged, digit by digit.

    python -m scripts.same_numbers REVISION [--only NAME ...] [--keep FOLDER]

The proof that a refactoring moves no number: every twin of experiments/offline, and the variants below, train for two
short epochs with their fixed seeds, first in a temporary worktree of the other commit, then here, with the same Python
and two threads. All values of metrics.csv but the throughput are compared as text. The exit code is 1 when one differs
or a run is missing. About five minutes on two cores.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.renamed import METRICS, OPTIONS
from scripts.smoke import OFFLINE, ROOT, STAGES, commands

SHORT = (
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=12",
    "--trainer.limit_val_batches=2",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--wandb=off",
)
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "attention_rnn_own_encoder": (
        "attention_rnn",
        {
            "data.init_args.encoder": "null",
            "model.init_args.image_encoder": "small-conv",
            "model.init_args.unfreeze_epoch": "1",
            "model.init_args.bag_of_words_weight": "0.5",
            "model.init_args.mbr_reranking": "true",
            "model.init_args.beams": "3",
            "model.init_args.retrieval_images": "2",
        },
    ),
    "ucm_multilabel_phases": (
        "ucm_multilabel",
        {"model.init_args.fine_tune_epochs": "1", "model.init_args.mixup": "0.2"},
    ),
    "ucm_distillation_both": ("ucm_distillation", {"model.init_args.text_lr_factor": "0.1"}),
}
"""Name to the twin it starts from and the options that differ."""

WORKER = """
import json, os, sys, traceback
import cli
before = dict(os.environ)
for name, line in json.load(sys.stdin).items():
    try:
        code = cli.main(line)
    except BaseException:
        traceback.print_exc()
        code = 1
    os.environ.clear()
    os.environ.update(before)
    print(f"{name}: exit code {code}", file=sys.stderr, flush=True)
"""
"""Runs command lines one after the other in one process: importing the libraries takes longer than such a run."""


def lines_of(tree: Path, runs: Path, only: Sequence[str]) -> dict[str, list[str]]:
    """The command lines for a checkout, twins first, with the option names that it knows.

    Args:
        tree: root of the checkout.
        runs: folder of the run folders.
        only: names of twins and variants; empty for all.
    """
    twins = sorted(path.stem for path in (tree / "experiments/offline").glob("*.yaml"))
    stages = {name: options for name, options in STAGES.items() if name in twins}
    lines = {}
    for name, line in commands(twins, runs, stages).items():
        lines[name] = [option.replace(str(OFFLINE), "experiments/offline") for option in line]
        if line[0] == "fit":
            lines[name] = [option for option in lines[name] if not option.startswith(("--trainer.", "--wandb"))]
            lines[name] += SHORT
    for name, (twin, options) in VARIANTS.items():
        if twin in lines:
            line = [option.replace(str(runs / twin), str(runs / name)) for option in lines[twin]]
            lines[name] = line + [f"--{_known(option, tree)}={value}" for option, value in options.items()]
    return {name: line for name, line in lines.items() if not only or name in only}


def _known(option: str, tree: Path) -> str:
    """The name of an option in a checkout that is older than the present names."""
    if (tree / "core/renamed.py").exists():
        return option
    section, _, name = option.rpartition(".")
    old = {new: name for name, new in OPTIONS.items()}
    return f"{section}.{old.get(name, name)}"


def train(tree: Path, lines: Mapping[str, Sequence[str]], cache: Path) -> None:
    """Runs command lines in a checkout, in a process of its own; what fails is seen by its missing metrics."""
    surroundings = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "2",
        "CAPTION_CACHE": str(cache),
        "PYTHONPATH": "",
    }
    command = [sys.executable, "-c", WORKER]
    text = json.dumps(lines)
    done = subprocess.run(command, input=text, cwd=tree, env=surroundings, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {tree}: the process ended with code {done.returncode}\n{done.stderr[-2000:]}")
    failed = [line for line in done.stderr.splitlines() if ": exit code " in line and not line.endswith(" 0")]
    if failed:
        raise SystemExit(f"error: {tree}: {'; '.join(failed)}\n{done.stderr[-3000:]}")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without throughput, metric names as they are now."""
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{_now(key): value for key, value in row.items() if not key.startswith("throughput")} for row in found]


def _now(key: str) -> str:
    split, slash, name = key.rpartition("/")
    return f"{split}{slash}{METRICS.get(name, name)}"


def differences(before: Sequence[Mapping[str, str]], now: Sequence[Mapping[str, str]]) -> tuple[int, list[str]]:
    """Compares two runs, value by value at the same step.

    Columns and rows that only the newer run has do not count; an older value that is gone does.

    Returns:
        Number of values compared, and a line for each difference.

    >>> differences([{"step": "1", "loss": "2.5"}], [{"step": "1", "lr": ".1"}, {"step": "1", "loss": "2.5"}])
    (1, [])
    >>> differences([{"step": "1", "loss": "2.5"}], [{"step": "1", "loss": "2.50001"}])
    (1, ['step 1: loss 2.5 -> 2.50001'])
    """
    found = []
    old, new = _values(before), _values(now)
    for place, values in old.items():
        for number, value in enumerate(values):
            theirs = new.get(place, [])[number : number + 1] or ["gone"]
            if value != theirs[0]:
                found.append(f"step {place[0]}: {place[1]} {value} -> {theirs[0]}")
    return sum(map(len, old.values())), found


def _values(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    """What was logged under a name at a step, in order."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for key, value in row.items():
            if value != "" and key != "step":
                found.setdefault((row.get("step", ""), key), []).append(value)
    return found


def compare(before: Path, now: Path, names: Sequence[str]) -> int:
    """Prints a line for each run and returns how many of them differ."""
    total = bad = compared = 0
    for name in names:
        files = before / name / "metrics.csv", now / name / "metrics.csv"
        if not all(file.exists() for file in files):
            if any(file.exists() for file in files):
                bad += 1
                print(f"{name:<28} only on one side")
            continue
        count, found = differences(rows(files[0]), rows(files[1]))
        total += count
        compared += 1
        bad += bool(found)
        print(f"{name:<28}{count:>6} values  {'identical' if not found else f'{len(found)} differ: {found[0]}'}")
    print(f"{total} values in {compared} runs, {bad} runs differ")
    return bad + (total == 0)


def main() -> int:
    """Checks the other commit out into a temporary folder, trains there and here, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("revision", help="commit, branch or tag to compare with")
    parser.add_argument("--only", nargs="+", default=[], help="twins and variants to train (default: all)")
    parser.add_argument("--keep", type=Path, help="folder for the runs of both sides (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree, runs = Path(folder) / "tree", (options.keep or Path(folder)).resolve()
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), options.revision], check=True)
        try:
            old = lines_of(tree, runs / "before", options.only)
            new = lines_of(ROOT, runs / "now", [*old])
            train(tree, old, Path(folder) / "cache_before")
            train(ROOT, new, Path(folder) / "cache_now")
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
        return int(compare(runs / "before", runs / "now", list(new)) > 0)


if __name__ == "__main__":
    sys.exit(main())
