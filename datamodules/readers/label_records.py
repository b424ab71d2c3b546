"""Labelled pictures: records, and where their pictures are, if they are there at all."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

from datamodules.loading.dataset import Example
from datamodules.readers.images import find_image
from datamodules.readers.records import Problem, Report

_log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "imgs", "Images", "img", "pictures", "photos", "")
"""Where pictures are looked for inside a root, in this order; the last is the root itself."""


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One picture with labels.

    Attributes:
        image_id: as in the source.
        file: the picture's path as written; empty when the data has none.
        captions: its captions, white space put right.
        labels: targets in [0, 1], one for each label.
        split: train, val or test; None when the file does not say.
        origin: file and record, for messages.
    """

    image_id: str
    file: str
    captions: tuple[str, ...]
    labels: tuple[float, ...]
    split: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class PictureSearch:
    """How the pictures of a data set are found.

    Attributes:
        folders: where they may be.
        captions_only: True: no picture is looked for; False: a missing one is a problem; None: when fewer than half
            are there, the data set is read without pictures.
        keep_missing: keep the path of a missing picture, for bad ones are going to be left out later.
        needs_none: the pictures are not read anyway, since their region features are.
    """

    folders: Sequence[Path]
    captions_only: bool | None = None
    keep_missing: bool = False
    needs_none: bool = False

    def find(self, records: Sequence[LabelRecord], name: str) -> dict[str, str | None]:
        """Path of every picture by the record's id: None where it is missing, empty where none is wanted.

        Args:
            records: those of all splits, so that all splits are read alike.
            name: the data set, for the line that says that there are no pictures.
        """
        if self.captions_only:
            return {record.image_id: "" for record in records}
        listed: dict[Path, set[str]] = {}
        found = {record.image_id: self._path(record, listed) for record in records}
        missing = sum(path is None for path in found.values())
        if self.needs_none or (self.captions_only is None and 2 * missing > len(found)):
            if missing and not self.needs_none:
                places = " or ".join(dict.fromkeys(str(folder) for folder in self.folders))
                _log.warning(
                    "%s: %d of %d pictures are not in %s: captions only, batches have no pictures",
                    name, missing, len(found), places,
                )  # fmt: skip
            return {image_id: (path or "") if self.needs_none else "" for image_id, path in found.items()}
        return found

    def _path(self, record: LabelRecord, listed: dict[Path, set[str]]) -> str | None:
        """Where a record's picture is; `listed` keeps what is in each folder, which is faster than asking for each."""
        # names that were taken from addresses have %2C and + in them, and files may have either form
        for folder in self.folders:
            for name in dict.fromkeys((record.file, unquote_plus(record.file))) if record.file else ():
                path = folder / name
                if path.parent not in listed:
                    listed[path.parent] = _stems(path.parent)
                if {path.stem, path.name} & listed[path.parent] and (found := find_image(folder, name)):
                    return str(found)
        return None

    def examples(self, records: Iterable[LabelRecord], paths: dict[str, str | None], report: Report) -> list[Example]:
        """Examples of the records whose picture is there or not needed; the others are reported."""
        examples = []
        for record in records:
            path = paths[record.image_id]
            if path is None and self.keep_missing:
                path = str(self.folders[0] / record.file)
            if path is None:
                places = " or ".join(dict.fromkeys(str(folder) for folder in self.folders))
                what = f"no image file {record.file} in {places}" if record.file else "names no image"
                way_out = "put it there, pass on_bad_image=skip, or captions_only=true for text alone"
                report(Problem("missing", f"{record.origin}: {what}; {way_out}"))
                continue
            examples.append(Example(record.image_id, path, record.captions, record.labels, record.origin))
        return examples


def picture_folders(root: Path, given: str | None) -> list[Path]:
    """Folders in which pictures are looked for: the given one, else the usual ones that are there and the root."""
    if given is not None:
        inside = root / given
        return [inside if inside.is_dir() or not Path(given).is_dir() else Path(given)]
    return [path for name in IMAGE_FOLDERS if (path := root / name).is_dir()] or [root]


def _stems(folder: Path) -> set[str]:
    """Names of a folder's files without their endings; empty when there is no such folder."""
    try:
        return {entry.name.rpartition(".")[0] or entry.name for entry in os.scandir(folder)}
    except OSError:
        return set()
