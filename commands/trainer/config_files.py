"""Looking at experiment files before they are parsed, so that a mistake is reported with file and line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError

_OPTION = re.compile(r"[Oo]ption '([\w.]+)'")


def check_files(files: list[str]) -> None:
    """Looks at every experiment file by itself.

    Raises:
        UserError: one is not YAML with keys such as model, data and trainer, or has keys that nothing would check.
    """
    for name in files:
        if not Path(name).is_file():
            continue  # the parser says so
        content = _read(Path(name))
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


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise UserError(f"{path}{place}: not valid YAML ({reason}); mend the file there or just above") from error


def _places_of(key: str, value: Any, place: str) -> Iterator[str]:
    """Dotted paths at which a key stands in a tree of dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        here = f"{place}.{name}" if place else str(name)
        if name == key:
            yield here
        yield from _places_of(key, inner, here)
