"""Socratis: captioned news pictures with the emotions that people felt."""

import ast
import csv
import io
from pathlib import Path
from typing import Any, Literal

from core.errors import DataError, UserError
from datamodules.base import CaptionDataModule, Split, default_cache_dir
from datamodules.loading.dataset import Example
from datamodules.readers.images import Normalization
from datamodules.readers.label_records import LabelRecord, PictureSearch, picture_folders
from datamodules.readers.records import Problem, Report, clean_caption, fail, parse_json, read_text
from datamodules.readers.socratis_cleaning import (
    EMOTIONS,
    SYNONYMS,
    Reaction,
    clean,
    count_differences,
    counts,
    merge_synonyms,
    read_annotations,
)
from datamodules.splitting.splits import split_counts
from datamodules.splitting.stratified import kept_splits

RAW_FILE = "imCaptionEmotionExplanation_formatted.json"
CLEANED_FILE = "cleaned_data.csv"


class Socratis(CaptionDataModule):
    """Socratis (Deng et al. 2023): 2,065 captioned pictures, each with some of 29 emotions, several annotators merged.

    Reads the raw file, ``imCaptionEmotionExplanation_formatted.json``, and cleans it as published (see
    `datamodules.readers.socratis_cleaning`); or ``cleaned_data.csv``, which has the columns image_name, caption and
    emotions. The labels and their order are always the published ones.

    The data has no splits of its own. They are drawn by image, with a seed, so that every label has its share in each
    (Sechidis et al. 2011), and kept in a file, the same for all stages. For a table over the folds of a
    cross-validation, set `folds` and run with every `fold`.

    Where the pictures cannot be had, it is read with captions only: batches then have no ``image``.

    Args:
        root: folder of the data set.
        annotations_file: the raw JSON or the cleaned CSV, in the root or from where you are; None: the one that is
            there, the raw one before the other.
        image_folder: folder of the pictures inside the root; None: the usual names.
        merge_synonyms: count anger as angry, fear as scared, joy as happy; leaves 26 labels. Published: off.
        captions_only: true: never look for pictures; false: a missing one is an error; None: captions only when fewer
            than half of the pictures are there, said in one line.
        val_fraction: share of the images for validation. With folds it is taken from the images that are not in the
            test fold; 0: validation reads the test fold, so choose nothing on it.
        test_fraction: share for test; not used with folds.
        split_seed: seed of the draw.
        folds: number of folds of a cross-validation; None: one split.
        fold: which fold is test, from 0.
        split_file: JSON file of the split, image name to train, val or test, read if it is there, else written;
            None: a file in the cache.
        tokenizer: see `CaptionDataModule`, as all that follow.
        min_count: words seen less often are unknown.
        max_tokens: longest caption in tokens; 32 is published.
        batch_size: images per batch.
        num_workers: loader processes.
        image_size: pixels.
        normalization: colour scale.
        augment: random crops in training.
        on_bad_image: "error" or "skip".
        evaluate_on: split that validate, test and predict read.
        encoder: frozen image tower whose features take the place of the pictures.
        encoder_weights: its weights.
        regions: region features from files in place of the pictures.

    Raises:
        UserError: a number is out of range, or captions only with an encoder.
    """

    report: Report = staticmethod(fail)
    """What is done with defects of the annotations; a checker replaces it."""

    def __init__(
        self,
        root: str = "data/socratis",
        annotations_file: str | None = None,
        image_folder: str | None = None,
        merge_synonyms: bool = False,
        captions_only: bool | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        split_file: str | None = None,
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        image_size: int = 224,
        normalization: Normalization = "imagenet",
        augment: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        evaluate_on: Split | None = None,
        encoder: str | None = None,
        encoder_weights: str | None = None,
        regions: str | None = None,
    ) -> None:
        super().__init__(
            root=root,
            tokenizer=tokenizer,
            min_count=min_count,
            max_tokens=max_tokens,
            batch_size=batch_size,
            num_workers=num_workers,
            image_size=image_size,
            normalization=normalization,
            augment=augment,
            on_bad_image=on_bad_image,
            evaluate_on=evaluate_on,
            encoder=encoder,
            encoder_weights=encoder_weights,
            regions=regions,
        )
        if captions_only and (encoder is not None or regions is not None):
            wrong = f"encoder={encoder}" if encoder is not None else f"regions={regions}"
            raise UserError(f"captions_only is true with {wrong}: set one of the two off")
        self.annotations_file, self.image_folder = annotations_file, image_folder
        self.merge_synonyms, self.captions_only = merge_synonyms, captions_only
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        self.folds, self.fold, self.split_file = folds, fold, split_file
        self._records: dict[str, list[LabelRecord]] | None = None
        self._paths: dict[str, str | None] = {}

    # facts

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the emotions in the order of `Example.labels`."""
        return tuple(name for name in EMOTIONS if not (self.merge_synonyms and name in SYNONYMS))

    @property
    def num_labels(self) -> int:
        """Number of emotions: 29, or 26 with merged synonyms."""
        return len(self.label_names)

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve a picture: also the label names."""
        return {**super().describe(), "label_names": list(self.label_names)}

    # reading

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations, once for all splits, and finds the pictures of one.

        Raises:
            DataError: a file is missing or broken, or the split has no image.
        """
        search = PictureSearch(
            picture_folders(self.root, self.image_folder),
            self.captions_only if self.encoder_name is None else False,
            keep_missing=self.on_bad_image == "skip",
            needs_none=self.regions is not None,
        )
        if self._records is None:
            records = self._read()
            self._paths = search.find(records, "Socratis")
            self._records = {name: [r for r in records if r.split == name] for name in ("train", "val", "test")}
        if split == "val" and not self._records["val"] and self.folds is not None:
            split = "test"
        if not self._records[split]:
            sizes = split_counts(name for name, found in self._records.items() for _ in found)
            raise DataError(f"{self._path()}: no image in split '{split}' ({sizes}); raise {split}_fraction")
        return search.examples(self._records[split], self._paths, self.report)

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """Compares the full raw file with the published counts; problems and notes for ``data check``."""
        problems, notes = super().check_facts()
        found, more = self._compare_counts()
        return problems + found, notes + more

    def _compare_counts(self) -> tuple[list[Problem], list[str]]:
        path = self._path()
        if path.suffix != ".json":
            return [], [f"{path.name} is the cleaned file: the counts of the raw one cannot be compared"]
        rows = read_annotations(parse_json(read_text(path), path), path, lambda problem: None)
        found = counts(rows)
        if path.name != RAW_FILE:
            return [], [f"{path.name} is not the full raw file ({found['images']} images, {found['rows']} annotators)"]
        problems = [
            Problem("file", f"{path}: {difference}; fetch the file again") for difference in count_differences(found)
        ]
        return problems, [] if problems else ["the raw file has all published counts"]

    def _read(self) -> list[LabelRecord]:
        """All pictures with their labels and splits, in the order of their names."""
        path = self._path()
        reactions = self._clean(path) if path.suffix == ".json" else _read_cleaned(path, self.report)
        if not reactions:
            raise DataError(f"{path}: no picture with one of the {len(EMOTIONS)} emotions; is it the right file?")
        names = self.label_names
        labels = []
        for item in reactions:
            emotions = merge_synonyms(item.emotions) if self.merge_synonyms else item.emotions
            labels.append(tuple(float(name in emotions) for name in names))
        keys = [item.image_name for item in reactions]
        where = Path(self.split_file) if self.split_file else default_cache_dir() / "splits"
        splits = kept_splits(keys, labels, self.fractions, self.split_seed, self.folds, self.fold, where)
        return [
            LabelRecord(item.image_name, item.image_name, (item.caption,), row, split, f"{path}, {item.image_name}")
            for item, row, split in zip(reactions, labels, splits, strict=True)
        ]

    def _clean(self, path: Path) -> list[Reaction]:
        return clean(read_annotations(parse_json(read_text(path), path), path, self.report))

    def _path(self) -> Path:
        """The annotations."""
        if self.annotations_file is not None:
            inside = self.root / self.annotations_file
            return inside if inside.is_file() else Path(self.annotations_file)
        for name in (RAW_FILE, CLEANED_FILE):
            if (self.root / name).is_file():
                return self.root / name
        raise DataError(
            f"{self.root}: neither {RAW_FILE} nor {CLEANED_FILE} is there; put one of them there, or set "
            "annotations_file"
        )


def _read_cleaned(path: Path, report: Report) -> list[Reaction]:
    """Reads the cleaned CSV."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [name for name in ("image_name", "caption", "emotions") if name not in (rows.fieldnames or ())]
    if missing:
        columns = ", ".join(rows.fieldnames or ()) or "none"
        raise DataError(
            f"{path}: no column {missing[0]!r} (columns: {columns}); expected image_name, caption, emotions"
        )
    found: dict[str, Reaction] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num} ({row['image_name']})"
        emotions = emotion_list(row["emotions"])
        unknown = None if emotions is None else next((name for name in emotions if name not in EMOTIONS), None)
        if emotions is None:
            wanted = "expected a list such as ['sad', 'calm']"
            report(Problem("record", f"{where}: emotions is {row['emotions']!r:.60}, {wanted}; mend or remove the row"))
        elif unknown is not None:
            labels = ", ".join(EMOTIONS)
            report(Problem("record", f"{where}: emotion {unknown!r} is none of the published labels ({labels})"))
        elif row["image_name"] in found:
            report(Problem("duplicate", f"{where}: this image is there twice; remove one of the two rows"))
        elif not emotions or not row["caption"].strip():
            what = "has no emotion" if not emotions else "the caption is empty"
            report(Problem("empty", f"{where}: {what}; mend or remove the row"))
        else:
            found[row["image_name"]] = Reaction(row["image_name"], clean_caption(row["caption"]), tuple(emotions))
    return list(found.values())


def emotion_list(text: str | None) -> list[str] | None:
    """Parses a list of strings, written as Python or JSON does, without executing anything.

    Returns:
        The strings; None when it is something else.

    >>> emotion_list("['sad', 'calm']"), emotion_list("__import__('os').getcwd()")
    (['sad', 'calm'], None)
    """
    try:
        found = ast.literal_eval((text or "").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else None
