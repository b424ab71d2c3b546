"""Reads what W&B has written offline, without W&B's account or server: what a dashboard would show.

A ``.wandb`` file is a log in LevelDB's format behind seven bytes: blocks of 32 KiB that hold pieces of records, each
behind a checksum (4 bytes), its length (2) and its kind (1: whole, 2 to 4: first, middle and last piece).
"""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEAD = 32768, 7
WHOLE, LAST = 1, 4


@dataclass
class Board:
    """What W&B has of a run.

    Attributes:
        run: ids, group, kind and tags of each record of the run.
        config: settings.
        summary: figures by their name; of `define_metric`, dicts.
        history: rows as they were logged.
        goals: metric to its axis and the kinds of its summary.
        artifacts: name to type and files.
        alerts: titles and texts.
        files: of pictures and tables, relative to the folder of files.
    """

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    goals: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    artifacts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def keys(self, kind: str = "") -> set[str]:
        """Keys of the history whose values are of a kind of W&B, such as "table-file"; "": all but W&B's own."""
        found = set()
        for row in self.history:
            for key, value in row.items():
                own = value.get("_type", "") if isinstance(value, dict) else ""
                if not key.startswith("_") and (not kind or own.startswith(kind)):
                    found.add(key)
        return found

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Points of a curve over its axis."""
        return [(row["trainer/global_step"], row[key]) for row in self.history if key in row]


def records(path: Path) -> Iterator[Record]:
    """Records of a file."""
    data, place, whole = path.read_bytes(), HEAD, b""
    while place + HEAD <= len(data):
        room = BLOCK - place % BLOCK
        if room < HEAD:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        place += HEAD
        whole += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_board(run: Path) -> Board:
    """Everything of a run folder, the records in the order in which they were begun."""
    board = Board()
    folders = sorted(run.glob("wandb/*run-*-*"))
    assert folders, f"{run} has no W&B records"
    for folder in folders:
        (path,) = folder.glob("run-*.wandb")
        for record in _whole(path):
            _add(board, record)
        for table in sorted((folder / "files" / "media" / "table").rglob("*.table.json")):
            name = table.relative_to(folder / "files" / "media" / "table").as_posix().rsplit("_", 2)[0]
            board.tables[name] = json.loads(table.read_text())  # names end in _STEP_DIGEST
    return board


def _whole(path: Path) -> list[Record]:
    """Records of a file that another process is about to end."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path} has no end")


def _add(board: Board, record: Record) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        facts = {"id": run.run_id, "group": run.run_group, "job_type": run.job_type, "tags": list(run.tags)}
        assert not board.run or board.run == facts, "one run, described alike"
        board.run = facts
    elif kind == "config":
        _put(board.config, record.config.update)
    elif kind == "summary":
        _put(board.summary, record.summary.update)
    elif kind == "history":
        board.history.append({})
        _put(board.history[-1], record.history.item)
    elif kind == "metric":
        metric = record.metric
        kinds = {f.name for f, value in metric.summary.ListFields() if value}
        board.goals[metric.name or metric.glob_name] = (metric.step_metric, frozenset(kinds))
    elif kind == "artifact":
        artifact = record.artifact
        board.artifacts[artifact.name] = (artifact.type, [item.path for item in artifact.manifest.contents])
    elif kind == "alert":
        board.alerts.append((record.alert.title, record.alert.text))


def _put(target: dict[str, Any], items: Any) -> None:
    for item in items:
        names, inner = list(item.nested_key) or [item.key], target
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        inner[names[-1]] = json.loads(item.value_json)
