"""The fingerprint of a stage: its command line, the files named there and the stages that it needs.

Files are found in the arguments (experiment files, checkpoints, data files) and in the values of experiment files. The
program itself does not count.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.recipes.document import Stage
from commands.stage_state import Fingerprint
from core.checkpoints import is_checkpoint
from core.errors import UserError
from core.files import write_text
from core.inputs import open_regular, read_object
from core.safe_yaml import read_yaml

_CONFIG = (".yaml", ".yml")
_ANNOTATIONS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".yaml", ".yml", ".parquet")
_WITHOUT_EFFECT = (
    "--wandb",
    "--wandb_project",
    "--wandb_group",
    "--wandb_tags",
    "--wandb_artifacts",
    "--tensorboard",
    "--quiet",
    "--json_lines",
    "--trainer.enable_progress_bar",
    "--checkpoint_steps",
    "--checkpoint_minutes",
)
"""Options that do not change a result."""
_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)(?:,([^}]*))?\}")
_MOST_FILES = 200_000
"""Maximum number of files of a folder that are examined, in order of name."""
_SHOWN = 3
"""Maximum number of differences named in a message."""


class Digests:
    """Digests of files; a file is read again only if its size or modification time has changed.

    Args:
        notes: file that stores the digests between calls.
    """

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._known: dict[str, list[Any]] = {}
        self._added = False
        if notes.is_file():
            with contextlib.suppress(UserError):  # everything is read again
                found = read_object(notes, "")
                self._known = {name: note for name, note in found.items() if isinstance(note, list) and len(note) == 3}

    def of(self, path: Path) -> str:
        """Digest of a file's content; for an experiment file, of its values, without comments."""
        if path.is_dir():
            return self._of_folder(path)
        status, name = path.stat(), str(path.absolute())
        known = self._known.get(name)
        if known is not None and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.suffix in _CONFIG:
            values = _read_yaml(path)
            digest = digest if values is None else hashlib.sha256(repr(values).encode()).hexdigest()
        self._known[name], self._added = [status.st_size, status.st_mtime_ns, digest], True
        return digest

    def save(self) -> None:
        """Stores the digests for the next call."""
        if self._added:
            write_text(self._notes, json.dumps(self._known))
            self._added = False

    def _of_folder(self, folder: Path) -> str:
        """Digest of a data folder: names, annotation files by content, other files (images) by size and time."""
        digest = hashlib.sha256()
        count = 0
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                path, count = Path(root) / name, count + 1
                if count > _MOST_FILES:
                    return digest.hexdigest()
                if not path.is_file():  # a broken link
                    continue
                if path.suffix in _ANNOTATIONS:
                    mark = self.of(path)
                else:
                    status = path.stat()
                    mark = f"{status.st_size} {status.st_mtime_ns}"
                digest.update(f"{path.relative_to(folder)}\0{mark}\n".encode())
        return digest.hexdigest()


def fingerprint(stage: Stage, marks: Mapping[str, str], own: Path, digests: Digests) -> Fingerprint:
    """Takes the fingerprint of a stage as it would run now.

    Args:
        stage: the stage.
        marks: mark of the last run of each stage that it needs.
        own: the recipe's folder; what is in it counts through the stages.
        digests: digests of files.

    Raises:
        UserError: an input that the recipe names is not there.
    """
    files: dict[str, str] = {}
    for path in _named(stage.command, own):
        for inner in [path, *(_named(_values(_read_yaml(path)), own) if path.suffix in _CONFIG else ())]:
            files[str(inner)] = digests.of(inner)
    for name in stage.inputs:
        path = Path(name)
        if not path.exists():
            raise UserError(f"stage '{stage.name}': its input '{name}' does not exist: correct the path in the recipe")
        if not _inside(path, own):
            files[str(path)] = digests.of(path)
    # a checkpoint that was trained further by hand is another one
    checkpoints = {name: stage.run.parent / name / "checkpoints" for name in stage.needs}
    for name, folder in checkpoints.items():
        found = next((folder / file for file in ("best.ckpt", "last.ckpt") if is_checkpoint(folder / file)), None)
        if found is not None:
            files[f"{name}/checkpoints/{found.name}"] = digests.of(found)
    return {"words": _effective(stage.key), "files": files, "stages": {name: marks[name] for name in stage.needs}}


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Reasons why the result of a stage is out of date; empty if it is up to date."""
    reasons = []
    gone, come = [word for word in old["words"] if word not in new["words"]], []
    come = [word for word in new["words"] if word not in old["words"]]
    if gone or come:
        reasons.append(f"command: '{_some(gone)}' became '{_some(come)}'")
    elif old["words"] != new["words"]:
        reasons.append("command: its arguments are in another order")
    ran = [name for name in new["stages"] if old["stages"].get(name) != new["stages"][name]]
    reasons += [f"'{name}' ran again" if name in old["stages"] else f"'{name}' is new" for name in ran]
    reasons += [f"'{name}' is no longer needed" for name in old["stages"] if name not in new["stages"]]
    for path in sorted({*old["files"], *new["files"]}):
        if path.split("/")[0] in ran:
            continue  # of a stage that ran again
        if path not in new["files"]:
            reasons.append(f"{path} is gone")
        elif path not in old["files"]:
            reasons.append(f"{path} is new")
        elif old["files"][path] != new["files"][path]:
            reasons.append(f"{path} changed")
    return reasons


def _some(words: Sequence[str]) -> str:
    return " ".join(words[:_SHOWN]) + (" ..." if len(words) > _SHOWN else "")


def _effective(words: Sequence[str]) -> list[str]:
    """The arguments without options that change no result, written "--wandb=off" or "--wandb off"."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip and not word.startswith("-"):
            skip = False
            continue
        name, equals, _ = word.partition("=")
        skip = name in _WITHOUT_EFFECT and not equals
        if name not in _WITHOUT_EFFECT:
            kept.append(word)
    return kept


def _named(texts: Sequence[str], own: Path) -> Iterator[Path]:
    """The files, run folders and data folders named in strings, except those in the recipe's folder."""
    for text in texts:
        for name in {text, text.partition("=")[2]}:
            # a bare word may be the name of a folder here by chance
            if not ("/" in name or os.sep in name or "." in name) or len(name) > 500 or "\n" in name:
                continue
            path = Path(name)
            if _inside(path, own):
                continue
            if path.is_file():
                yield path
            elif path.is_dir() and name.strip("./"):
                yield from _checkpoint_of(path)


def _checkpoint_of(folder: Path) -> Iterator[Path]:
    """The checkpoint of a run folder, or the folder itself if it holds data."""
    if (folder / "checkpoints").is_dir():
        names = ("best.ckpt", "last.ckpt")
        found = [folder / "checkpoints" / name for name in names if (folder / "checkpoints" / name).is_file()]
        yield from found[:1]
    else:
        yield folder


def _inside(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def _read_yaml(path: Path) -> Any:
    try:
        return read_yaml(path)
    except UserError:
        return None  # the command reports it better


def _values(content: Any) -> list[str]:
    """All strings in a tree of dicts and lists, with environment variables filled in."""
    if isinstance(content, dict):
        return [text for value in content.values() for text in _values(value)]
    if isinstance(content, list):
        return [text for value in content for text in _values(value)]
    if isinstance(content, str):
        return [_ENVIRONMENT.sub(lambda found: os.environ.get(found[1], found[2] or ""), content)]
    return []
