"""Cost of what a run shows at its default pace: samples, attention, tables, dashboards, the watch for collapse.

The attention RNN trains on synthetic scenes by the command line, in processes of their own that alternate: without any
of it, and with all of it. Compared are the seconds of training, validations and the loggers' end
included, and the processor's, which other programs disturb less.

    python benchmarks/logging_overhead.py --rounds 3
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ("--wandb=off", "--trainer.callbacks=[]")
SHOWN = ("--wandb=offline", "--tensorboard=true")
CLOCK = """
import sys, time
import commands.trainer.train as train
cls = train.TrainerCLI
fit = cls._run_subcommand
def timed(self, subcommand):
    start = time.perf_counter(), time.process_time()
    fit(self, subcommand)
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"TIMED {seconds} {processor}", file=sys.stderr)
cls._run_subcommand = timed
if sys.argv.pop(1) == "plain":
    cls._watchers = lambda self, given: []
import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def run(kind: str, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Wall and processor seconds of a training run."""
    words = [
        *("fit", f"--config={ROOT / 'experiments/offline/attention_rnn.yaml'}", f"--run_dir={folder}"),
        *(f"--trainer.max_epochs={options.epochs}", f"--data.init_args.num_train={options.images}"),
        *("--data.init_args.num_val=100", "--data.init_args.num_test=20", "--report=false", "--quiet=true"),
        *(PLAIN if kind == "plain" else SHOWN),
    ]
    environment = {**os.environ, "CAPTION_CACHE": str(folder.parent / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CLOCK, kind, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith("TIMED"))
    wall, processor = map(float, line.split()[1:])
    return wall, processor


def main() -> None:
    """Measures rounds and prints medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    quotients: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            kinds = ("plain", "shown") if number % 2 else ("shown", "plain")
            times = {kind: run(kind, Path(name) / f"{kind}{number}", options) for kind in kinds}
            for place, what in enumerate(("wall", "processor")):
                plain, shown = times["plain"][place], times["shown"][place]
                quotients[place].append(shown / plain - 1)
                print(f"round {number} {what:<10} plain {plain:7.1f} s   shown {shown:7.1f} s", flush=True)
    for what, found in zip(("wall", "processor"), quotients, strict=True):
        print(f"{what:<10} {100 * statistics.median(found):+.1f} % (median of {options.rounds} pairs)")
    print(time.strftime("%Y-%m-%d"))


if __name__ == "__main__":
    main()
