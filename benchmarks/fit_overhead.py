"""What `fit` costs over a bare training loop, on the same batches, with the same losses to the last bit.

    python benchmarks/fit_overhead.py [--batch_size 16] [--rounds 20]

`fit` trains a dual-transfer captioner on synthetic scenes with everything a run has by default. After every 25 of its
steps a bare loop takes the same 25 steps with a copy of the network: forward pass, loss, backward pass, clipping,
AdamW, warm-up, nothing else. The two take turns in one process, so that other programs disturb both alike; medians of
the quotients are printed. Batches are made before, since the time of data is another question
(`benchmarks/data_time.py`). One thread.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measuring import Clock, Row, Seconds, add_json_option, print_rows, processor_seconds, write_rows
from torch import Tensor
from torch.utils.data import DataLoader

from core.batch import Batch
from datamodules.scenes import SceneCaptions
from networks.losses.tokens import token_loss

STEPS = 25
"""Steps of a turn."""
ROOT = Path(__file__).resolve().parents[1]
CONFIG = "experiments/offline/dual_transfer.yaml"
_FILE = "CAPTION_FIT_OVERHEAD"


class KeptScenes(SceneCaptions):
    """Synthetic scenes whose batches are made once, in one order."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Gives batches that are there already."""
        batches: Any = list(super().train_dataloader())
        return DataLoader(batches, batch_size=None, collate_fn=as_it_is)


def as_it_is(batch: Batch) -> Batch:
    """A batch that is complete; torch's own function would look at each of its captions."""
    return batch


class BareLoop:
    """A training loop without anything that it could do without.

    Args:
        module: whose network and options it copies.
        warmup_steps: of the learning rate.
        clip: largest norm of the gradient.
    """

    def __init__(self, module: Any, warmup_steps: int, clip: float) -> None:
        self.captioner = copy.deepcopy(module.captioner)
        self.parameters = [value for value in self.captioner.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=module.lr, weight_decay=module.weight_decay, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / warmup_steps)
        )
        self.clip = clip

    def run(self, batches: list[Batch]) -> list[Tensor]:
        """Takes a step on each batch and returns the losses."""
        losses = []
        for batch in batches:
            self.optimizer.zero_grad()
            memory = self.captioner.encode(batch)
            output = self.captioner(memory, batch["caption_ids"], batch["caption_lengths"], batch["image_index"])
            loss = token_loss(output.logits, output.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.detach())
        return losses


class Alternating(Callback):
    """Lets the bare loop take its turns, and writes the times."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.batches: list[Batch] = []
        self.losses: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the network before its first step."""
        self.bare = BareLoop(pl_module, pl_module.warmup_steps, float(trainer.gradient_clip_val or 0))
        self.begin = time.perf_counter(), processor_seconds()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Notes loss and batch; after the last step of a turn the bare loop has its own."""
        self.batches.append(batch)
        self.losses.append(outputs["loss"].detach())
        if len(self.batches) < STEPS:
            return
        wall, processor = self.begin
        fit = Seconds(time.perf_counter() - wall, processor_seconds() - processor)
        self.clock.seconds.setdefault("fit", []).append(fit)
        losses = self.clock.time("bare", lambda: self.bare.run(self.batches))
        differ = [step for step, pair in enumerate(zip(losses, self.losses, strict=True)) if not torch.equal(*pair)]
        if differ:
            raise RuntimeError(f"the losses of `fit` and of the bare loop differ, first in step {differ[0]} of a turn")
        self.batches, self.losses = [], []
        Path(os.environ[_FILE]).write_text(json.dumps(self.clock.seconds))
        self.begin = time.perf_counter(), processor_seconds()


def measure(batch_size: int, rounds: int) -> Row:
    """Runs `fit` in a process of its own; the first turn of both is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("fit", f"--config={CONFIG}", f"--run_dir={folder}/run", "--report=false", "--quiet=true"),
            *("--wandb=off", "--data.class_path=benchmarks.fit_overhead.KeptScenes", "--data.init_args.num_workers=0"),
            *(f"--data.init_args.batch_size={batch_size}", f"--trainer.max_steps={STEPS * (rounds + 1)}"),
            *("--trainer.max_epochs=-1", f"--data.init_args.num_train={STEPS * batch_size}"),
            *("--model.init_args.schedule=constant", "--trainer.limit_val_batches=0"),
            "--trainer.callbacks+=benchmarks.fit_overhead.Alternating",
        ]
        times = Path(folder) / "times.json"
        environment = {**os.environ, _FILE: str(times), "OMP_NUM_THREADS": "1", "CAPTION_CACHE": f"{folder}/cache"}
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        done = subprocess.run(
            [sys.executable, "cli.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        clock = Clock()
        clock.seconds = {
            name: [Seconds(*one) for one in taken][1:] for name, taken in json.loads(times.read_text()).items()
        }
    more, spent = clock.ratio("fit", "bare"), clock.medians()
    return Row(
        figure="`fit` over a bare loop",
        kind="more",
        value=Seconds(more.wall - 1, more.processor - 1),
        goal=0.03,
        unit="step",
        ours=spent["fit"].times(1 / STEPS),
        baseline=spent["bare"].times(1 / STEPS),
    )


def main() -> None:
    """Prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16, help="images")
    parser.add_argument("--rounds", type=int, default=20, help=f"turns of {STEPS} steps")
    add_json_option(parser)
    options = parser.parse_args()
    row = measure(options.batch_size, options.rounds)
    print_rows([row])
    write_rows(options.json, [row])


if __name__ == "__main__":
    main()
