"""What benchmarks share: times of ways that take turns, what a step must at least do, and what the machine can do.

A way is a function without arguments. Wall time is that of the clock, processor time that of all threads of this
process and of the processes that it has waited for; where other work shares the machine, only the latter says
something.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")

Kind = Literal["times", "share", "more"]


class Seconds(NamedTuple):
    """Time of one run."""

    wall: float
    processor: float

    def over(self, other: "Seconds") -> "Seconds":
        """Quotients of both times."""
        return Seconds(self.wall / other.wall, self.processor / other.processor)

    def times(self, factor: float) -> "Seconds":
        """Both times scaled."""
        return Seconds(self.wall * factor, self.processor * factor)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        figure: what is measured.
        kind: of `value` and `goal`: how many "times" as fast as the baseline (at least), which "share" of its time
            (at most), or how much "more" than its time, as a share (at most).
        value: by wall and by processor time.
        goal: None: there is none.
        unit: what `ours` and `baseline` are the time of.
        ours: median; None: the value is measured as it is, as is that of a baseline.
        baseline: the same of the baseline.
        dtype: of the matrix products, for the peak that the floor is of.
        flops: that `unit` needs at least.
        bytes: that it must at least read and write.
        threads: of torch.
    """

    figure: str
    kind: Kind
    value: Seconds
    goal: float | None
    unit: str
    ours: Seconds | None = None
    baseline: Seconds | None = None
    dtype: str = "float32"
    flops: float | None = None
    bytes: float | None = None
    threads: int = 1

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Row":
        """The row that `write_rows` wrote."""
        pairs = {name: Seconds(*values[name]) for name in ("value", "ours", "baseline") if values[name] is not None}
        return cls(**{**values, **pairs})


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of `write_rows`."""
    parser.add_argument("--json", type=Path, help="also write the figures into this file")


def write_rows(path: Path | None, rows: Iterable[Row]) -> None:
    """Writes figures as JSON, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def processor_seconds() -> float:
    """Processor time of this process, all threads, and of the processes that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """Wall and processor seconds of named actions."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[Seconds]] = {}

    def time(self, name: str, action: Callable[[], T]) -> T:
        """Runs an action and notes its time."""
        wall, processor = time.perf_counter(), processor_seconds()
        result = action()
        taken = Seconds(time.perf_counter() - wall, processor_seconds() - processor)
        self.seconds.setdefault(name, []).append(taken)
        return result

    def medians(self) -> dict[str, Seconds]:
        """Medians by name."""
        return {name: median(taken) for name, taken in self.seconds.items()}

    def ratio(self, above: str, below: str) -> Seconds:
        """Median of the quotients of two actions that took turns."""
        pairs = zip(self.seconds[above], self.seconds[below], strict=True)
        return median([one.over(other) for one, other in pairs])


def median(values: Iterable[Seconds]) -> Seconds:
    """Of wall and of processor time."""
    wall, processor = zip(*values, strict=True)
    return Seconds(statistics.median(wall), statistics.median(processor))


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int, *, tell: bool = False) -> Clock:
    """Times ways in turns, after a round that is not counted.

    Args:
        ways: by name.
        rounds: that count.
        tell: print every run to the standard error.
    """
    clock, warm_up = Clock(), Clock()
    for turn in range(rounds + 1):
        kept = clock if turn else warm_up
        for name, way in ways.items():
            gc.collect()
            kept.time(name, way)
            if tell:
                wall, processor = kept.seconds[name][-1]
                print(f"run {turn}: {name}: {wall:.2f} s ({processor:.2f} s)", file=sys.stderr, flush=True)
    return clock


def training_step(loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Forward pass, backward pass and update as a way."""

    def step() -> None:
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()

    return step


def work_of(loss_of: Callable[[], Tensor], parameters: Iterable[Tensor]) -> tuple[float, float]:
    """The least that a training step must do, whoever computes it.

    Operations are those of matrix products and convolutions, three times those of the forward pass. Bytes are those of
    the parameters that learn (read in both passes; gradients written and read; the two moments of Adam and the
    parameters read and written: 40 for each in float32), and of what the forward pass keeps for the backward pass,
    written and read once.

    Args:
        loss_of: forward pass in the way that computes least.
        parameters: that learn.

    Returns:
        Floating-point operations and bytes.
    """
    own = [parameter for parameter in parameters if parameter.requires_grad]
    known = {parameter.untyped_storage().data_ptr() for parameter in own}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        loss = loss_of()
    del loss
    weights = sum(parameter.numel() for parameter in own)
    return 3.0 * counter.get_total_flops(), 40.0 * weights + 2.0 * sum(kept.values())


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; without them it is many times slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def peaks(threads: int, seconds: float = 1.0) -> dict[str, float]:
    """What the machine can do with so many threads, by the clock; the best of what fits into some seconds.

    Returns:
        Operations a second of products of square matrices in "float32" and, where there are instructions for it,
        "bfloat16", and bytes a second, read and written, of a copy of memory that no cache holds, "bytes"; the same
        with "processor/" in front for a second of processor time.
    """
    torch.set_num_threads(threads)
    found: dict[str, float] = {}
    size, numbers = 2048, 2**26
    actions: dict[str, tuple[Callable[[], object], float]] = {}
    for name in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        dtype = getattr(torch, name)
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        out = torch.empty_like(a)
        actions[name] = (lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2.0 * size**3)
    source, target = torch.ones(numbers), torch.zeros(numbers)
    actions["bytes"] = (lambda: target.copy_(source), 8.0 * numbers)
    for name, (action, amount) in actions.items():
        clock, end = Clock(), time.perf_counter() + seconds
        while time.perf_counter() < end or len(clock.seconds[name]) < 5:
            clock.time(name, action)
        found[name] = amount / min(taken.wall for taken in clock.seconds[name])
        found[f"processor/{name}"] = amount / min(taken.processor for taken in clock.seconds[name][1:])
    return found


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_rows(rows: Iterable[Row]) -> None:
    """Prints figures in columns, times of the clock and in brackets those of the processor."""
    print(f"{'':56} {'baseline, ms':>20} {'ours, ms':>20} {'quotient':>18}")
    for row in rows:
        parts = [row.baseline, row.ours, row.value]
        if row.kind != "times":
            parts[2] = row.value.times(100)
        scales, mark = (1e3, 1e3, 1), "" if row.kind == "times" else " %"
        cells = [
            "" if part is None else f"{part.wall * scale:.2f} ({part.processor * scale:.2f})"
            for part, scale in zip(parts, scales, strict=True)
        ]
        print(f"{row.figure:56} {cells[0]:>20} {cells[1]:>20} {cells[2]:>16}{mark}", flush=True)
