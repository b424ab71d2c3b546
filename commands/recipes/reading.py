"""Reads a recipe file, checks its keys, and resolves what the recipe and its stages inherit."""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.inputs import shown
from core.safe_yaml import read_yaml

_SECTIONS = ("vars", "groups", "stages", "summary")
_KEYS = ("about", "extends", *_SECTIONS)
_STAGE_KEYS = ("extends", "command", "inputs", "outputs", "after", "for", "resumes")
_OLD_RESUMES = "goes_on"
"""The previous version's name of ``resumes``, still accepted."""
_SUMMARY_KEYS = ("rows", "metrics", "compare")
_SHOWN = 12
"""Maximum number of known names listed in a message."""


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys; plain YAML silently keeps the last one."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"'{key.value}' is there twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_document(path: Path) -> dict[str, Any]:
    """Reads a recipe file, with the recipes that it extends, and checks the names in it.

    Args:
        path: the file.

    Returns:
        Its sections; every stage has its full command and no ``extends``.

    Raises:
        UserError: no such file, not YAML, an unknown key or group, groups that extend each other in a cycle, or a
            stage without a command.
    """
    content = _read_sections(path, ())
    groups = content["groups"]
    stages = {name: _inherit(body, groups, path, f"stage '{name}'", ()) for name, body in content["stages"].items()}
    for name, body in stages.items():
        if not isinstance(body.get("command"), (str, list)) or not body["command"]:
            raise UserError(
                f"{path}: stage '{name}': expected a 'command' with arguments of cli.py, found {body!r:.60}"
            )
    return {**content, "stages": stages}


def _read_sections(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The sections of a file merged over those of the recipes that it extends; later files win over earlier ones."""
    if path.resolve() in above:
        raise UserError(f"{path}: extends: recipes extend each other in a cycle; remove one 'extends'")
    content = _load(path)
    if not isinstance(content, dict) or not (above or "extends" in content or content.get("stages")):
        raise UserError(f"{path}: expected a mapping with 'stages', each 'NAME: {{command: ...}}'")
    _check_keys(content, _KEYS, str(path))
    for section in _SECTIONS:
        if not isinstance(content.get(section) or {}, dict):
            raise UserError(f"{path}: {section}: expected a mapping, found {content[section]!r:.60}")
    _check_keys(content.get("summary") or {}, _SUMMARY_KEYS, f"{path}: summary")
    _check_bodies(content, path)
    sections = [_read_sections(path.parent / file, (*above, path.resolve())) for file in _extended(content, path)]
    return {
        name: {key: value for part in (*sections, content) for key, value in (part.get(name) or {}).items()}
        for name in _SECTIONS
    }


def _extended(content: Mapping[str, Any], path: Path) -> list[str]:
    """The recipe files that a recipe extends."""
    files = content.get("extends", [])
    files = files if isinstance(files, list) else [files]
    if not all(isinstance(file, str) for file in files):
        raise UserError(f"{path}: extends: expected the file of a recipe, found {content['extends']!r:.60}")
    return files


def _check_bodies(content: dict[str, Any], path: Path) -> None:
    """Checks the stages and groups of a file; keys of the previous version are renamed."""
    for kind in ("group", "stage"):
        for name, body in (content.get(f"{kind}s") or {}).items():
            if not isinstance(body, dict) or not ("extends" in body or kind == "group" or body.get("command")):
                raise UserError(
                    f"{path}: {kind} '{name}': expected a 'command' with arguments of cli.py, found {body!r:.60}"
                )
            if _OLD_RESUMES in body:
                body["resumes"] = body.pop(_OLD_RESUMES)
            _check_keys(body, _STAGE_KEYS, f"{path}: {kind} '{name}'")


def _load(path: Path) -> Any:
    if not path.exists():
        known = sorted(str(p) for p in Path("experiments/recipes").rglob("*.yaml") if p.parent.name != "parts")
        raise UserError(f"there is no recipe '{path}'{near(str(path), known)}")
    return read_yaml(path, _Loader)


def _inherit(
    body: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]], path: Path, where: str, above: tuple[str, ...]
) -> Mapping[str, Any]:
    """A stage or group merged with what it inherits: its group's arguments come before its own; its other keys win."""
    if "extends" not in body:
        return body
    name = str(body["extends"])
    if name not in groups:
        raise UserError(f"{path}: {where}: extends: there is no group '{name}'{near(name, groups)}")
    if name in above:
        circle = " -> ".join([*above[above.index(name) :], name])
        raise UserError(f"{path}: {where}: groups extend each other in a cycle: {circle}; remove one 'extends'")
    group = _inherit(groups[name], groups, path, f"group '{name}'", (*above, name))
    own = {key: value for key, value in body.items() if key != "extends"}
    commands = [item["command"] for item in (group, own) if "command" in item]
    if all(isinstance(item, str) for item in commands):
        return {**group, **own, "command": " ".join(commands)}
    words = [word for item in commands for word in read_texts(item, f"{where}: command", path)]
    return {**group, **own, "command": words}


def near(name: str, known: Iterable[str]) -> str:
    """A hint that follows an unknown name: the closest known name, or all of them."""
    known = [str(item) for item in known]
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f": did you mean '{close[0]}'?"
    shown = ", ".join(known[:_SHOWN]) + (f", ... ({len(known)} in all)" if len(known) > _SHOWN else "")
    return f": known are {shown}" if known else ": there are none"


def _check_keys(content: Mapping[Any, Any], known: Sequence[str], place: str) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{place}: '{key}' is unknown{near(str(key), known)}")


def as_text(value: Any) -> str:
    """A YAML value as it is written on a command line.

    >>> as_text(True), as_text(None), as_text(1e-4), as_text([1, "a"])
    ('true', 'null', '0.0001', '[1, a]')
    """
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def read_texts(value: Any, where: str, path: Path) -> list[str]:
    """A list of strings, or one string that is split like a command line.

    Args:
        value: from the file.
        where: the place in the file, for messages.
        path: the file, for messages.

    Raises:
        UserError: the value is neither, or a quotation mark is unbalanced.
    """
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise UserError(f"{path}: {where}: cannot be split into arguments ({error}): {shown(value, 60)}") from error
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return [as_text(item) for item in value]
    raise UserError(f"{path}: {where}: expected a string or a list of strings, found {value!r:.60}")
