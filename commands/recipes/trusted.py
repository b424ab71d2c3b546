"""Whose code the stages of a recipe may name: a recipe may have been written by a stranger, see `core.trust`."""

from pathlib import Path

from commands.comparison.data import options
from commands.recipes.document import Recipe
from core.errors import UserError
from core.safe_yaml import parse_yaml, read_yaml
from core.trust import check_trusted, is_own
from datamodules.readers.images import is_file


def check_recipe(recipe: Recipe) -> None:
    """Looks for classes of others in the commands of all stages and in the files that they name, before any runs.

    Files of a stage that has not run yet are not there; its own command looks at them.

    Args:
        recipe: with its variables filled in.

    Raises:
        UserError: one is named that is not of this project, Lightning or torch.
    """
    seen: set[Path] = set()
    for stage in recipe.stages:
        for name, value in options(stage.command):
            check_trusted(_parsed(value), f"{recipe.path}, stage {stage.name}: {name}")
            if (file := Path(value)) not in seen and is_file(file):
                seen.add(file)
                _check_file(file, name == "--config")


def _check_file(file: Path, is_config: bool) -> None:
    """Looks at a configuration, or at any other file if the parser could take it for the settings of a class."""
    try:
        content = read_yaml(file)
    except UserError:
        if is_config:
            raise
        return
    names_class = isinstance(content, str) or (isinstance(content, dict) and "class_path" in content)
    if (is_config or names_class) and not is_own(file):
        check_trusted(content, str(file))


def _parsed(value: str) -> object:
    """What a word of the command line means; a text that is no YAML is itself."""
    try:
        return parse_yaml(value, "")
    except UserError:
        return value
