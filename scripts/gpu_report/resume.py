"""A run that is killed on the device and resumed, and a run on two devices."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
TOLERANCE = 1e-3
"""Largest difference of a weight, relative to the largest of its tensor: sums on a GPU have no fixed order."""
_SMALL = ("--data.init_args.num_val=8", "--data.init_args.num_test=8", "--wandb=off", "--model.init_args.val_images=4")


def command(folder: Path, images: int, device: str, *more: str) -> list[str]:
    """Trains the offline twin of dual transfer for two epochs."""
    config = str(ROOT / "experiments" / "offline" / "dual_transfer.yaml")
    accelerator = "gpu" if device == "cuda" else "cpu"
    options = [f"--trainer.accelerator={accelerator}", "--trainer.max_epochs=2", "--checkpoint_steps=2"]
    options += [f"--data.init_args.num_train={images}", "--data.init_args.batch_size=8", *_SMALL, *more]
    return [sys.executable, "cli.py", "fit", "--config", config, "--run_dir", str(folder), *options]


def run(line: list[str]) -> None:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the last line that it said.
    """
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise RuntimeError(f"exit code {done.returncode}: {said}")


def killed_and_resumed(folder: Path, device: str, images: int) -> float:
    """Kills a run after its first checkpoint and resumes it; largest difference from a run that was left alone.

    Raises:
        RuntimeError: a command failed, or the run ended before it was killed.
    """
    killed, whole = folder / "killed", folder / "whole"
    process = subprocess.Popen(
        command(killed, images, device),
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.05)
    if process.poll() is not None:
        raise RuntimeError("the run ended before it could be killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    run([sys.executable, "cli.py", "resume", str(killed)])
    run(command(whole, images, device))
    one, two = (weights_of(path) for path in (killed, whole))
    return max(largest_difference(one[name], two[name]) for name in two)


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """Weights of the last checkpoint."""
    path = run_dir / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if value.is_floating_point()}


def largest_difference(one: torch.Tensor, two: torch.Tensor) -> float:
    """Relative to the largest number of a tensor."""
    return float((one - two).abs().max() / two.abs().max().clamp_min(1e-12)) if two.numel() else 0.0


def on_two(folder: Path, device: str, images: int, strategy: str) -> None:
    """Trains on two devices.

    Raises:
        RuntimeError: it failed.
    """
    run(command(folder / strategy, images, device, "--trainer.devices=2", f"--trainer.strategy={strategy}"))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
