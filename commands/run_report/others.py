"""The parts of a run's report that only some methods have: reconstructions, codes, transfer, stored figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands.comparison.results import Result
from core.checkpoints import read_checkpoint
from core.errors import UserError
from core.spread import spread
from metrics.tokenize import tokenize_caption
from reporting.page import Section, Table

_ROWS = 30
_FIGURES = {"codes.png": "Codes of images and sentences", "labels.png": "Labels of some images"}
"""Figures that evaluations write, and their titles."""


def other_sections(run: Path, results: Sequence[Result]) -> list[Section]:
    """Sections about what is in the folders of the run and of its evaluations.

    Args:
        run: run folder.
        results: its evaluations, the most important one first.
    """
    folders = [*(result.folder for result in results), run]
    sections = [_figure(folders, name, title) for name, title in _FIGURES.items()]
    sections += [_retrieval(folders), _reconstructions(folders), _transfer(run)]
    return [section for section in sections if section is not None]


def _figure(folders: Sequence[Path], name: str, title: str) -> Section | None:
    path = _first(folders, name)
    return None if path is None else Section(title=title, figures={title: path.read_bytes()})


def _first(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}): evaluate the run again") from error
    return rows


def _retrieval(folders: Sequence[Path]) -> Section | None:
    """Sentences that the codes of some images are nearest to."""
    path = _first(folders, "retrieval.json")
    if path is None:
        return None
    rows = [
        (row["image_id"], place + 1, found["caption"], "yes" if found["true"] else "")
        for row in spread(_rows(path), _ROWS)
        for place, found in enumerate(row["retrieved"])
    ]
    table = Table(title="Nearest sentences", columns=("image", "rank", "sentence", "of this image"), rows=rows)
    return Section(title="Retrieval by codes", tables=[table])


def _reconstructions(folders: Sequence[Path]) -> Section | None:
    """Captions beside what a text autoencoder makes of them, the worst ones first."""
    path = _first(folders, "reconstructions.json")
    if path is None:
        return None
    rows = [(row["original"], row["reconstruction"]) for row in _rows(path)]
    exact = [tokenize_caption(original) == tokenize_caption(written) for original, written in rows]
    different = [row for row, is_exact in zip(rows, exact, strict=True) if not is_exact]
    same = [row[:1] for row, is_exact in zip(rows, exact, strict=True) if is_exact]
    return Section(
        title="Reconstructions",
        notes=[f"{len(same)} of {len(rows)} captions are reconstructed exactly."],
        tables=[
            Table(title="Some that differ", columns=("original", "reconstruction"), rows=spread(different, _ROWS)),
            Table(title="Some that are exact", columns=("caption",), rows=spread(same, _ROWS)),
        ],
    )


def _transfer(run: Path) -> Section | None:
    """What was copied from another run, and what could not be."""
    try:
        lines = read_checkpoint(str(run))["inference"].get("transfer")
    except UserError:  # no checkpoint yet: the report is about what there is
        return None
    return Section(title="Transfer", notes=list(lines)) if lines else None
