"""Flickr8k: photographs of people and dogs, five captions each."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import DataError, command
from core.inputs import read_text
from core.text import log_of
from datamodules.base import CaptionDataModule
from datamodules.readers.caption_tables import table_records
from datamodules.readers.download import Archive
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.image_search import IMAGE_FOLDERS
from datamodules.readers.obtaining import Part, below, first_of, images_to, named
from datamodules.readers.records import Columns, Example, Problem, Report, Split, clean_caption

_CAPTION_FILES = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "captions.txt", "captions.csv")
_SPLIT_LISTS: Mapping[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
# the official archive really calls it so
_ARCHIVE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset")
_FEW_MISSING = 0.01
"""Share of a split's images that may be missing without being asked for."""
_TOKEN_LINE = re.compile(r"(?P<file>[^\t]*?)(?:\.\d+)?#(?P<index>\d+)\t(?P<caption>.*)")
_SERVER = "https://github.com/jbrownlee/Datasets/releases/download"
_TEXTS = ("Flickr8k.token.txt", *_SPLIT_LISTS.values())
_TEXT_FILES = named("captions.txt", "ExpertAnnotations.txt", *_TEXTS)
# the authors' form is gone; two independent projects name these checksums for the copies that others pass on
ARCHIVES = {
    "captions": Archive(
        path="Flickr8k/Flickr8k_text.zip",
        size=2_300_000,
        checksum="bf6c1abcb8e4a833b7f922104de18627",
        unpacked=11_000_000,
        contents=tuple((name, 0) for name in _TEXTS),
        server=_SERVER,
        is_size_exact=False,
        place=_TEXT_FILES,
    ),
    "images": Archive(
        path="Flickr8k/Flickr8k_Dataset.zip",
        size=1_120_000_000,
        checksum="f18a1e2920de5bd84dae7cf08ec78978",
        unpacked=1_130_000_000,
        contents=(("Flicker8k_Dataset", 8091),),
        server=_SERVER,
        is_size_exact=False,
    ),
}
"""The published texts and images."""
_log = log_of(__name__)


class Flickr8k(CaptionDataModule):
    """Flickr8k (Hodosh, Young and Hockenmaier 2013), with the official split: 6000, 1000 and 1000 images.

    Expects in the root, or in ``Flickr8k_text/`` as the official archive has it, ``Flickr_8k.trainImages.txt`` and its
    like for dev and test; ``Flickr8k.token.txt``, or the CSV ``captions.txt`` that is often passed on; and the images
    in ``images/`` or ``Flicker8k_Dataset/``. Image ids are file names. Images that no list names are not used.

    Defects of the published files that are corrected: ``2258277193_586949ec62.jpg.1`` is no image of its own; its
    captions belong to ``2258277193_586949ec62.jpg``. Captions that are no sentences ("A") are kept unless `min_words`
    says otherwise.

    Args:
        root: folder of the data set.
        captions_file: the captions, inside the root; None: the usual names, ``Flickr8k.token.txt`` before the CSV.
        image_folder: folder of the images inside the root; None: the usual names.
        allow_missing: use the images that exist; otherwise more than one missing in a hundred is an error. Missing
            ones are counted in the log either way; `on_bad_image` is about those that cannot be decoded.
        min_words: training captions with fewer words are skipped, unless an image would lose all of them; references
            of val and test stay as published.
    """

    has_caption_baselines = True

    def __init__(
        self,
        *,
        root: str = "data/flickr8k",
        captions_file: str | None = None,
        image_folder: str | None = None,
        allow_missing: bool = False,
        min_words: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.captions_file, self.image_folder = captions_file, image_folder
        self.allow_missing, self.min_words = allow_missing, min_words
        self._captions: dict[str, tuple[tuple[str, ...], str]] | None = None

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        """Captions with the official split, and images."""
        texts = [next((str(path) for path in _places(root, name) if path.is_file()), "") for name in _TEXTS]
        table = [str(root / name) for name in _CAPTION_FILES if (root / name).is_file()]
        captions = ", ".join([*table[:1], *texts[1:]]) if table and all(texts[1:]) else ""
        folders = [root / name for name in (*IMAGE_FOLDERS, *_ARCHIVE_FOLDERS) if (root / name).is_dir()]
        where = "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k"
        return {
            "captions": Part(
                found=captions,
                way=f"Put Flickr8k_text.zip, or {', '.join(_TEXTS)} out of it, into '{root}': {where}.",
                archive=ARCHIVES["captions"],
                place=_TEXT_FILES,
                files=_TEXTS,
            ),
            "images": Part(
                found=str(folders[0]) if folders else "",
                way=f"Put Flickr8k_Dataset.zip, or a folder images with the photographs, into '{root}': {where}.",
                archive=ARCHIVES["images"],
                place=first_of(*(below(name) for name in (*_ARCHIVE_FOLDERS[:1], *IMAGE_FOLDERS)), images_to("images")),
            ),
        }

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the list of a split, its captions and which of its images there are.

        Raises:
            DataError: a file is missing or broken, too many images are missing, or one has no captions.
        """
        path = self._find((_SPLIT_LISTS[split], f"Flickr8k_text/{_SPLIT_LISTS[split]}"), "the official split")
        names = read_text(path).split()
        folder = self._images()
        there = {entry.name for entry in folder.iterdir()}  # one look at the folder, not one at each of 6000 files
        found = [name for name in names if name in there]
        self._count_missing(path, folder, names, found)
        captions = self._read_captions()
        examples = []
        for name in found:
            texts, origin = captions.get(name, ((), ""))
            if not texts:
                self.report(Problem("empty", f"{path}, {name}: has no caption; add one or remove the line"))
                continue
            if split == "train":
                texts = tuple(text for text in texts if len(text.split()) >= self.min_words) or texts
            examples.append(Example(image_id=name, image=ImageFile(str(folder / name)), captions=texts, origin=origin))
        return examples

    def _count_missing(self, path: Path, folder: Path, names: list[str], found: list[str]) -> None:
        missing = len(names) - len(found)
        if not missing:
            return
        counted = f"{missing} of {len(names)} images of {path.name} are not in {folder}"
        if not found or (missing > _FEW_MISSING * len(names) and not self.allow_missing):
            example = next(name for name in names if name not in set(found))
            way_out = "put them there, or set allow_missing to true to use the others"
            raise DataError(f"{self.root}: {counted}, such as {example}; {way_out}")
        _log.warning("%s; the other %d are used", counted, len(found))

    def _read_captions(self) -> dict[str, tuple[tuple[str, ...], str]]:
        """Captions of every image, and where the first one stands."""
        if self._captions is None:
            names = _CAPTION_FILES if self.captions_file is None else (self.captions_file,)
            path = self._find(names, "captions")
            text = read_text(path)
            if "\t" in text.split("\n", 1)[0]:
                self._captions = _grouped(_token_lines(text, path, self.report))
            else:
                records = table_records(text, path, Columns(), self.report)
                self._captions = {record.image_name: (record.captions, record.origin) for record in records}
        return self._captions

    def _images(self) -> Path:
        given = self.image_folder
        names = (*IMAGE_FOLDERS, *_ARCHIVE_FOLDERS, "") if given is None else (given,)
        found = next((folder for name in names if (folder := self.root / name).is_dir()), None)
        if found is None:
            raise DataError(f"{self.root / names[0]}: no such folder of images; {_expected(self.root)}")
        return found

    def _find(self, names: tuple[str, ...], what: str) -> Path:
        found = next((path for name in names if (path := self.root / name).is_file()), None)
        if found is None:
            raise DataError(f"{self.root / names[0]}: no such file with {what}; {_expected(self.root)}")
        return found


def _places(root: Path, name: str) -> tuple[Path, Path]:
    """Where a text file may be."""
    return root / name, root / "Flickr8k_text" / name


def _token_lines(text: str, path: Path, report: Report) -> Iterator[tuple[str, int, str, str]]:
    """File, number of the caption, caption and origin of each line of ``Flickr8k.token.txt``."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        match = _TOKEN_LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            report(Problem("record", f"{where}: expected NAME.jpg#NUMBER, a tab and a caption, found {line!r:.60}"))
            continue
        caption = clean_caption(match["caption"])
        if not caption:
            report(Problem("empty", f"{where}: the caption of {match['file']} is empty; write one or remove the line"))
            continue
        yield match["file"], int(match["index"]), caption, where


def _grouped(lines: Iterator[tuple[str, int, str, str]]) -> dict[str, tuple[tuple[str, ...], str]]:
    """Captions by image, in the order of their numbers, and the origin of the first line."""
    groups: dict[str, list[tuple[int, str, str]]] = {}
    for file, index, caption, where in lines:
        groups.setdefault(file, []).append((index, caption, where))
    return {
        file: (tuple(caption for _, caption, _ in sorted(group, key=lambda item: item[0])), f"{group[0][2]} ({file})")
        for file, group in groups.items()
    }


def _expected(root: Path) -> str:
    return (
        f"expected {', '.join(_SPLIT_LISTS.values())}, Flickr8k.token.txt (or the CSV captions.txt) and images/ in "
        f"{root}; get them with: {command('data', 'prepare', 'flickr8k', '--root', root)}; for other splits use "
        "FolderCaptions"
    )
