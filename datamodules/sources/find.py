"""Finding out what a source of pictures is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import UserError
from datamodules.readers.hub_rows import is_saved
from datamodules.readers.images import IMAGE_SUFFIXES
from datamodules.sources.base import PictureSource
from datamodules.sources.files import LIST_SUFFIXES, files_of, folder_of, list_of

SHARDS = (".parquet", ".tar")
"""Endings of files with many pictures."""
EXPECTED = (
    "a folder of pictures, a list of files (.txt, .csv, .tsv, .jsonl), Parquet files or tar archives (or a folder of "
    "them), what save_to_disk wrote, or hf://datasets/OWNER/NAME"
)


def find_source(names: Sequence[str], *, subset: str | None = None, split: str | None = None) -> PictureSource:
    """The pictures that names of files and folders stand for.

    Args:
        names: one folder of pictures or shards, one list, any number of shards, pictures and folders of them, or one
            data set of `datasets`: ``hf://datasets/OWNER/NAME``, or a folder that it saved.
        subset: configuration of a data set on the hub.
        split: of a data set; None: all.

    Raises:
        UserError: there is no such file, folder or data set, it holds no picture, or it cannot be told what is meant.
    """
    found = _data_set(names, subset, split)
    source = _files(names) if found is None else found
    if not len(source):
        raise UserError(f"{' '.join(names[:4])}: no picture in it ({', '.join(IMAGE_SUFFIXES)}); expected {EXPECTED}")
    return source


def _files(names: Sequence[str]) -> PictureSource:
    """The pictures of files and folders; there may be none."""
    paths = [Path(name) for name in names]
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no file or folder '{path}': expected {EXPECTED}")
    endings = {path.suffix.lower() if path.is_file() else "/" for path in paths}
    if endings <= set(SHARDS):
        source = _shards(paths)
    elif endings & {*SHARDS, *LIST_SUFFIXES} and len(paths) > 1:
        raise UserError(f"{' '.join(names[:4])}: several sources of different kinds; give one: {EXPECTED}")
    elif endings <= set(LIST_SUFFIXES):
        source = list_of(paths[0])
    elif endings == {"/"} and len(paths) == 1:
        source = folder_of(names[0])
        if not len(source):
            source = _shards(sorted(path for path in paths[0].iterdir() if path.suffix.lower() in SHARDS))
    else:
        source = files_of(names)
    return source


def _data_set(names: Sequence[str], subset: str | None, split: str | None) -> PictureSource | None:
    """The pictures of a data set of `datasets`; None: the names mean something else."""
    hub, saved = names[0].startswith("hf://"), is_saved(Path(names[0]))
    if not hub and not saved:
        if given := [f"--{name}" for name, value in (("subset", subset), ("split", split)) if value is not None]:
            raise UserError(f"{given[0]} is for data sets of the hub: '{names[0]}' is none (hf://datasets/OWNER/NAME)")
        return None
    if len(names) > 1:
        raise UserError(f"{' '.join(names[:4])}: several sources; give one data set")
    if saved and subset is not None:
        raise UserError(f"--subset is for data sets of the hub: '{names[0]}' was saved from one subset")
    from datamodules.sources.data_sets import hub_pictures, saved_pictures  # `datasets` is slow to import

    return hub_pictures(names[0], subset, split) if hub else saved_pictures(Path(names[0]), split)


def _shards(paths: Sequence[Path]) -> PictureSource:
    from datamodules.sources.shards import ParquetPictures, TarPictures  # pyarrow is slow to import

    kinds: dict[str, Callable[[Sequence[Path]], PictureSource]] = {".parquet": ParquetPictures, ".tar": TarPictures}
    endings = {path.suffix.lower() for path in paths}
    if len(endings) > 1:
        raise UserError(f"{paths[0].parent}: has Parquet files and tar archives: name those of one kind")
    return kinds[endings.pop() if endings else ".tar"](paths)
