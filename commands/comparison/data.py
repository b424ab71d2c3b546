"""The data module that a run was evaluated on, and its settings."""

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.inputs import WRONG_VALUES, damage
from core.renamed import renamed_data_options
from core.safe_yaml import read_yaml

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from datamodules.base import CaptionDataModule

Section = dict[str, Any]
"""Part "data" of a configuration: class_path and init_args; empty when it is unknown."""


def evaluated_data(section: Section, words: Sequence[str]) -> Section:
    """Settings of the data of an evaluation.

    Args:
        section: section of the training run.
        words: the evaluation's command; its ``--config`` replaces the run's, its ``--data...`` changes it.

    Raises:
        UserError: the program does not accept them.
    """
    configs = option_values(words, "--config")
    changes = [f"{name}={value}" for name, value in options(words) if name.startswith("--data.")]
    if configs:
        section = data_of_files(configs) or section
    if not section or not (configs or changes):
        return section
    parser = _parser()
    from jsonargparse import ArgumentError

    try:
        config = parser.parse_args([f"--data={json.dumps(section)}", *changes])
        content: Section = json.loads(parser.dump(config, format="json"))["data"]
    except ArgumentError as error:
        raise UserError(f"data of '{' '.join(words[:3])} ...': {' '.join(str(error).split())}") from error
    return content


def build_data(section: Section) -> "CaptionDataModule":
    """Builds the data module; equal settings share one instance.

    Raises:
        UserError: the program does not accept the settings.
    """
    options = section.get("init_args")
    renamed = {**section, "init_args": renamed_data_options(options)} if isinstance(options, dict) else section
    return _build(json.dumps(renamed, sort_keys=True))


@functools.cache
def _build(section: str) -> "CaptionDataModule":
    from jsonargparse import ArgumentError

    parser = _parser()
    try:
        data: CaptionDataModule = parser.instantiate(parser.parse_args([f"--data={section}"])).data
    except ArgumentError as error:
        raise UserError(f"data of a run: {' '.join(str(error).split())}") from error
    return data


def _parser() -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    import datamodules  # noqa: F401  # its classes may be named by class_path
    from datamodules.base import CaptionDataModule

    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(CaptionDataModule, "data")
    return parser


def data_of_files(configs: Sequence[str]) -> Section:
    """Part "data" of experiment files, later files over earlier ones; empty if a file is missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not all(Path(name).is_file() for name in configs):
        return {}
    for name in configs:
        read_yaml(Path(name))  # in bounded time, which the library does not promise
    with damage(" ".join(configs), "a configuration", "correct it", causes=(OmegaConfBaseException, *WRONG_VALUES)):
        merged = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, configs)), resolve=True)
    section = merged.get("data") if isinstance(merged, dict) else None
    return {str(key): value for key, value in section.items()} if isinstance(section, dict) else {}


def options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Options of a command with their values.

    >>> options(["test", "--a=1", "--b", "2"])
    [('--a', '1'), ('--b', '2')]
    """
    found = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            found.append((name, value if equals else following))
    return found


def option_values(words: Sequence[str], name: str) -> list[str]:
    """All values given to one option, in order."""
    return [value for option, value in options(words) if option == name]
