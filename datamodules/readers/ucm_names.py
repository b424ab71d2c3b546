"""Names of the images of UCM-Captions and its relatives: other names, classes, places."""

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError
from core.inputs import read_text
from datamodules.readers.frames import read_frame
from datamodules.readers.image_search import IMAGE_FOLDERS

UCM_CLASSES = (
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest",
    "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass", "parkinglot",
    "river", "runway", "sparseresidential", "storagetanks", "tenniscourt",
)  # fmt: skip
"""UC Merced's classes, 100 images each, in the order of UCM-Captions' numbers."""


def ucm_name(number: int) -> str | None:
    """UC Merced's name of UCM-Captions' image `number`: the class and the image's number in it.

    >>> ucm_name(1), ucm_name(2100), ucm_name(2101)
    ('agricultural00', 'tenniscourt99', None)
    """
    index, image = divmod(number - 1, 100)
    return f"{UCM_CLASSES[index]}{image:02d}" if 0 <= index < len(UCM_CLASSES) else None


FOLDERS = ("imgs", *IMAGE_FOLDERS, "*_[Ii]mages", "*_imgs", "UCMerced_LandUse/Images")
"""Patterns of the folder of images inside the root, in the order in which they are tried."""
_CLASS_LISTS = "txtclasses*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNames:
    """What else is known of an annotated file name.

    Attributes:
        files: other names that the image may have, relative to the image folder or the root.
        label: its name in the file of multi-labels.
        group: its class.
    """

    files: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None


def image_folders(root: Path) -> list[Path]:
    """Folders of images inside the root that exist, and the root."""
    found = {path: None for name in FOLDERS for path in sorted(root.glob(name)) if path.is_dir()}
    return [*found, root]


def image_names(root: Path, files: list[str], formula: bool) -> dict[str, ImageNames]:
    """What is known of the annotated file names of a data set.

    Args:
        root: its folder, with ``index.csv`` or the lists of classes, if there are any.
        files: the names.
        formula: the numbers are those of UCM-Captions, whose classes follow from them.

    Raises:
        DataError: ``index.csv`` has no column ``filename``.
    """
    index, lists = _index(root), _class_lists(root)
    return {file: index.get(file) or _own_names(file, formula, lists) for file in files}


def is_number(file: str) -> bool:
    """Whether an image is named by its number in UCM-Captions."""
    stem = Path(file).stem
    return stem.isdecimal() and ucm_name(int(stem)) is not None


def _index(root: Path) -> dict[str, ImageNames]:
    """What ``index.csv`` says, by annotated file name."""
    path = root / "index.csv"
    if not path.is_file():
        return {}
    frame = read_frame(read_text(path), path)
    if "filename" not in frame:
        raise DataError(f"{path}: no column 'filename' (columns: {', '.join(frame.columns)})")
    columns = frame.reindex(columns=["filename", "image", "name", "class"], fill_value="")
    return {
        file: ImageNames(files=(image,) if image else (), label=name or None, group=group or None)
        for file, image, name, group in columns.itertuples(index=False, name=None)
    }


def _class_lists(root: Path) -> dict[str, str]:
    """Class by file name, from a folder with one list of file names for each class."""
    lists = [path for folder in sorted(root.glob(_CLASS_LISTS)) for path in sorted(folder.glob("*.txt"))]
    return {name: path.stem for path in lists for name in read_text(path).split()}


def _own_names(file: str, formula: bool, lists: dict[str, str]) -> ImageNames:
    """What a file name says by itself."""
    stem = Path(file).stem
    if formula and stem.isdecimal() and (name := ucm_name(int(stem))):
        return ImageNames(files=(f"{name[:-2]}/{name}.tif", f"{name}.tif"), label=name, group=name[:-2])
    named = re.fullmatch(r"([A-Za-z]+)_\d+", stem)
    group = lists.get(Path(file).name) or (named.group(1).lower() if named else None)
    return ImageNames(files=(f"{group}/{file}",) if group else (), label=None, group=group)
