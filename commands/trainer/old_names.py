"""Options by the names of the version before, on the command line and in configuration files.

They are read for one version, with a line that says the new names.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.renamed import old_options, renamed_data_options, renamed_options
from core.safe_yaml import parse_yaml, read_yaml
from core.text import say

_SECTIONS = ("model.init_args.", "model.")


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
        result, old, place = [], dict[str, Any](), 0
        while place < len(args):
            name, equals, value = args[place].partition("=")
            takes_next = not equals and place + 1 < len(args)
            if name == "--config" and (equals or takes_next):
                file = value if equals else args[place + 1]
                result += ["--config", self._file(file)]
                place += 1 if equals else 2
            elif (option := _old_option(name)) and (equals or takes_next):
                old[option] = parse_yaml(value if equals else args[place + 1], name)
                place += 1 if equals else 2
            else:
                result.append(args[place])
                place += 1
        if old:
            _note("command line", old)
            result += [f"--model.init_args.{key}={_flow(value)}" for key, value in renamed_options(old).items()]
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
        for section, rename in (("model", renamed_options), ("data", renamed_data_options)):
            part = content.get(section)
            if isinstance(part, dict) and isinstance(part.get("init_args"), dict):
                _note(name, part["init_args"] if section == "model" else {})
                part["init_args"] = rename(part["init_args"])
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


def _old_option(flag: str) -> str | None:
    """The old option of a module that a flag sets, if it does."""
    for section in _SECTIONS:
        option = flag.removeprefix(f"--{section}")
        if option != flag and old_options({option: None}):
            return option
    return None


def _flow(value: Any) -> str:
    """A value as it is written in a flag."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _note(place: str, options: Mapping[str, Any]) -> None:
    names = ", ".join(f"{old} is now {new}" for old, new in old_options(options).items())
    if names:
        say(f"note: {place}: {names}; old names are read until the next version")
