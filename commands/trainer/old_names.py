"""Options by the names of the version before, on the command line and in configuration files.

They are read for one version, with a line that says the new names.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.renamed import old_data_options, old_options, renamed_data_options, renamed_options
from core.safe_yaml import parse_yaml, read_yaml
from core.text import say

_READERS = {"model": (old_options, renamed_options), "data": (old_data_options, renamed_data_options)}
"""Section of a configuration to what finds old options in it, and what renames them."""


class NewNames:
    """Command lines with the names of this version; files with old ones are replaced by temporary copies.

    A context manager: the copies live inside it.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._copies: dict[str, str] = {}

    def __enter__(self) -> "NewNames":
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def arguments(self, args: list[str]) -> list[str]:
        """The command line with the names of this version.

        Args:
            args: subcommand and options.
        """
        result, place = [], 0
        old: dict[str, dict[str, Any]] = {}  # options by the section that they stand in
        while place < len(args):
            name, equals, value = args[place].partition("=")
            takes_next = not equals and place + 1 < len(args)
            if name == "--config" and (equals or takes_next):
                file = value if equals else args[place + 1]
                result += ["--config", self._file(file)]
                place += 1 if equals else 2
            elif (found := _old_option(name)) and (equals or takes_next):
                section, option = found
                old.setdefault(section, {})[option] = parse_yaml(value if equals else args[place + 1], name)
                place += 1 if equals else 2
            else:
                result.append(args[place])
                place += 1
        for section, options in old.items():
            names, renamed = _READERS[section.partition(".")[0]]
            _note("command line", names(options))
            result += [f"--{section}.{key}={_flow(value)}" for key, value in renamed(options).items()]
        return result

    def original(self, message: str) -> str:
        """A message with the names of the files that the user knows."""
        for copy, file in self._copies.items():
            message = message.replace(copy, file)
        return message

    def _file(self, name: str) -> str:
        """The file itself, or a copy of it with new names."""
        try:
            content = read_yaml(Path(name))
        except UserError:
            return name  # the parser says what is wrong
        if not isinstance(content, dict):
            return name
        before = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        for section, (names, renamed) in _READERS.items():
            part = content.get(section)
            if isinstance(part, dict) and isinstance(part.get("init_args"), dict):
                _note(name, names(part["init_args"]))
                part["init_args"] = renamed(part["init_args"])
        after = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return name if after == before else self._write(name, after)

    def _write(self, name: str, text: str) -> str:
        """Writes a copy below folders of the same names, since runs are named after them."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="captioners-")
        parents = Path(name).resolve().parent
        copy = Path(self._folder.name, str(len(self._copies)), parents.parent.name, parents.name, Path(name).name)
        copy.parent.mkdir(parents=True)
        copy.write_text(text, "utf-8")
        self._copies[str(copy)] = name
        return str(copy)


def _old_option(flag: str) -> tuple[str, str] | None:
    """The section that a flag sets an old option in, with ``init_args``, and the option; None: it does not.

    >>> _old_option("--model.hidden"), _old_option("--data.init_args.source.init_args.average_token_ids")
    (('model.init_args', 'hidden'), ('data.init_args.source.init_args', 'average_token_ids'))
    """
    section, dot, option = flag.removeprefix("--").rpartition(".")
    kind = section.partition(".")[0]
    if not dot or kind not in _READERS or (kind == "model" and section not in ("model", "model.init_args")):
        return None
    section = section if section.endswith("init_args") else f"{section}.init_args"
    return (section, option) if _READERS[kind][0]({option: None}) else None


def _flow(value: Any) -> str:
    """A value as it is written in a flag."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _note(place: str, found: Mapping[str, str]) -> None:
    names = ", ".join(f"{old} is now {new}" for old, new in found.items())
    if names:
        say(f"note: {place}: {names}; old names are read until the next version")
