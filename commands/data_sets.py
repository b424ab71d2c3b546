"""The data sets by name, and building one from flags: what `data` and `score` have in common.

A data set is a file of `datamodules`, or a package there with a file ``datamodule.py``; nothing else has to name it.
"""

import ast
import functools
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.collection import lasting
from core.errors import UserError

if TYPE_CHECKING:
    from datamodules.base import CaptionDataModule

_FOLDER = Path(__file__).resolve().parents[1] / "datamodules"
_BASE = "DataModule"
"""How names of base classes end, which are no data sets."""


@functools.cache
def data_sets() -> dict[str, str]:
    """Name of every data set to its module, without importing any."""
    files = {path.stem: path for path in _FOLDER.glob("*.py")}
    files |= {path.parent.name: path for path in _FOLDER.glob("*/datamodule.py")}
    modules = {}
    for name, path in sorted(files.items()):
        classes = [node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
        if any(not item.startswith("_") and not item.endswith(_BASE) for item in classes):
            modules[name] = ".".join(path.relative_to(_FOLDER.parent).with_suffix("").parts)
    return modules


def known_name(name: str, command: str) -> str:
    """A data set's name as it was typed, dashes or underscores, or the start of one, by the name of its file.

    Args:
        name: as typed.
        command: what was typed before it, for the message.

    Raises:
        UserError: there is no such data set.
    """
    key = name.replace("-", "_")
    found = [key] if key in data_sets() else [known for known in data_sets() if key and known.startswith(key)]
    if len(found) != 1:
        raise UserError(f"{command}: there is no data set '{name}': expected one of {', '.join(data_sets())}")
    return found[0]


def data_class(name: str) -> "type[CaptionDataModule]":
    """The data module of a data set, by the name of its file."""
    from datamodules.base import CaptionDataModule

    module = importlib.import_module(data_sets()[name])
    (found,) = (
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, CaptionDataModule) and item.__module__ == module.__name__ and not inspect.isabstract(item)
    )
    return found


@lasting()
def build_data(
    name: str, args: Sequence[str], command: str, *, skip: Sequence[str] = (), own: Sequence[dict[str, Any]] = ()
) -> "tuple[CaptionDataModule, dict[str, Any]]":
    """Builds a data module from flags as they are typed.

    Args:
        name: from `known_name`.
        args: arguments of its constructor as flags, dashes or underscores.
        command: what was typed before them, for messages.
        skip: arguments that may not be given.
        own: further options of the command, as keywords of ``add_argument`` with their flag under "flag".

    Returns:
        The data module and the values of the command's own options.

    Raises:
        UserError: unknown flag, or a wrong value.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    cls = data_class(name)
    parser = ArgumentParser(prog=f"cli.py {command}", allow_abbrev=False, exit_on_error=False)
    for option in own:
        parser.add_argument(option["flag"], **{key: value for key, value in option.items() if key != "flag"})
    parser.add_class_arguments(cls, skip=set(skip))
    try:
        # instantiated first: a data module may have others as arguments
        values = vars(parser.instantiate(parser.parse_args([underscored(arg) for arg in args])))
        chosen = {option["flag"].lstrip("-"): values.pop(option["flag"].lstrip("-")) for option in own}
        return cls(**values), chosen
    except ArgumentError as error:
        hint = f"python cli.py data check {name} --help lists the flags of the data set"
        raise UserError(f"{command}: {' '.join(str(error).split())} ({hint})") from error


def underscored(arg: str) -> str:
    """Turns dashes inside the name of a flag into underscores; its value is left as it is.

    >>> underscored("--captions-file=my-file.csv")
    '--captions_file=my-file.csv'
    """
    if not arg.startswith("--"):
        return arg
    flag, equals, value = arg[2:].partition("=")
    return f"--{flag.replace('-', '_')}{equals}{value}"
