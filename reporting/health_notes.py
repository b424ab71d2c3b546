"""Signs of collapse that were seen while a run was training: ``health.json`` in its folder."""

from pathlib import Path
from typing import TypedDict

from core.errors import UserError
from core.files import write_json
from core.inputs import parse_json, read_text

FILE = "health.json"


class Note(TypedDict):
    """A sign that was seen."""

    step: int
    """Optimiser steps made."""
    kind: str
    """What it is about: captions, labels, attention, units, gradients."""
    sign: str
    """One line."""


def read_notes(run: Path) -> list[Note]:
    """Notes of a run folder; none when nothing was seen.

    Raises:
        UserError: the file is broken.
    """
    path = run / FILE
    if not path.is_file():
        return []
    found = parse_json(read_text(path), path, UserError)
    try:
        return [Note(step=int(row["step"]), kind=str(row["kind"]), sign=str(row["sign"])) for row in found]
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: expected a list of step, kind and sign: remove it, only marks are lost") from error


def write_notes(run: Path, notes: list[Note]) -> None:
    """Writes the notes of a run folder, whole or not at all."""
    write_json(run / FILE, notes)
