"""What is promised of every method, and what is measured beside it."""

import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from datamodules.base import CaptionDataModule
from lightning_modules.base import BaseModule
from scripts.gpu_report.measure import Arm, beam_ms, train
from scripts.gpu_report.methods import Size, make_data, make_module

FIRST, LAST, MIXED = 1e-4, 1e-2, 3e-2
"""Relative distances of losses: of the first and the last step from the CPU's; in mixed precision from float32."""
MOST_SKIPPED = 2
"""Steps that a loss scaler may skip at the start, while it looks for its scale."""


@dataclass
class Row:
    """What was measured of a method.

    Attributes:
        name: name of the experiment.
        parameters: parameters of the network.
        batch_size: images.
        arms: runs by their name: ``cpu``, ``fp32``, ``bf16``, ``fp16``, ``checkpointing``, ``loader``.
        beam_ms: time of the beam search for a picture, milliseconds; NaN for a method that writes nothing.
        recomputed: parts that checkpointing recomputes.
        broken: promises that were not kept.
    """

    name: str
    parameters: int = 0
    batch_size: int = 0
    arms: dict[str, Arm] = field(default_factory=dict)
    beam_ms: float = math.nan
    recomputed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: the twins of experiments/offline instead of the published sizes.
        steps: steps of the timed runs.
        compared: steps that are made on the CPU, too.
        workers: workers of the loader, in the run that is to show whether it keeps up.
        folder: for what Lightning writes.
    """

    device: str
    small: bool
    steps: int
    compared: int
    workers: int
    folder: Path


def measure(name: str, plan: Plan) -> Row:
    """Makes all runs of a method."""
    row = Row(name)
    data = data_for(name, plan, 0)
    for arm, options, settings in arms_of(plan):
        module = make_module(name, data, plan.small, **options)
        module.inference = {"method": module.method, **data.describe()}
        release()
        steps = plan.compared if arm == "cpu" else plan.steps
        device = "cpu" if arm == "cpu" else plan.device
        row.arms[arm] = train(alone(module), data, plan.folder, device=device, steps=steps, **settings)
        row.parameters = sum(parameter.numel() for parameter in module.parameters())
        if options:
            row.recomputed = module.recomputed_parts()
        if arm == "fp32":
            row.beam_ms = beam_ms(module, data, plan.device, beams=5, tokens=20)
    row.batch_size = data.batch_size
    loading = data_for(name, plan, plan.workers)
    module = alone(make_module(name, loading, plan.small))
    row.arms["loader"] = train(
        module, loading, plan.folder, device=plan.device, steps=plan.steps, precision="bf16-mixed"
    )
    release()
    row.broken = list(broken_promises(row))
    return row


def arms_of(plan: Plan) -> Iterator[tuple[str, dict[str, bool], dict[str, str]]]:
    """Runs of a method: name, options, settings."""
    yield "cpu", {}, {}
    yield "fp32", {}, {}
    yield "bf16", {}, {"precision": "bf16-mixed"}
    if plan.device == "cuda":  # Lightning has none on a CPU
        yield "fp16", {}, {"precision": "16-mixed"}
    yield "checkpointing", {"gradient_checkpointing": True}, {}


def alone(module: BaseModule) -> BaseModule:
    """Lets a stage train without the run of the stage before it."""
    module.init_from = "random weights"
    module.load_stage = lambda path: None  # type: ignore[method-assign]  # there is nothing to load
    return module


def data_for(name: str, plan: Plan, workers: int) -> CaptionDataModule:
    """Enough scenes for all steps."""
    probe = make_data(name, Size(1, None, 0), plan.small)
    batch = min(probe.batch_size, 8) if plan.small else probe.batch_size
    return make_data(name, Size((plan.steps + 1) * batch, batch, workers), plan.small)


def release() -> None:
    """Gives memory back before the next run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def broken_promises(row: Row) -> Iterator[str]:
    """What was promised and is not so."""
    cpu, single, less = (row.arms[name] for name in ("cpu", "fp32", "checkpointing"))
    for name, arm in row.arms.items():
        if not all(math.isfinite(loss) for loss in arm.losses):
            yield f"{name}: a loss is not finite"
        if arm.overflows > MOST_SKIPPED:
            yield f"{name}: {arm.overflows} steps overflowed"
    last = len(cpu.losses) - 1
    for step, most in ((0, FIRST), (last, LAST)):
        if (distance := apart(single.losses[step], cpu.losses[step])) > most:
            yield f"loss of step {step + 1} is {distance:.1e} from the CPU's, relative; promised {most:.0e}"
    for name in ("bf16", "fp16", "checkpointing"):
        if name in row.arms and (distance := apart(row.arms[name].losses[last], single.losses[last])) > MIXED:
            yield f"{name}: loss of step {last + 1} is {distance:.1e} from that of float32, promised {MIXED:.0e}"
    if row.recomputed and less.memory >= single.memory:
        yield f"gradient checkpointing takes {less.memory:.0f} MiB instead of {single.memory:.0f}"


def apart(value: float, reference: float) -> float:
    """Relative distance of two losses."""
    return abs(value - reference) / max(abs(reference), 1e-12)
