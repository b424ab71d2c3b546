"""How long commands take until they do something: wall and processor time, of one checkout or of two that take turns.

``python benchmarks/start_times.py [--against CHECKOUT] [--ckpt RUN] [--rounds 3]``

Each command is a process of its own. Of two checkouts the ratio of the medians is printed, too: on a machine that other
work shares it says more than the times do.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OFFLINE = "--config=experiments/offline/attention_rnn.yaml"
FEW = ["--data.init_args.num_train=32", "--data.init_args.num_val=4", "--data.init_args.num_test=4"]


def commands(ckpt: str | None, folder: str) -> dict[str, list[str]]:
    """Command lines by what they are called in the table."""
    step = [*FEW, "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.callbacks=[]", "--wandb=off"]
    found = {
        "--help": ["--help"],
        "fit --help": ["fit", "--help"],
        "error of configuration": ["fit", OFFLINE, "--model.init_args.attention=none"],
        "first training step": ["fit", OFFLINE, *step, "--report=false", f"--run_dir={folder}/run"],
    }
    data = Path(os.environ.get("CAPTION_DATA", "../shared/data")).resolve()
    if (data / "ucm").is_dir():
        found["data check"] = ["data", "check", "ucm_captions", "--root", str(data / "ucm"), "--json"]
    if ckpt is not None:
        found["caption of one picture"] = ["caption", "--ckpt", ckpt, "docs/scene.png"]
    return found


def timed(checkout: Path, words: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "cli.py", *words], cwd=checkout, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints a row of a Markdown table for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--ckpt", help="captioner for the caption of one picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="the command of this name")
    options = parser.parse_args()
    checkouts = [HERE, *([options.against.resolve()] if options.against else [])]
    print("| command | wall, s | processor, s | against, wall | against, processor | ratio of processor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in commands(options.ckpt, ""):
        if options.only not in (None, name):
            continue
        times: list[list[tuple[float, float]]] = [[] for _ in checkouts]
        for _ in range(options.rounds):
            for found, checkout in zip(times, checkouts, strict=True):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(timed(checkout, commands(options.ckpt, folder)[name]))
        medians = [[statistics.median(values) for values in zip(*found, strict=True)] for found in times]
        cells = [f"{value:.2f}" for pair in medians for value in pair]
        ratio = f"{medians[0][1] / medians[1][1]:.2f}" if len(medians) == 2 else ""
        print("| " + " | ".join([name, *cells, *([""] * (4 - len(cells))), ratio]) + " |", flush=True)


if __name__ == "__main__":
    main()
