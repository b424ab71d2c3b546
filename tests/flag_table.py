"""The table of flags in docs/gpu.md: what it says of a method is what the tests find."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.errors import UserError
from tests.conftest import ROOT
from tests.twins import Case

FLAGS = {
    "16-mixed": "lightning_modules/test_flags.py",
    "bf16-mixed": "lightning_modules/test_flags.py",
    "accumulation": "lightning_modules/test_flags.py",
    "checkpointing": "lightning_modules/test_checkpointing.py",
    "ddp": "test_distributed.py",
    "fsdp": "test_distributed.py",
    "channels_last": "lightning_modules/test_flags.py",
    "compile": "lightning_modules/test_flags.py",
    "fused": "lightning_modules/test_flags.py",
    "one wait": "test_devices.py",
}
"""Columns, and where each is tested."""


def row_of(case: Case) -> str:
    """The row of a case: its method, and the one architecture that is a linear model."""
    text = case.options.get("architecture") == "text"
    return f"{case.method.method} (text)" if text else case.method.method


def cells() -> dict[tuple[str, str], str]:
    """Text of every cell by row and column."""
    lines = (ROOT / "docs" / "gpu.md").read_text().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| method | 16-mixed"))
    columns = split(lines[start])[1:]
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *values = split(line)
        found |= {(name, column): value for column, value in zip(columns, values, strict=True)}
    return found


def split(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("| ").split("|")]


@contextmanager
def as_documented(case: Case, flag: str) -> Iterator[None]:
    """Around a check that a flag does what it says: it passes where the table says yes, and fails where it says no."""
    cell = cells()[row_of(case), flag]
    assert cell in ("yes", "no"), cell
    if cell == "yes":
        yield
    else:
        with pytest.raises((AssertionError, UserError)):
            yield
