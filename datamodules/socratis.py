"""Socratis: captioned news images with the emotions that people felt."""

from collections.abc import Sequence
from dataclasses import replace
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
    Reaction,
    clean,
    count_differences,
    counts,
    merge_synonyms,
    read_annotations,
    read_cleaned,
)
from datamodules.readers.socratis_reasons import Reasons, reasons_of
from datamodules.readers.valence import VALENCES, valence
from datamodules.stored_features.combined import SharedRows
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


_BETWEEN = "#"
"""Between the name of an image and an emotion, in the id of an example with reasons."""


class Socratis(LabelledDataModule):
    """Socratis (Deng et al. 2023): 2,065 captioned images, each with some of 29 emotions, several annotators merged.

    Reads the raw file, ``imCaptionEmotionExplanation_formatted.json``, and cleans it as published (see
    `datamodules.readers.socratis_cleaning`); or ``cleaned_data.csv``, which has the columns image_name, caption and
    emotions. The labels and their order are always the published ones. The data has no splits of its own.

    Args:
        root: folder of the data set.
        annotations_file: the raw JSON or the cleaned CSV, in the root or relative to the working directory; None: the
            one that exists, the raw one before the other.
        captions: ``published``, or ``reasons``: why people feel an emotion, from the raw file. An example is then an
            image with one of its emotions, and its captions are the reasons for it (see
            `datamodules.readers.socratis_reasons`).
        caption_labels: label of each caption, for captions on demand: ``valence`` (see `datamodules.readers.valence`),
            ``emotion``, which only reasons have, or ``none``.
        word_features: width of a vector of the published caption's words, in any order; None: none. Batches carry it in
            place of images, so that a captioner writes captions again or reasons from them; beside the features of an
            encoder, reasons alone, it stands behind those of each region.
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
        captions: Literal["published", "reasons"] = "published",
        caption_labels: Literal["valence", "emotion", "none"] = "none",
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
        self.annotations_file, self.merge_synonyms = annotations_file, merge_synonyms
        self.caption_labels, self.word_features = caption_labels, word_features
        self._check_options(captions)
        self.writes_reasons = self.shares_images = self.has_caption_baselines = captions == "reasons"
        self.has_images = word_features is None
        self._reasons: Reasons = {}
        self._published: dict[str, str] = {}

    def _check_options(self, captions: str) -> None:
        """Refuses what contradicts itself."""
        source = self.feature_source
        if self.captions_only and source:
            wrong = f"encoder={source.encoder}" if source.encoder is not None else f"regions={source.regions}"
            raise UserError(f"captions_only is true with {wrong}: set one of the two off")
        labels = {"published": ("valence", "none"), "reasons": ("valence", "emotion", "none")}
        if captions not in labels:
            raise UserError(f"captions is {captions!r}: expected published or reasons")
        if self.word_features is not None and (self.word_features < 1 or (source and captions == "published")):
            raise UserError(
                f"word_features is {self.word_features}: expected 1 or more, and neither an encoder nor regions beside "
                "it unless captions is reasons"
            )
        if self.caption_labels not in labels[captions]:
            known = " or ".join(labels[captions])
            raise UserError(f"caption_labels is {self.caption_labels!r}: expected {known} with captions={captions}")

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
            "reasons": Part(
                found=str(root / RAW_FILE) if (root / RAW_FILE).is_file() else "",
                way=f"Only {RAW_FILE} has them; they are captions with captions=reasons.",
                archive=ARCHIVE,
                place=named(RAW_FILE),
                files=(RAW_FILE,),
                is_needed=False,
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
        """The valences or emotions, where captions have them."""
        return {"valence": VALENCES, "emotion": self.label_names}.get(self.caption_labels, ())

    # captions as features of themselves

    @property
    def feature_dim(self) -> int | None:
        """Width of the vectors of words, of the features of images, or of both."""
        width = super().feature_dim
        return width if self.word_features is None else (width or 0) + self.word_features

    @property
    def feature_grid(self) -> tuple[int, int] | None:
        """One vector of words, or as in every data set."""
        return super().feature_grid or ((1, 1) if self.word_features else None)

    def features(self, split: Split) -> FeatureStore | None:
        """Vectors of words, features of images, or with reasons both; an image is stored once for all its emotions."""
        if split not in self._stores and self.writes_reasons:
            examples = self.examples(split)
            names = [self._image_of(example) for example in examples]
            images = {name: replace(one, image_id=name) for name, one in zip(names, examples, strict=True)}
            words = None if self.word_features is None else self._words([self._published[name] for name in images])
            seen = self.feature_source.store([*images.values()], self.num_workers) if self.feature_source else None
            number = {name: place for place, name in enumerate(images)}
            places = [number[name] for name in names]
            if seen is not None:
                self._stores[split] = SharedRows(places=places, images=seen, words=words)
            elif words is not None:
                self._stores[split] = SharedRows(places=places, images=words)
        elif split not in self._stores and self.word_features is not None:
            self._stores[split] = self._words([example.captions[0] for example in self.examples(split)])
        return self._stores.get(split) if self.writes_reasons else super().features(split)

    def _words(self, captions: Sequence[str]) -> FeatureStore:
        assert self.word_features is not None
        return word_store(captions, self.word_features, default_cache_dir() / "features")

    # reasons

    def load_examples(self, split: Split) -> list[Example]:
        """As in every labelled data set; with reasons, an example for each emotion of an image.

        Raises:
            DataError: see `LabelledDataModule.load_examples`.
        """
        images = super().load_examples(split)
        if not self.writes_reasons:
            return images
        return [
            replace(
                image,
                image_id=f"{image.image_id}{_BETWEEN}{emotion}",
                captions=reasons,
                conditions=self._condition([emotion]) * len(reasons),
                origin=f"{image.origin}, {emotion}",
            )
            for image in images
            for emotion, reasons in self._reasons[str(image.image_id)].items()
        ]

    def classes(self, split: Split) -> dict[str, str]:
        """The emotion of each example, with reasons: what the best reason for it is whatever is to be seen."""
        if not self.writes_reasons:
            return {}
        return {str(one.image_id): str(one.image_id).rpartition(_BETWEEN)[2] for one in self.examples(split)}

    @staticmethod
    def _image_of(example: Example) -> str:
        """Name of the image of an example with reasons."""
        return str(example.image_id).rpartition(_BETWEEN)[0]

    def _condition(self, emotions: Sequence[str]) -> tuple[int, ...]:
        """Label of a caption that these emotions belong to; none where captions have no labels."""
        match self.caption_labels:
            case "valence":
                return (VALENCES.index(valence(emotions)),)
            case "emotion":
                return (self.label_names.index(emotions[0]),)
            case _:
                return ()

    def describe(self) -> dict[str, Any]:
        """Also says that images alone do not do."""
        own = {"regions": {"files": "the words of the captions", "width": self.word_features}}
        return super().describe() | (own if self.word_features else {})

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """Compares the full raw file with the published counts; problems and notes for ``data check``."""
        problems, notes = super().check_facts()
        if self.writes_reasons:
            found = [list(by_emotion.values()) for by_emotion in self._reasons.values()]
            several = [reasons for own in found for reasons in own]
            count = sum(map(len, several))
            notes.append(f"{count:,} reasons for {len(several):,} pairs of image and emotion, {len(found):,} images")
        differences, more = self._compare_counts()
        return problems + differences, notes + more

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
        reactions = self._reactions(path)
        if not reactions:
            raise DataError(f"{path}: no image with one of the {len(EMOTIONS)} emotions; is it the right file?")
        self._published = {item.image_name: item.caption for item in reactions}
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
                    conditions=() if self.writes_reasons else self._condition(item.emotions),
                    origin=f"{path}, {name}",
                )
            )
        return records

    def _reactions(self, path: Path) -> list[Reaction]:
        """The images of a file; with reasons, those that have some."""
        if path.suffix != ".json":
            if self.writes_reasons:
                raise DataError(
                    f"{path} has no reasons, only the raw file has: get {RAW_FILE} with "
                    f"{command('data', 'prepare', 'socratis', '--root', self.root)}"
                )
            return read_cleaned(path, self.report)
        rows = read_annotations(parse_json(read_text(path), path), path, self.report)
        reactions, images = clean(rows), len({row.image_name for row in rows})
        say_dropped(str(path), images - len(reactions), images, f"none of the {len(EMOTIONS)} emotions")
        if not self.writes_reasons:
            return reactions
        self._reasons = reasons_of(rows, self.label_names, SYNONYMS if self.merge_synonyms else None)
        explained = [item for item in reactions if item.image_name in self._reasons]
        say_dropped(str(path), len(reactions) - len(explained), len(reactions), "no reason for any of the emotions")
        return explained

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
