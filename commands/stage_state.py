"""``stage.json`` in the folder of a recipe's stage: what the stage was made from and how it ended."""

import json
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from core.errors import UserError
from core.files import write_text

STATE = "stage.json"


class Fingerprint(TypedDict):
    """All that a stage's result depends on.

    Attributes:
        words: of the command, without those that have no effect on the result.
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
        mark: of this run; stages that need it remember it.
        command: as it can be typed.
        fingerprint: what it was made from.
        started: time of the first call.
        seconds: of all calls, but for those that were killed.
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
    try:
        state: State = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); remove it: then the stage runs again") from error
    return state


def write_state(run: Path, state: State) -> None:
    """Writes ``stage.json`` whole or not at all."""
    write_text(run / STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")
