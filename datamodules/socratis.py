"""Socratis: captioned news images with the emotions that people felt."""

from pathlib import Path
from typing import Any, Literal

from core.cache import default_cache_dir
from core.errors import DataError, UserError, command
from core.inputs import parse_json, read_text
from datamodules.labelled import LabelledDataModule
from datamodules.readers.download import Archive
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.image_search import ImageSearch, image_folders
from datamodules.readers.obtaining import Part, images_to, named
from datamodules.readers.records import Example, Problem, Split, say_dropped
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
from datamodules.readers.valence import VALENCES, valence
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.words import word_store

RAW_FILE = "imCaptionEmotionExplanation_formatted.json"
CLEANED_FILE = "cleaned_data.csv"
_SOURCE = "arijitray1993/socratis"
_COMMIT = "bda2cc527ce9f1af53e662d95a74bfb3fd771a70"
IMAGES = "https://drive.google.com/file/d/1J8SiUEfKqc5rfxE1nwZUrG1Hcz7Djc3G"
"""The authors' archive of images, as the README of their repository links it."""
ARCHIVE = Archive(
    path=f"{_SOURCE}/{_COMMIT}/{RAW_FILE}",
    size=9_000_000,
    checksum="2e8ca64c9c4b7685fe68f0753f30f48b91e8500f",
    unpacked=9_000_000,
    contents=((RAW_FILE, 0),),
    server="https://raw.githubusercontent.com",
    is_size_exact=False,
)
"""The raw file; the checksum is git's name of it in that commit."""


class Socratis(LabelledDataModule):
    """Socratis (Deng et al. 2023): 2,065 captioned images, each with some of 29 emotions, several annotators merged.

    Reads the raw file, ``imCaptionEmotionExplanation_formatted.json``, and cleans it as published (see
    `datamodules.readers.socratis_cleaning`); or ``cleaned_data.csv``, which has the columns image_name, caption and
    emotions. The labels and their order are always the published ones. The data has no splits of its own.

    Args:
        root: folder of the data set.
        annotations_file: the raw JSON or the cleaned CSV, in the root or relative to the working directory; None: the
            one that exists, the raw one before the other.
        caption_labels: label of each caption, for captions on demand: ``valence`` (see `datamodules.readers.valence`)
            or ``none``.
        word_features: width of a vector of each caption's own words, in any order, that batches carry in place of
            images: a captioner then writes captions again; None: none. Needs no images.
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
        caption_labels: Literal["valence", "none"] = "none",
        word_features: int | None = None,
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
        if word_features is not None and (word_features < 1 or source):
            raise UserError(
                f"word_features is {word_features}: expected 1 or more, and neither an encoder nor regions beside it"
            )
        if caption_labels not in ("valence", "none"):
            raise UserError(f"caption_labels is {caption_labels!r}: expected valence or none")
        self.annotations_file, self.merge_synonyms = annotations_file, merge_synonyms
        self.caption_labels, self.word_features = caption_labels, word_features
        self.has_images = word_features is None

    images_origin = f"the authors offer them at {IMAGES}"

    @classmethod
    def parts(cls, root: Path) -> dict[str, Part]:
        """The emotions and captions, and the images."""
        annotations = [str(root / name) for name in (RAW_FILE, CLEANED_FILE) if (root / name).is_file()]
        images, share = "", ""
        if annotations:
            module = cls(root=str(root))
            with module.collected_problems():  # `data check` tells them
                records = module.read_records()
            paths = ImageSearch(folders=image_folders(root, None), captions_only=False).find(records, annotations[0])
            there = sum(path is not None for path in paths.values())
            share = f"{there:,} of {len(paths):,} are there. "
            images = f"{there:,} in {root}" if there == len(paths) else ""
        return {
            "annotations": Part(
                found=annotations[0] if annotations else "",
                way=f"Put {RAW_FILE} into '{root}': it is in the repository {_SOURCE} of GitHub. {CLEANED_FILE} does.",
                archive=ARCHIVE,
                place=named(RAW_FILE, CLEANED_FILE),
                files=(RAW_FILE, CLEANED_FILE),
            ),
            "images": Part(
                found=images,
                way=f"{share}Fetch the authors' archive, {IMAGES}, with a browser (there is no plain address), put it "
                f"into '{root}' and run this again; or put the images into '{root / 'images'}'.",
                place=images_to("images"),
            ),
        }

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the emotions in the order of `Example.labels`: 29, or 26 with merged synonyms."""
        return tuple(name for name in EMOTIONS if not (self.merge_synonyms and name in SYNONYMS))

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The valences, where captions have them."""
        return VALENCES if self.caption_labels == "valence" else ()

    # captions as features of themselves

    @property
    def feature_dim(self) -> int | None:
        """Width of the vectors of words, or as in every data set."""
        return self.word_features or super().feature_dim

    @property
    def feature_grid(self) -> tuple[int, int] | None:
        """One vector of words, or as in every data set."""
        return (1, 1) if self.word_features else super().feature_grid

    def features(self, split: Split) -> FeatureStore | None:
        """Vectors of words, or as in every data set."""
        if self.word_features is None:
            return super().features(split)
        if split not in self._stores:
            captions = [example.captions[0] for example in self.examples(split)]
            self._stores[split] = word_store(captions, self.word_features, default_cache_dir() / "features")
        return self._stores[split]

    def describe(self) -> dict[str, Any]:
        """Also says that images are not read."""
        own = {"regions": {"files": "the words of the captions", "width": self.word_features}}
        return super().describe() | (own if self.word_features else {})

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
                    conditions=(VALENCES.index(valence(item.emotions)),) if self.condition_names else (),
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
            f"{self.root}: neither {RAW_FILE} nor {CLEANED_FILE} is there; get the former, from the GitHub repository "
            f"{_SOURCE}, with: {command('data', 'prepare', 'socratis', '--root', self.root)} (the images: {IMAGES})"
        )
