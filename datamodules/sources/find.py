"""Finding out what a source of pictures is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import UserError
from datamodules.readers.images import IMAGE_SUFFIXES
from datamodules.sources.base import PictureSource
from datamodules.sources.files import LIST_SUFFIXES, files_of, folder_of, list_of

SHARDS = (".parquet", ".tar")
"""Endings of files with many pictures."""
EXPECTED = (
    "a folder of pictures, a list of files (.txt, .csv, .tsv, .jsonl), Parquet files or tar archives (or a folder of "
    "them)"
)


def find_source(names: Sequence[str]) -> PictureSource:
    """The pictures that names of files and folders stand for.

    Args:
        names: one folder of pictures or shards, one list, any number of shards, or pictures and folders of them.

    Raises:
        UserError: there is no such file or folder, it holds no picture, or it cannot be told what is meant.
    """
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
    if not len(source):
        raise UserError(f"{' '.join(names[:4])}: no picture in it ({', '.join(IMAGE_SUFFIXES)}); expected {EXPECTED}")
    return source


def _shards(paths: Sequence[Path]) -> PictureSource:
    from datamodules.sources.shards import ParquetPictures, TarPictures  # pyarrow is slow to import

    kinds: dict[str, Callable[[Sequence[Path]], PictureSource]] = {".parquet": ParquetPictures, ".tar": TarPictures}
    endings = {path.suffix.lower() for path in paths}
    if len(endings) > 1:
        raise UserError(f"{paths[0].parent}: has Parquet files and tar archives: name those of one kind")
    return kinds[endings.pop() if endings else ".tar"](paths)
