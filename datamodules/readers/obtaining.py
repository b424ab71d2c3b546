"""How the files of a data set come into its folder: what ``data prepare`` asks a data module."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from core.errors import DataError
from datamodules.readers.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from datamodules.readers.download import Archive
    from datamodules.readers.unpacking import Place, Progress


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a data set.

    Attributes:
        found: what there is of it, empty if nothing.
        way: where it comes from and which file goes where, for what cannot be fetched.
        archive: what is fetched from a plain address; None: there is none.
        place: where the files of an archive go that the user has got elsewhere; None: there are no such archives.
        files: names of files, not archives, that the user may have elsewhere.
        is_needed: whether training works only with it.
    """

    found: str
    way: str
    archive: "Archive | None" = None
    place: "Place | None" = None
    files: tuple[str, ...] = ()
    is_needed: bool = True


class Obtainable:
    """Base of data modules; the answers here are those of a data set that the user brings along."""

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        """Parts of a data set that can be fetched, unpacked or said where they are; empty: none.

        Args:
            root: folder of the data set.
        """
        del root
        return {}

    @classmethod
    def from_table(cls, source: str, root: Path) -> list[str]:
        """Writes a data set in its own layout from a table of the hub, and says what in a few lines.

        Args:
            source: hub id, or a local file or folder of Parquet files and the like.
            root: folder of the data set.

        Raises:
            DataError: this data set has no other layout, or the table is another one.
        """
        del root
        raise DataError(f"{source}: {cls.__name__} is not made from tables; read them with hub_captions")


def adopt(parts: dict[str, Part], root: Path, given: Sequence[Path], progress: "Progress | None" = None) -> list[str]:
    """Unpacks into the root what missing parts need of archives that the user has brought along.

    Args:
        parts: parts of the data set.
        root: its folder; archives that lie in it count as well.
        given: archives, or plain files that are copied.
        progress: called after each file.

    Returns:
        For each archive a line on what was taken from it.

    Raises:
        DataError: a given file does not exist, or has nothing that is missing; or an archive is broken.
    """
    from datamodules.readers.unpacking import is_archive, unpack

    lines = []
    lying = [path for path in sorted(root.iterdir()) if is_archive(path) and path.is_file()] if root.is_dir() else []
    for path in dict.fromkeys([*given, *lying]):
        lacking = {name: part for name, part in parts.items() if not part.found}
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected an archive or file of {', '.join(lacking) or 'nothing'}")
        root.mkdir(parents=True, exist_ok=True)
        taken = _copied(lacking, path, root) if not is_archive(path) else 0
        for part in lacking.values() if is_archive(path) else ():
            if part.place is not None:
                taken += unpack(path, root, progress, part.place)
        if taken:
            lines.append(f"{path.name}: {taken:,} {'file' if taken == 1 else 'files'} put into {root}")
        elif path in given:
            raise DataError(f"{path}: has nothing of what is missing ({', '.join(lacking) or 'nothing is'})")
    return lines


def images_to(folder: str) -> "Place":
    """Puts all images of an archive into one folder, whatever folders they are in there.

    >>> place = images_to("images")
    >>> place("socratis/batch 1/a.JPG"), place("socratis/readme.txt")
    ('images/a.JPG', None)
    """
    return lambda name: f"{folder}/{PurePosixPath(name).name}" if _is_image(name) else None


def below(folder: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> "Place":
    """Puts what is in a folder of an archive, and ends in one of these, into the same folder of the root.

    >>> place = below("Images")
    >>> place("UCMerced_LandUse/Images/river/river00.tif"), place("UCMerced_LandUse/readme.txt")
    ('Images/river/river00.tif', None)
    """

    def place(name: str) -> str | None:
        parts = PurePosixPath(name).parts
        if folder not in parts[:-1] or not name.lower().endswith(tuple(suffixes)):
            return None
        return "/".join(parts[parts.index(folder) :])

    return place


def named(*names: str) -> "Place":
    """Puts files of these names into the root itself.

    >>> named("dataset.json")("UCM_captions/dataset.json")
    'dataset.json'
    """
    return lambda name: PurePosixPath(name).name if PurePosixPath(name).name in names else None


def first_of(*places: "Place") -> "Place":
    """What the first of them says that says anything."""
    return lambda name: next((target for place in places if (target := place(name)) is not None), None)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _copied(parts: dict[str, Part], path: Path, root: Path) -> int:
    """Copies a plain file that a part is made of; returns how many, 0 or 1."""
    import shutil

    from core.files import replacing

    if not any(path.name in part.files for part in parts.values()):
        return 0
    with path.open("rb") as source, replacing(root / path.name) as copy:
        shutil.copyfileobj(source, copy)
    return 1
