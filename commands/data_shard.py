"""``data shard``: converts a data set to tar archives, from which training streams."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.data_sets import build_data, data_sets, known_name
from core.errors import UserError, command
from core.text import say

if TYPE_CHECKING:
    from datamodules.readers.records import Split

_OPTIONS = (
    {"flag": "--out", "type": Path, "required": True, "help": "folder for the shards; called again, it goes on"},
    {
        "flag": "--splits",
        "nargs": "+",
        "choices": ["train", "val", "test"],
        "default": ["train", "val", "test"],
        "help": "which splits",
    },
    {"flag": "--images_per_shard", "type": int, "default": 1000, "help": "images of an archive"},
)


def shard(name: str, args: Sequence[str]) -> int:
    """Writes the archives that are missing, then the index.

    Args:
        name: name of a data set, or of a configuration that has one.
        args: flags of the data module, which count more than those of the configuration, and of the command.

    Returns:
        0.

    Raises:
        UserError: a wrong flag, or the folder holds shards of other data.
        DataError: an image cannot be read.
    """
    path = Path(name)
    given: list[str] = []
    if path.suffix in (".yaml", ".yml"):
        name, given = configured(path)
    name = known_name(name, "data shard")
    data, own = build_data(name, [*given, *args], f"data shard {name}", skip=("augment",), own=_OPTIONS)
    images, folder = own["images_per_shard"], own["out"]
    if images < 1:
        raise UserError(f"--images_per_shard {images}: expected at least 1")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; expected a folder")
    from core.terminal import with_bar
    from datamodules.shards.writing import write_shards

    splits: list[Split] = list(dict.fromkeys(own["splits"]))
    total = sum(-(-len(data.examples(split)) // images) for split in splits)
    written = [not there for _, there in with_bar(write_shards(data, folder, splits, images), "writing shards", total)]
    counts = ", ".join(f"{len(data.examples(split)):,} {split}" for split in splits)
    say(f"{folder}: {counts} images in {len(written):,} shards, {sum(written):,} of them written now")
    say(f"check them with: {command('data', 'check', 'shards', '--root', folder)}")
    return 0


def configured(path: Path) -> tuple[str, list[str]]:
    """The data set of a configuration: its name and the flags that mean the same as its section ``data``.

    Raises:
        UserError: it has no data module of this project.
    """
    import json

    from core.safe_yaml import read_yaml

    found: Any = read_yaml(path)
    section: Any = found.get("data") if isinstance(found, dict) else None
    section = section if isinstance(section, dict) else {}
    class_path = section.get("class_path")
    module = str(class_path).rpartition(".")[0]
    names = [name for name, known in data_sets().items() if module in (known, known.removesuffix(".datamodule"))]
    if not names:
        raise UserError(f"{path}: has no data module of this project in its section data, but {class_path}")
    options: dict[str, Any] = section.get("init_args") or {}
    return names[0], [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()
    ]
