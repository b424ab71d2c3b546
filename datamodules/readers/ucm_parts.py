"""The parts of UCM-Captions and its relatives, and where each can be had."""

from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Protocol

from core.errors import command
from datamodules.readers.download import Archive
from datamodules.readers.obtaining import Part, below, first_of, named
from datamodules.readers.ucm_labels import LABEL_FILES
from datamodules.readers.ucm_names import FOLDERS

ANNOTATIONS = ("dataset.json", "dataset_*.json")
"""Usual names of the captions."""
UCM_CAPTIONS = "https://mega.nz/folder/wCpSzSoS#RXzIlrv--TDt3ENZdKN8JA"
SYDNEY_CAPTIONS = "https://mega.nz/folder/pG4yTYYA#4c4buNFLibryZnlujsrwEQ"
"""Folders in which the authors of RSICD offer the archives; there is no plain address, a browser fetches them."""
RSICD = "danielz01/rsicd"
"""RSICD on the hub, as Parquet."""
_REPOSITORY = "https://git.wur.nl/lobry001/ucmdata"
# two independent projects name this checksum
IMAGES = Archive(
    path="datasets/UCMerced_LandUse.zip",
    size=332_000_000,
    checksum="5b7ec56793786b6dc8a908e8854ac0e4",
    unpacked=420_000_000,
    contents=(("UCMerced_LandUse/Images", 21),),
    server="http://weegee.vision.ucmerced.edu",
    is_size_exact=False,
)
LABELS = Archive(
    path="lobry001/ucmdata/-/raw/HEAD/LandUse_Multilabeled.txt",
    size=100_000,
    checksum=None,
    unpacked=100_000,
    contents=(("LandUse_Multilabeled.txt", 0),),
    server="https://git.wur.nl",
    is_size_exact=False,
)
_ENDINGS = [f"{sub}*.{end}" for sub in ("", "*/") for end in ("tif", "png", "jpg", "TIF", "PNG", "JPG")]


class AnnotatedImages(Protocol):
    """What is asked of the data module."""

    @property
    def is_ucm(self) -> bool:
        """Whether the images are UC Merced's."""

    def image_files(self) -> list[Path | None]:
        """Where each annotated image is."""

    def collected_problems(self) -> AbstractContextManager[object]:
        """Inside, reading continues after a problem."""


def found_in(root: Path, *patterns: str) -> str:
    """The first file of a root with one of the names; empty if there is none."""
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))] if root.is_dir() else []
    return str(paths[0]) if paths else ""


def ucm_parts(root: Path, data: AnnotatedImages | None) -> dict[str, Part]:
    """Captions, images and labels of a root.

    Args:
        root: its folder.
        data: the data module of the root; None: it has no captions.
    """
    images, share, is_ucm = (
        found_in(root, *(f"{name}/{end}" for name in FOLDERS for end in _ENDINGS), *_ENDINGS),
        "",
        True,
    )
    if data is not None:
        with data.collected_problems():  # `data check` tells them
            files, is_ucm = data.image_files(), data.is_ucm
        there = [path for path in files if path]
        images = str(there[0]) if there and len(there) == len(files) else ""
        share = f"{len(there)} of {len(files)} are there. "
    parts = {"captions": _captions(root), "images": _images(root, images, share, is_ucm)}
    return {**parts, "multi-labels": _labels(root)} if is_ucm else parts


def _captions(root: Path) -> Part:
    way = (
        f"Fetch UCM_captions.zip with a browser from {UCM_CAPTIONS} (Sydney-Captions: {SYDNEY_CAPTIONS}), put it, or "
        f"dataset.json out of it, into '{root}' and run this again. RSICD and others are tables of the hub: "
        f"--table {RSICD}."
    )
    return Part(found=found_in(root, *ANNOTATIONS), way=way, place=_annotation, files=("dataset.json",))


def _images(root: Path, found: str, share: str, is_ucm: bool) -> Part:
    place = first_of(*(below(name) for name in ("Images", "imgs", "images", "RSICD_images")))
    if not is_ucm:
        way = (
            f"Put the archive that dataset.json came from, or a folder imgs with the images, into '{root}': "
            f"Sydney-Captions: {SYDNEY_CAPTIONS}; RSICD: "
            f"{command('data', 'prepare', 'ucm_captions', '--root', root, '--table', RSICD)}. A file imgs.rar has to "
            "be unpacked by hand."
        )
        return Part(found=found, way=share + way, place=place)
    way = (
        f"{share}Put UCMerced_LandUse.zip (317 MB, public domain), its folder UCMerced_LandUse/Images (21 folders of "
        f"100 .tif) or imgs (1.tif to 2100.tif) into '{root}': {IMAGES.server}/datasets/landuse.html, or {_REPOSITORY}."
    )
    return Part(found=found, way=way, archive=IMAGES, place=place)


def _labels(root: Path) -> Part:
    way = (
        f"Put LandUse_Multilabeled.txt (Chaudhuri et al. 2018) into '{root}': {_REPOSITORY}, or multilabels.zip of TU "
        "Berlin's remote sensing group. Only labels need it."
    )
    return Part(
        found=found_in(root, *LABEL_FILES),
        way=way,
        archive=LABELS,
        place=named(*LABEL_FILES),
        files=LABEL_FILES,
    )


def _annotation(name: str) -> str | None:
    """Puts the annotations into the root."""
    path = PurePosixPath(name)
    return path.name if any(path.match(pattern) for pattern in ANNOTATIONS) else None
