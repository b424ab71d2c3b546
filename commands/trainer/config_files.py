"""Looking at experiment files before they are parsed, so that a mistake is reported with file and line."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.safe_yaml import read_yaml
from core.trust import check_trusted, is_own

_PATHS = ("--config", "--run_dir", "--ckpt_path")
_OPTION = re.compile(r"[Oo]ption '([\w.]+)'")


def check_files(files: list[str], trust: bool = False) -> None:
    """Checks every experiment file by itself.

    Args:
        files: files of a command line, those of runs included.
        trust: configurations of runs may name anybody's classes.

    Raises:
        UserError: one is not YAML with keys such as model, data and trainer, has keys that nothing would check, or
            comes with a run and names code of others.
    """
    for name in files:
        if not Path(name).is_file():
            continue  # the parser says so
        content = read_yaml(Path(name))
        if not isinstance(content, dict):
            found = "nothing" if content is None else f"{content!r:.60}"
            raise UserError(f"{name}: expected keys such as model, data and trainer, found {found}")
        for section in ("model", "data"):
            value = content.get(section)
            given = value if isinstance(value, dict) and {"class_path", "init_args"} & set(value) else {}
            for key in given:
                if key not in ("class_path", "init_args", "dict_kwargs"):
                    raise UserError(f"{name}: {section}.{key} is not accepted; arguments go below {section}.init_args")
        for place in _places_of("dict_kwargs", content, ""):
            raise UserError(f"{name}: {place} is not accepted, since nobody checks its keys; use init_args")
        if not trust and _comes_with_a_run(Path(name)) and not is_own(Path(name)):
            check_trusted(content, name)


def check_words(args: Sequence[str]) -> None:
    """Refuses values that no configuration can hold, since it is UTF-8; paths of the command itself may be anything.

    Raises:
        UserError: a value has bytes that are not UTF-8.
    """
    name = ""
    for arg in args:
        option, _, value = arg.partition("=") if arg.startswith("--") else (name, "", arg)
        name = option
        if name not in _PATHS and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{name}: {value!r} is not UTF-8, which a configuration must be: rename it, or give a link")


def _comes_with_a_run(path: Path) -> bool:
    """Whether a file is the saved configuration of a run folder."""
    return path.name == "config.yaml" and any((path.parent / name).exists() for name in ("run.json", "checkpoints"))


def location(message: str, files: list[str]) -> str:
    """Where the option that a message speaks of is written: " in FILE, line 3", or nothing when it is in no file."""
    found = _OPTION.search(message)
    if found is None:
        return ""
    key = re.compile(rf"""(^|[\s{{,])["']?{re.escape(found[1].rsplit(".")[-1])}["']?\s*:""")
    for name in reversed(files):  # the last one wins
        if Path(name).is_file():
            for number, line in enumerate(Path(name).read_text("utf-8").splitlines(), start=1):
                if key.search(line):
                    return f" in {name}, line {number}"
    return ""


def _places_of(key: str, value: Any, place: str) -> Iterator[str]:
    """Dotted paths at which a key stands in a tree of dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        here = f"{place}.{name}" if place else str(name)
        if name == key:
            yield here
        yield from _places_of(key, inner, here)
