"""Share of a training step spent waiting for data, at the defaults of data modules, as a run logs it.

    python benchmarks/data_time.py [--steps 120]

Runs `fit` for so many steps on what is there: synthetic scenes, the captions of UCM-Captions, and JPEG files of COCO
(the full-size dual transfer, a few steps), and reads `throughput/data_time_share` from its metrics.csv. The batches of
a run's first window fill the queue of the loader's processes; they are counted. Data sets are looked for in the folder
that the environment variable CAPTION_DATA names.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import Row, Seconds, add_json_option, print_rows, write_rows

ROOT = Path(__file__).resolve().parents[1]
LOGGED = "throughput/data_time_share"


def runs(steps: int) -> dict[str, list[str]]:
    """Options of `fit` by what they train; data sets that are not there are left out."""
    data = Path(os.environ.get("CAPTION_DATA", "../shared/data")).resolve()
    found = {
        f"{method} on scenes": [
            *(f"--config=experiments/offline/{method.replace(' ', '_')}.yaml", f"--trainer.max_steps={steps}"),
        ]
        for method in ("dual transfer", "attention rnn")
    }
    if (data / "ucm").is_dir():
        found["text autoencoder on UCM-Captions"] = [
            *("--config=experiments/ucm_text_autoencoder.yaml", "--trainer.accelerator=cpu"),
            *(f"--data.init_args.root={data / 'ucm'}", f"--trainer.max_steps={steps}"),
        ]
    if (data / "coco_mini").is_dir() and (data / "tokenizers" / "gpt2").is_dir():
        found["dual transfer on COCO's pictures"] = [
            *("--config=experiments/dual_transfer.yaml", "--trainer.accelerator=cpu", "--trainer.max_steps=4"),
            "--trainer.limit_train_batches=4",  # the end of an epoch is logged, too
            *(f"--data.init_args.root={data / 'coco_mini'}", "--model.init_args.image_weights=null"),
            *(f"--data.init_args.tokenizer={data / 'tokenizers' / 'gpt2'}", "--model.init_args.language_weights=null"),
        ]
    return found


def measure(name: str, words: Sequence[str]) -> Row:
    """Runs `fit` and reads what it logged."""
    with tempfile.TemporaryDirectory() as folder:
        line = [*words, f"--run_dir={folder}/run", "--report=false", "--quiet=true", "--wandb=off"]
        line += ["--trainer.limit_val_batches=0", "--trainer.max_epochs=-1"]
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "cli.py", "fit", *line], cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        with (Path(folder) / "run" / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get(LOGGED)]
    print(f"{name}: {[round(float(row[LOGGED]), 4) for row in rows]}, {seconds:.0f} s", file=sys.stderr, flush=True)
    share = statistics.median(float(row[LOGGED]) for row in rows)
    return Row(figure=f"waiting for data, {name}", kind="share", value=Seconds(share, share), goal=0.05, unit="step")


def main() -> None:
    """Prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    add_json_option(parser)
    options = parser.parse_args()
    rows = [measure(name, words) for name, words in runs(options.steps).items()]
    print_rows(rows)
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
