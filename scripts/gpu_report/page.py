"""The page of the report: tables of what was measured and a line for every promise that was broken."""

import math
import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from scripts.gpu_report.checks import Row

_PACKAGES = ("torch", "torchvision", "lightning", "transformers", "timm")


def machine(device: str) -> list[str]:
    """What was measured on."""
    names = (
        [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())] if device == "cuda" else []
    )
    hardware = ", ".join(names) if names else f"no GPU: {platform.processor() or platform.machine()}, CPU"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    driver = f", CUDA {torch.version.cuda}" if device == "cuda" else ""
    return [hardware, f"Python {platform.python_version()}, {packages}{driver}", f"commit {commit or 'unknown'}"]


def page(rows: Sequence[Row], notes: Sequence[str], broken: Sequence[str], *, device: str, command: str) -> str:
    """The report in Markdown.

    Args:
        rows: rows of the methods.
        notes: what else was tried, one line each.
        broken: promises that were not kept.
        device: ``cuda`` or ``cpu``.
        command: that measured it.
    """
    lines = [
        "# GPU report",
        "",
        f"Measured {date.today().isoformat()} with `{command}`.",
        "",
    ]
    lines += [f"- {text}" for text in machine(device)]
    if device != "cuda":
        lines += ["", "This report was made without a GPU, to try the report itself: its figures say nothing of one."]
    lines += ["", "## Promises", ""]
    lines += [f"- **broken**: {text}" for text in broken] or ["All were kept."]
    memory = "peak memory, MiB" if device == "cuda" else "kept for the backward pass, MiB"
    lines += ["", "## Losses", "", "Float32 without TF32; no dropout.", ""]
    lines += table(
        ["method", "million parameters", "images", "step", "CPU", "fp32", "bf16", "fp16", "skipped"],
        [losses_of(row) for row in rows],
    )
    lines += ["", "## Speed and memory", ""]
    columns = ["method", "fp32 ms", "bf16 ms", "fp16 ms", "images/s", "captions/s", "waiting", "beam ms"]
    lines += table(columns, [speed_of(row) for row in rows])
    lines += [
        "",
        "Images and captions per second are those of bf16. Waiting: share of the time without a batch, with the",
    ]
    lines += ["loader's processes. Beam: for a picture, 5 beams, 20 tokens.", ""]
    lines += table(["method", f"{memory}", "with checkpointing", "step ms", "with checkpointing"], map(memory_of, rows))
    lines += ["", "## Also", ""] + [f"- {text}" for text in notes]
    return "\n".join(lines) + "\n"


def table(columns: Sequence[str], rows: "Sequence[Sequence[str]] | map[list[str]]") -> list[str]:
    """Lines of a table."""
    cells = [list(columns), ["---"] * len(columns), *(list(row) for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def number(value: float, digits: int = 1) -> str:
    """A number, or nothing where there is none."""
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def losses_of(row: Row) -> list[str]:
    """Losses after as many steps as the CPU made."""
    last = len(row.arms["cpu"].losses) - 1
    shown = [f"{row.arms[arm].losses[last]:.4f}" if arm in row.arms else "" for arm in ("cpu", "fp32", "bf16", "fp16")]
    skipped = str(row.arms["fp16"].overflows) if "fp16" in row.arms else ""
    return [row.name, f"{row.parameters / 1e6:.1f}", str(row.batch_size), str(last + 1), *shown, skipped]


def speed_of(row: Row) -> list[str]:
    """Times of a step, throughput, waiting, beam search."""
    times = [number(row.arms[arm].step_ms) if arm in row.arms else "" for arm in ("fp32", "bf16", "fp16")]
    fast, loader = row.arms["bf16"], row.arms["loader"]
    waiting = "" if math.isnan(loader.waiting) else f"{loader.waiting:.0%}"
    rates = [number(fast.images_per_second), number(fast.captions_per_second)]
    return [row.name, *times, *rates, waiting, number(row.beam_ms)]


def memory_of(row: Row) -> list[str]:
    """Memory and time, with and without checkpointing."""
    plain, less = row.arms["fp32"], row.arms["checkpointing"]
    digits = 0 if plain.memory > 100 else 1
    after = number(less.memory, digits) if row.recomputed else f"{number(less.memory, digits)} (nothing to recompute)"
    return [row.name, number(plain.memory, digits), after, number(plain.step_ms), number(less.step_ms)]
