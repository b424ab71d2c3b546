"""Socratis: captioned news images with the emotions that people felt."""

from pathlib import Path
from typing import Any

from core.errors import DataError, UserError
from core.inputs import parse_json, read_text
from datamodules.labelled import LabelledDataModule
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example, Problem, say_dropped
from datamodules.readers.socratis_cleaning import (
    EMOTIONS,
    SYNONYMS,
    clean,
    count_differences,
    counts,
    merge_synonyms,
    read_annotations,
    read_cleaned,
)

RAW_FILE = "imCaptionEmotionExplanation_formatted.json"
CLEANED_FILE = "cleaned_data.csv"
_SOURCE = "arijitray1993/socratis"


class Socratis(LabelledDataModule):
    """Socratis (Deng et al. 2023): 2,065 captioned images, each with some of 29 emotions, several annotators merged.

    Reads the raw file, ``imCaptionEmotionExplanation_formatted.json``, and cleans it as published (see
    `datamodules.readers.socratis_cleaning`); or ``cleaned_data.csv``, which has the columns image_name, caption and
    emotions. The labels and their order are always the published ones. The data has no splits of its own.

    Args:
        root: folder of the data set.
        annotations_file: the raw JSON or the cleaned CSV, in the root or relative to the working directory; None: the
            one that exists, the raw one before the other.
        merge_synonyms: count anger as angry, fear as scared, joy as happy; leaves 26 labels. Published: off.
        test_fraction: share for test; not used with folds.
        max_tokens: longest caption in tokens; 32 is published.
        batch_size: images per batch and process.
        num_workers: loader processes; 0: the main process.

    Raises:
        UserError: a number is out of range, or captions only with an encoder.
    """

    def __init__(
        self,
        *,
        root: str = "data/socratis",
        annotations_file: str | None = None,
        merge_synonyms: bool = False,
        test_fraction: float = 0.2,
        max_tokens: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root=root,
            test_fraction=test_fraction,
            max_tokens=max_tokens,
            batch_size=batch_size,
            num_workers=num_workers,
            **kwargs,
        )
        source = self.feature_source
        if self.captions_only and source:
            wrong = f"encoder={source.encoder}" if source.encoder is not None else f"regions={source.regions}"
            raise UserError(f"captions_only is true with {wrong}: set one of the two off")
        self.annotations_file, self.merge_synonyms = annotations_file, merge_synonyms

    images_origin = f"the README of the GitHub repository {_SOURCE} links the images"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the emotions in the order of `Example.labels`: 29, or 26 with merged synonyms."""
        return tuple(name for name in EMOTIONS if not (self.merge_synonyms and name in SYNONYMS))

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """Compares the full raw file with the published counts; problems and notes for ``data check``."""
        problems, notes = super().check_facts()
        found, more = self._compare_counts()
        return problems + found, notes + more

    def _compare_counts(self) -> tuple[list[Problem], list[str]]:
        path = self.annotations()
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

    def read_records(self) -> list[Example]:
        """Reads all images with their labels, in the order of their names.

        Raises:
            DataError: the file is missing or broken, or has no usable record.
        """
        path = self.annotations()
        if path.suffix == ".json":
            rows = read_annotations(parse_json(read_text(path), path), path, self.report)
            reactions, images = clean(rows), len({row.image_name for row in rows})
            say_dropped(str(path), images - len(reactions), images, f"none of the {len(EMOTIONS)} emotions")
        else:
            reactions = read_cleaned(path, self.report)
        if not reactions:
            raise DataError(f"{path}: no image with one of the {len(EMOTIONS)} emotions; is it the right file?")
        records = []
        for item in reactions:
            name = item.image_name
            emotions = merge_synonyms(item.emotions) if self.merge_synonyms else item.emotions
            labels = tuple(float(label in emotions) for label in self.label_names)
            records.append(
                Example(
                    image_id=name,
                    image=ImageFile(name),
                    captions=(item.caption,),
                    labels=labels,
                    origin=f"{path}, {name}",
                )
            )
        return records

    def annotations(self) -> Path:
        """The raw file or the cleaned one.

        Raises:
            DataError: neither is there.
        """
        if self.annotations_file is not None:
            inside = self.root / self.annotations_file
            return inside if inside.is_file() else Path(self.annotations_file)
        for name in (RAW_FILE, CLEANED_FILE):
            if (self.root / name).is_file():
                return self.root / name
        raise DataError(
            f"{self.root}: neither {RAW_FILE} nor {CLEANED_FILE} is there; the former is in the GitHub repository "
            f"{_SOURCE}, whose README links the images: put both there, or set annotations_file"
        )
