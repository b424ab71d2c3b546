"""Finding the images that annotations name."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_plus

from core.text import log_of
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.images import SKIP, find_image, is_file
from datamodules.readers.records import Example, Problem, Report

_log = log_of(__name__)

IMAGE_FOLDERS = ("images", "imgs", "Images", "img", "pictures", "photos")
"""Usual names of the folder of images inside a root, in the order in which they are tried."""


def image_folders(root: Path, given: str | None) -> list[Path]:
    """Folders in which images are searched: the given one, else the usual ones that exist, else the root."""
    if given is not None:
        inside = root / given
        return [inside if inside.is_dir() or not Path(given).is_dir() else Path(given)]
    return [path for name in (*IMAGE_FOLDERS, "") if (path := root / name).is_dir()] or [root]


def find_images(
    records: Iterable[Example], folders: Sequence[Path], report: Report, *, keep_missing: bool = False, option: str = ""
) -> list[Example]:
    """Finds the image file of every record.

    Args:
        records: what the annotations say.
        folders: where images may be; an exact name in any of them goes before another ending in the first.
        report: what is done about a missing image.
        keep_missing: keep such records instead, since bad images are going to be skipped later.
        option: option of the data module that names a folder of the images; empty: it has none.

    Returns:
        The records in their order with the path of the file that exists.
    """
    found = []
    contents: dict[str, set[str]] = {}
    for record in records:
        name = record.image_name
        listed_path = next((at for folder in folders if (at := _listed_file(str(folder), name, contents))), None)
        if listed_path is not None:
            found.append(replace(record, image=ImageFile(listed_path)))
            continue
        path = next((folder / name for folder in folders if is_file(folder / name)), None)
        path = path or next((other for folder in folders if (other := find_image(folder, name))), None)
        if path is None:
            if not keep_missing:
                elsewhere = f" set {option} to the folder that has it," if option else ""
                way_out = f"put it there,{elsewhere} remove the record, or {SKIP}"
                report(Problem("missing", f"{record.origin}: no image file {name} in {listed(folders)}; {way_out}"))
                continue
            path = folders[0] / name
        found.append(replace(record, image=ImageFile(str(path))))
    return found


def _listed_file(folder: str, name: str, contents: dict[str, set[str]]) -> str | None:
    """Path of a file as `pathlib` writes it; `contents` keeps what each folder has: one look instead of 118,287."""
    if not name or name.startswith((".", "/")) or any(part in name for part in ("/.", "//", "\\")):
        return None  # pathlib would write it in another way
    path = name if folder == "." else f"{folder}{os.sep}{name}"
    parent, own = os.path.split(path)
    if parent not in contents:
        try:
            contents[parent] = {entry.name for entry in os.scandir(parent or ".") if entry.is_file()}
        except (OSError, ValueError):
            contents[parent] = set()
    return path if own in contents[parent] else None


def listed(folders: Iterable[Path]) -> str:
    """Folders in a message."""
    return " or ".join(dict.fromkeys(map(str, folders)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSearch:
    """How the images of a labelled data set are found, which may have none.

    Attributes:
        folders: where they may be.
        captions_only: True: no image is searched; False: a missing one is a problem; None: when fewer than half
            exist, the data set is read without images.
        keep_missing: keep the path of a missing image, since bad ones are going to be skipped later.
        needs_none: the images are not read anyway, since their region features are.
        origin: where the images can be had, for messages.
    """

    folders: Sequence[Path]
    captions_only: bool | None = None
    keep_missing: bool = False
    needs_none: bool = False
    origin: str = ""

    def find(self, records: Sequence[Example], name: str) -> dict[str | int, str | None]:
        """Path of every image by the record's id: None where it is missing, empty where none is needed.

        Args:
            records: those of all splits, so that all splits are read alike.
            name: the data set, for the line that says that there are no images.
        """
        if self.captions_only:
            return {record.image_id: "" for record in records}
        contents: dict[Path, set[str]] = {}
        found = {record.image_id: self._path(record.image_name, contents) for record in records}
        missing = sum(path is None for path in found.values())
        if self.needs_none or (self.captions_only is None and 2 * missing > len(found)):
            if missing and not self.needs_none:
                _log.warning(
                    "%s: %d of %d images are not in %s: captions only, batches have no images",
                    name, missing, len(found), listed(self.folders),
                )  # fmt: skip
            return {image_id: (path or "") if self.needs_none else "" for image_id, path in found.items()}
        return found

    def _path(self, name: str, contents: dict[Path, set[str]]) -> str | None:
        """Where an image is; `contents` keeps what each folder has, which is faster than asking for each file."""
        # names that were taken from addresses have %2C and + in them, and files may have either form
        for folder in self.folders:
            for spelling in dict.fromkeys((name, unquote_plus(name))) if name else ():
                path = folder / spelling
                if path.parent not in contents:
                    contents[path.parent] = _stems(path.parent)
                if {path.stem, path.name} & contents[path.parent] and (found := find_image(folder, spelling)):
                    return str(found)
        return None

    def examples(self, records: Iterable[Example], paths: dict[str | int, str | None], report: Report) -> list[Example]:
        """The records whose image exists or is not needed, with its path; the others are reported."""
        examples = []
        for record in records:
            path, name = paths[record.image_id], record.image_name
            if path is None and self.keep_missing:
                path = str(self.folders[0] / name)
            if path is None:
                what = f"no image file {name} in {listed(self.folders)}" if name else "names no image"
                there = f"put it there ({self.origin})" if self.origin else "put it there"
                way_out = f"{there}, {SKIP}, or captions_only=true for text alone"
                report(Problem("missing", f"{record.origin}: {what}; {way_out}"))
                continue
            examples.append(replace(record, image=ImageFile(path) if path else None))
        return examples


def _stems(folder: Path) -> set[str]:
    """Names of a folder's files without their endings; empty when there is no such folder."""
    try:
        return {entry.name.rpartition(".")[0] or entry.name for entry in os.scandir(folder)}
    except OSError:
        return set()
