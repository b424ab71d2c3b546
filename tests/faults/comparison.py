"""What must be the same in a run that met faults and in one that was left alone."""

import csv
import functools
import json
from pathlib import Path
from typing import Any

import torch

from core.checkpoints import is_checkpoint, load_values
from core.sharded import is_sharded, pieces

PARTS = (
    "state_dict",
    "current_model_state",
    "optimizer_states",
    "lr_schedulers",
    "global_step",
    "epoch",
    "inference",
    "hyper_parameters",
)
"""Entries of a checkpoint that are compared bit for bit; of Lightning's loop counters nothing reads what differs."""
PATHS = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models", "current_score")
"""What callbacks note of files, and of the last validation."""
FILES = ("predictions.json", "reconstructions.json", "metrics.json")


def differences(one: Any, other: Any, place: str) -> list[str]:
    """Where two trees of values differ, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = (
            one.shape == other.shape
            and one.dtype == other.dtype
            and torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))
        )
        return [] if same else [f"{place} differs"]
    if isinstance(one, dict) and isinstance(other, dict):
        found = [f"{place}.{key} is in one only" for key in one.keys() ^ other.keys()]
        return found + [
            line for key in one.keys() & other.keys() for line in differences(one[key], other[key], f"{place}.{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [
            line for k, pair in enumerate(zip(one, other, strict=True)) for line in differences(*pair, f"{place}[{k}]")
        ]
    return (
        [] if type(one) is type(other) and (one == other or one != one) else [f"{place}: {one!r:.60} and {other!r:.60}"]
    )


@functools.lru_cache(maxsize=64)
def _reference(path: Path) -> dict[str, Any]:
    return read(path)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint; the weights and the optimiser's state of one in parts as the parts have them."""
    if is_sharded(path):
        return {**load_values(path), "optimizer_states": pieces(path)}
    return dict(torch.load(path, weights_only=True))


def _callbacks(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """States of the callbacks without their paths; keys name the class, not its settings, which hold paths too."""
    return {
        key.split("{")[0]: {name: value for name, value in state.items() if name not in PATHS}
        for key, state in checkpoint.get("callbacks", {}).items()
    }


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without those of the clock."""
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: row[k] for k in sorted(row) if not k.startswith("throughput")} for row in csv.DictReader(file)]


def leftovers(folder: Path) -> list[str]:
    """Files of processes that are no more."""
    marks = (".tmp", ".lock", ".owner", ".partial")
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if any(mark in path.name for mark in marks)
    )


def compare(alone: Path, run: Path) -> list[str]:
    """What is not the same in two runs."""
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        one, other = alone / "checkpoints" / name, run / "checkpoints" / name
        if is_checkpoint(one) != is_checkpoint(other):
            found.append(f"{name} is in one only")
        elif is_checkpoint(one):
            try:
                first, second = _reference(one), read(other)
            except Exception as error:  # a dozen types
                found.append(f"{name} cannot be read: {error!s:.100}")
                continue
            for part in PARTS:
                found += differences(first.get(part), second.get(part), f"{name} {part}")[:3]
            found += differences(_callbacks(first), _callbacks(second), f"{name} callbacks")[:3]
    found += _compare_rows(rows(alone), rows(run))
    for name in FILES:
        contents = [(folder / name).read_bytes() if (folder / name).is_file() else None for folder in (alone, run)]
        if contents[0] != contents[1]:
            found.append(f"{name} differs")
    return found + [f"left over: {name}" for name in leftovers(run)]


def _compare_rows(expected: list[dict[str, str]], found: list[dict[str, str]]) -> list[str]:
    if expected == found:
        return []
    lost = [row for row in expected if row not in found]
    new = [row for row in found if row not in expected]
    doubled = len(found) - len({json.dumps(row) for row in found})
    shown = [{key: value for key, value in row.items() if value} for row in [*lost[:1], *new[:1]]]
    return [f"metrics.csv: {len(lost)} rows lost, {len(new)} others, {doubled} doubled: {str(shown)[:300]}"]
