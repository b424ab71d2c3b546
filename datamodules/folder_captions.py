"""Any folder of images with a file of captions: CSV, JSON lines, COCO JSON or Karpathy JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import DataError
from datamodules.base import CaptionDataModule
from datamodules.readers.caption_files import Format, read_records
from datamodules.readers.image_search import IMAGE_FOLDERS, find_images
from datamodules.readers.records import SPLIT_NAMES, SPLITS, Columns, Example, Problem, Split
from datamodules.splitting.splits import assign_splits, split_counts

_USUAL_STEMS = ("captions", "dataset", "metadata", "annotations", "results", "labels", "data")
_USUAL_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json")


class FolderCaptions(CaptionDataModule):
    """Your own images with captions.

    The caption file may be a table with a header (CSV, TSV), JSON lines, a JSON list, COCO captions JSON or Karpathy
    JSON, all in UTF-8; which one is found by its content. An image may have several captions: in rows of their own or
    as a list. Its id is the one of the JSON file or, where there is none, its path as written. An image whose name
    has another ending than the file on disk is found as well.

    Splits are by image: those of a column ``split`` (or of the Karpathy file), or of one file per split
    (``captions_file=captions_{split}.json``). What is missing is drawn from train with a seed: the draw depends on
    an image's id alone, so adding images moves few others.

    Args:
        captions_file: the file, in the root or relative to the working directory; None: the only usual name in the
            root (captions, dataset, metadata, ... with .csv, .tsv, .txt, .jsonl or .json).
        image_folder: folder of the images inside the root, when it is none of the usual ones.
        file_format: ``auto``, or the format when it is detected wrongly (``table``, ``lines``, ``coco``, ``karpathy``).
        image_column: name of the image column, or a pattern of several (``{art_style}/{painting}.jpg``); None: image,
            file_name, path, ...
        caption_column: name of the caption column; None: caption, text, sentence, ...
        split_column: name of the split column; None: split, if there is one.
        label_column: name of the column, or of the key of a sentence, with a label of each caption, such as an emotion;
            None: captions have no labels.
        val_fraction: share of the images for validation when the data has no such split.
        test_fraction: share of the images for test when the data has no such split.
        split_seed: seed of that draw.
    """

    def __init__(
        self,
        *,
        captions_file: str | None = None,
        image_folder: str | None = None,
        file_format: Format = "auto",
        image_column: str | None = None,
        caption_column: str | None = None,
        split_column: str | None = None,
        label_column: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._root_is_given = bool(kwargs.get("root"))  # a path does not tell "" from "."
        self.captions_file = captions_file
        self.image_folder = image_folder
        self.file_format: Format = file_format
        self.columns = Columns(image=image_column, caption=caption_column, split=split_column, label=label_column)
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed
        self._splits: dict[str, list[Example]] | None = None
        self._label_names: tuple[str, ...] = ()

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The labels of the label column, sorted."""
        if self.columns.label is not None:
            self.examples("train")
        return self._label_names

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the caption file, once for all splits, and finds the images of one.

        Raises:
            DataError: a folder or file is missing, a record is broken, or the split has no image.
        """
        if not self._root_is_given and self.captions_file is None:
            raise DataError(
                "root is empty; give a folder with images and a caption file (data.init_args.root, or --root)"
            )
        if not self.root.is_dir():
            raise DataError(f"root={self.root}: no such folder; expected a folder with images and a caption file")
        if self._splits is None:
            self._splits = self._read_splits()
        records = self._splits[split]
        if not records:
            counts = split_counts(name for name, found in self._splits.items() for _ in found)
            way_out = f"name such a split in the captions, raise {split}_fraction, or add images"
            raise DataError(f"{self.root}: no image in split '{split}' ({counts}); {way_out}")
        return find_images(
            records, self._folders(), self.report, keep_missing=self.on_bad_image == "skip", option="image_folder"
        )

    def _read_splits(self) -> dict[str, list[Example]]:
        """Reads all records and sorts them by split."""
        records: list[Example] = []
        given: list[str | None] = []
        for path, split in self._caption_files():
            found = read_records(path, file_format=self.file_format, columns=self.columns, report=self.report)
            records += found
            given += [split or record.split for record in found]
        records = self._with_labels(records)
        keys = [record.image_id for record in records]
        first: dict[str, Example] = {}
        for record in records:  # only files of different splits can name an image again
            other = first.setdefault(record.image_name, record)
            if other is not record:
                advice = "give each image one split"
                self.report(
                    Problem("leak", f"{record.origin}: {record.image_name} is also in {other.origin}; {advice}")
                )
        splits = assign_splits(keys, given, self.fractions, self.split_seed, str(self.captions_file or self.root))
        return {name: [record for record, own in zip(records, splits, strict=True) if own == name] for name in SPLITS}

    def _with_labels(self, records: list[Example]) -> list[Example]:
        """Numbers the labels of captions."""
        if self.columns.label is None:
            return records
        self._label_names = tuple(sorted({label for record in records for label in record.caption_labels} - {""}))
        number = {name: place for place, name in enumerate(self._label_names)}
        return [
            replace(record, conditions=tuple(number.get(label, -1) for label in record.caption_labels))
            for record in records
        ]

    def _caption_files(self) -> list[tuple[Path, str | None]]:
        """The caption files, each with the split that its name says."""
        if self.captions_file is None:
            return [(self._usual_caption_file(), None)]
        if "{split}" not in self.captions_file:
            return [(self._locate(self.captions_file), None)]
        files: list[tuple[Path, str | None]] = []
        for spelling, split in SPLIT_NAMES.items():
            path = self._locate(self.captions_file.replace("{split}", spelling))
            if path.is_file() and split not in [taken for _, taken in files]:
                files.append((path, split))
        if not any(split == "train" for _, split in files):
            path = self._locate(self.captions_file.replace("{split}", "train"))
            raise DataError(f"{path}: no such file; captions_file={self.captions_file} needs at least that of train")
        return files

    def _locate(self, name: str) -> Path:
        """A file inside the root, else from where the user is."""
        inside = self.root / name
        return inside if inside.exists() or not Path(name).exists() else Path(name)

    def _usual_caption_file(self) -> Path:
        """The only file of the root with a usual name."""
        files = sorted(
            path for path in self.root.iterdir() if path.suffix.lower() in _USUAL_SUFFIXES and path.is_file()
        )
        for stem in _USUAL_STEMS:
            named = [path for path in files if path.stem.lower() == stem]
            if len(named) > 1:
                names = ", ".join(path.name for path in named)
                raise DataError(f"{self.root}: {names} may all be the caption file; set captions_file to one of them")
            if named:
                return named[0]
        if len(files) == 1:
            return files[0]
        names = ", ".join(path.name for path in files[:8]) or "no .csv, .tsv, .txt, .jsonl or .json file"
        raise DataError(f"{self.root}: cannot tell the caption file (there: {names}); set captions_file")

    def _folders(self) -> list[Path]:
        """Folders in which images are searched."""
        if self.image_folder is not None:
            folder = self._locate(self.image_folder)
            if not folder.is_dir():
                raise DataError(f"image_folder={self.image_folder}: no such folder in {self.root} or here")
            return [folder]
        return [self.root, *(path for name in IMAGE_FOLDERS if (path := self.root / name).is_dir())]
