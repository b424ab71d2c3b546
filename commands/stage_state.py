"""``stage.json`` in the folder of a recipe's stage: what the stage was made from and how it ended."""

import json
import shlex
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

from core.errors import UserError
from core.files import write_text
from core.inputs import read_object

STATE = "stage.json"


class Fingerprint(TypedDict):
    """All that a stage's result depends on.

    Attributes:
        words: words of the command, without those that have no effect on the result.
        files: path to digest of the content.
        stages: stage that it needs to the mark of the run of it that was used.
    """

    words: list[str]
    files: dict[str, str]
    stages: dict[str, str]


class State(TypedDict):
    """Content of ``stage.json``.

    Attributes:
        status: how far it came; "running" in a folder that nobody works in: it was killed.
        mark: mark of this run; stages that need it remember it.
        command: as it can be typed.
        fingerprint: what it was made from.
        started: time of the first call.
        seconds: seconds of all calls, but for those that were killed.
    """

    status: Literal["running", "done", "failed", "interrupted"]
    mark: str
    command: str
    fingerprint: Fingerprint
    started: str
    seconds: NotRequired[float]


def read_state(run: Path) -> State | None:
    """Reads ``stage.json`` of a run folder; None when there is none.

    Raises:
        UserError: it is broken.
    """
    path = run / STATE
    if not path.is_file():
        return None
    way_out = "remove it: then the stage runs again"
    found = read_object(path, way_out, ("status", "mark", "command", "fingerprint", "started"))
    print_ = found["fingerprint"]
    texts = all(isinstance(found[key], str) for key in ("status", "mark", "command", "started"))
    parts = isinstance(print_, dict) and all(
        isinstance(print_.get(key), kind) for key, kind in (("words", list), ("files", dict), ("stages", dict))
    )
    if not texts or not parts or not isinstance(found.get("seconds", 0.0), int | float):
        raise UserError(f"{path}: an entry is of another kind than this version writes; {way_out}")
    return cast(State, found)


def command_words(state: State, run: Path) -> list[str]:
    """The subcommand of a stage and its options.

    Raises:
        UserError: the noted command is none.
    """
    try:
        return shlex.split(state["command"])[2:]
    except ValueError as error:
        raise UserError(f"{run / STATE}: the command cannot be split into words ({error}); remove the file") from error


def write_state(run: Path, state: State) -> None:
    """Writes ``stage.json`` whole or not at all."""
    write_text(run / STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")
