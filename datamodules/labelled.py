"""What data sets of labelled images have in common: images that may be missing, and stratified splits."""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from core.cache import default_cache_dir
from core.errors import DataError
from datamodules.base import CaptionDataModule
from datamodules.readers.image_search import ImageSearch, image_folders
from datamodules.readers.records import SPLITS, Example, Split
from datamodules.splitting.splits import split_counts
from datamodules.splitting.stratified import kept_splits


class LabelledDataModule(CaptionDataModule):
    """Labelled images, captioned or not, or texts alone.

    Splits are by image: the data set's own; those that it lacks are drawn with a seed so that every label has its
    share in each (Sechidis et al. 2011), and kept in a file, the same for all stages. For a table over the folds of a
    cross-validation, set `folds` and run with every `fold`.

    Args:
        image_folder: folder of the images inside the root; None: the usual names.
        captions_only: true: never search for images; false: a missing one is an error; None: captions only when fewer
            than half of the images exist, said in one line.
        val_fraction: share of the images for validation when the data has no such split. With folds it is taken from
            the images that are not in the test fold; 0: validation reads the test fold, so choose nothing on it.
        test_fraction: share for test; not used with folds.
        split_seed: seed of the draw.
        folds: number of folds of a cross-validation; None: one split.
        fold: which fold is test, from 0.
        split_file: JSON file of the split, image id to train, val or test, read if it exists, else written; None: a
            file in the cache.
    """

    def __init__(
        self,
        *,
        image_folder: str | None = None,
        captions_only: bool | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        split_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_folder, self.captions_only = image_folder, captions_only
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        self.folds, self.fold, self.split_file = folds, fold, split_file
        self._records: dict[Split, list[Example]] | None = None
        self._paths: dict[str | int, str | None] = {}

    images_origin: ClassVar[str] = ""
    """Where the images can be had, for the message about a missing one."""

    @abstractmethod
    def annotations(self) -> Path:
        """The file of annotations.

        Raises:
            DataError: it is missing.
        """

    @abstractmethod
    def read_records(self) -> list[Example]:
        """Reads all images with their labels; the split is None where the file does not say.

        Raises:
            DataError: the file is broken or has no usable record.
        """

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations, once for all splits, and finds the images of one.

        Raises:
            DataError: a folder or file is missing, a record is broken, or the split has no image.
        """
        search = ImageSearch(
            folders=image_folders(self.root, self.image_folder),
            captions_only=self.captions_only if self.feature_source.encoder is None else False,
            keep_missing=self.on_bad_image == "skip",
            needs_none=self.feature_source.regions is not None,
            origin=self.images_origin,
        )
        if self._records is None:
            records = self.read_records()
            self._paths = search.find(records, self.annotations().name)
            splits = self._splits(records)
            divided = [replace(record, split=own) for record, own in zip(records, splits, strict=True)]
            self._records = {name: [record for record in divided if record.split == name] for name in SPLITS}
        if split == "val" and not self._records["val"] and self.folds is not None:
            split = "test"  # as the argument val_fraction says
        if not self._records[split]:
            sizes = split_counts(name for name, found in self._records.items() for _ in found)
            way_out = f"raise {split}_fraction, or add images"
            raise DataError(f"{self.annotations()}: no image in split '{split}' ({sizes}); {way_out}")
        return search.examples(self._records[split], self._paths, self.report)

    def _splits(self, records: list[Example]) -> list[str]:
        """The file's own splits; those that it lacks are drawn from train."""
        unknown = [record for record in records if record.split is None]
        if 0 < len(unknown) < len(records):
            few = f"{len(unknown)} of {len(records)} images have no split, such as {unknown[0].image_id}"
            raise DataError(f"{self.annotations()}: {few}; give one to all")
        splits = ["train" if record.split in (None, "restval") else str(record.split) for record in records]
        drawn = [index for index, split in enumerate(splits) if split == "train"]
        val, test = (
            0.0 if name in splits else fraction for name, fraction in zip(SPLITS[1:], self.fractions, strict=True)
        )
        folds = None if "test" in splits else self.folds
        if val == test == 0 and folds is None and self.split_file is None:
            return splits
        where = Path(self.split_file) if self.split_file else default_cache_dir() / "splits"
        keys = [str(records[index].image_id) for index in drawn]
        labels = [records[index].labels for index in drawn]
        own = kept_splits(keys, labels, (val, test), self.split_seed, folds, self.fold, where)
        for index, split in zip(drawn, own, strict=True):
            splits[index] = split
        return splits
