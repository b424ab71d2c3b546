"""Cost of what keeps a run safe: of its checks in a training step, and of a checkpoint that is written whole.

* step: forward, backward and AdamW of a transformer on noise (19 million parameters; `--small`: 0.4 million), and what
  a run does at the end of a batch: the loss is watched, and a checkpoint may be due.
* checkpoint: a file of that model with its optimiser by `torch.save`, flushed to the disk and put in place of the old
  one, and `AtomicCheckpointIO`, which also looks for weights that are not finite while it writes. The checksums by
  which damage is noticed are in both, since torch writes them anyway; what they cost is printed by itself.

Rounds alternate. What a step has more is timed by itself, 50 times a round, since it is far below the noise of a step.
The row of metrics.csv and the lock of a folder are timed by themselves, too.

    python benchmarks/reliability_overhead.py --rounds 9
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from core.locks import FolderLock
from reporting.loggers import CSVFile

CALLS = 50


def make_model(width: int, layers: int) -> nn.Module:
    """A transformer: what is measured beside it does not depend on its kind."""
    layer = nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, width: int) -> Callable[[], Tensor]:
    """One optimiser step on noise; returns its loss."""
    noise = torch.randn(8, 24, width)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(noise).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def fake_trainer(loops: Any) -> Any:
    """What `LastCheckpoint` asks of a trainer at the end of a batch when nothing is due."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)  # noqa: A006
    return SimpleNamespace(global_step=0, strategy=strategy, fit_loop=loops, loggers=[], fast_dev_run=False)


def time_of(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_steps(step: Callable[[], Tensor], after: Callable[[Tensor], object], rounds: int) -> None:
    """Prints how much longer a step is by what comes after it."""
    steps, more = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        loss = step()
        between = time.perf_counter()
        for _ in range(CALLS):
            after(loss)
        steps.append(between - start)
        more.append((time.perf_counter() - between) / CALLS)
    one, other = (1e3 * statistics.median(found[1:]) for found in (steps, more))  # the first round warms up
    print(
        f"{'training step':<24} {one:9.2f} ms, checks {other:.3f} ms: {100 * other / one:+.3f} % (medians of {rounds})"
    )


def compare_files(name: str, plain: Callable[[], object], safe: Callable[[], object], rounds: int) -> None:
    """Lets both take turns and prints their medians: seconds on the clock, and of processors in all threads.

    On a machine that others use, only the latter say something.
    """
    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for number in range(rounds + 1):
        for place in (0, 1) if number % 2 else (1, 0):
            busy = time.process_time()
            seconds = time_of((plain, safe)[place])
            if number:  # the first round warms up
                times[place].append((seconds, time.process_time() - busy))
    for kind, label in enumerate((name, f"{name}, processors")):
        one, other = (1e3 * statistics.median(pair[kind] for pair in found) for found in times)
        more = f"{100 * (other / one - 1):+.2f} % (medians of {rounds})"
        print(f"{label:<36} {one:9.2f} ms, safe {other:.2f} ms: {more}")


def save_plain(content: dict[str, Any], path: Path) -> None:
    """A checkpoint in place of the old one, flushed to the disk; nothing is checked or told."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_without_checksums(content: dict[str, Any], path: Path) -> None:
    """The same without the checksums that torch writes if it is not told otherwise."""
    torch.serialization.set_crc32_options(False)
    try:
        save_plain(content, path)
    finally:
        torch.serialization.set_crc32_options(True)


def main() -> None:
    """Measures both, and how long a folder's lock takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    width, layers = (128, 2) if options.small else (512, 6)
    model = make_model(width, layers)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    step = make_step(model, optimizer, width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        last, trainer = LastCheckpoint(folder / "never.ckpt"), fake_trainer(None)
        batch = {"image_id": [str(number) for number in range(8)]}

        def after(loss: Tensor) -> None:
            trainer.global_step += 1
            last.on_train_batch_end(trainer, None, {"loss": loss}, batch, 0)  # type: ignore[arg-type]  # a stand-in

        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters")
        compare_steps(step, after, options.rounds)
        logger, rows = CSVFile(folder), 200
        seconds = time_of(lambda: [logger.log_metrics({"train/loss": 1.0, "epoch": 0.0}, n) for n in range(rows)])
        print(f"{'a row of metrics.csv':<24} {1e3 * seconds / rows:.3f} ms, every log_every_n_steps (10) steps")
        content = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
        writer = AtomicCheckpointIO()
        compare_files(
            "checkpoint",
            lambda: save_plain(content, folder / "plain.ckpt"),
            lambda: writer.save_checkpoint(content, folder / "safe.ckpt"),
            options.rounds,
        )
        compare_files(
            "torch's checksums",
            lambda: save_without_checksums(content, folder / "plain.ckpt"),
            lambda: save_plain(content, folder / "plain.ckpt"),
            options.rounds,
        )
        print(
            f"{'lock of a folder':<24} {1e3 * time_of(lambda: FolderLock(folder / 'run').release()):.2f} ms, once a run"
        )


if __name__ == "__main__":
    main()
