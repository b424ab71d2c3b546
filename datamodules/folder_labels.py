"""Your own pictures or texts with labels: CSV, TSV or JSON lines, for emotions and any other multi-label task."""

from pathlib import Path
from typing import Any, Literal

from core.errors import DataError
from datamodules.base import CaptionDataModule, Split, default_cache_dir
from datamodules.loading.dataset import Example
from datamodules.readers.images import Normalization
from datamodules.readers.label_records import LabelRecord, PictureSearch, picture_folders
from datamodules.readers.label_tables import LabelColumns, read_label_table
from datamodules.readers.records import Report, fail
from datamodules.splitting.splits import SPLITS, split_counts
from datamodules.splitting.stratified import kept_splits

_USUAL_NAMES = ("labels", "annotations", "dataset", "data", "metadata", "cleaned_data")
_USUAL_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt")


class FolderLabels(CaptionDataModule):
    """Your own pictures with labels, with captions, or texts with labels and no pictures.

    The file is a table with a header (CSV, TSV), JSON lines or a JSON list, in UTF-8. Labels stand in columns of their
    own, with 0 and 1 (or a number in between for soft targets), or all in one column: a list (JSON or Python), or text
    with a separator. A picture may have several rows, with a caption each; the labels must then agree. Its id is the
    column ``image_id`` or ``id``, else its path as written.

    Splits are by image: those of a column ``split``. What is missing is drawn with a seed so that every label has its
    share, and kept in a file; see `Socratis`, which also explains `folds`.

    Args:
        root: folder that the images' paths start from; ``images/`` and its like in it are tried too.
        labels_file: the file, in the root or from where you are; None: the only usual name in the root (labels,
            annotations, dataset, ... with .csv, .tsv, .jsonl, .json or .txt).
        image_folder: folder of the images, when it is none of the usual ones.
        image_column: name of the image column; None: image, file_name, path, ..., or no pictures.
        caption_column: name of the caption column; None: caption, text, sentence, ..., or no captions.
        split_column: name of the split column; None: split, if there is one.
        labels_column: name of the column with all labels; None: labels, emotions, tags, ..., if there is one.
        label_columns: names of the columns of single labels; None: without a column of labels, all columns that hold
            nothing but numbers from 0 to 1.
        separator: what stands between labels in one cell; None: the first of | ; , that occurs in the column.
        label_names: all labels in their order; None: alphabetical, or the order of the columns.
        captions_only: true: never look for pictures; false: a missing one is an error; None: captions only when fewer
            than half of the pictures are there, said in one line.
        val_fraction: share of the images for validation when the data has no such split.
        test_fraction: the same for test.
        split_seed: seed of that draw.
        folds: number of folds of a cross-validation; None: one split.
        fold: which fold is test, from 0.
        split_file: JSON file of the drawn split, read if it is there, else written; None: a file in the cache.
        tokenizer: see `CaptionDataModule`, as all that follow.
        min_count: words seen less often are unknown.
        max_tokens: longest caption in tokens.
        batch_size: images per batch.
        captions_per_image: captions of each training image that come along; None = all.
        num_workers: loader processes.
        image_size: pixels.
        normalization: colour scale.
        augment: random crops in training.
        on_bad_image: "error" or "skip".
        evaluate_on: split that validate, test and predict read.
        encoder: frozen image tower whose features take the place of the pictures.
        encoder_weights: its weights.
        regions: region features from files in place of the pictures.
    """

    report: Report = staticmethod(fail)
    """What is done with defects of the rows; a checker replaces it."""

    def __init__(
        self,
        root: str = "",
        labels_file: str | None = None,
        image_folder: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        split_column: str | None = None,
        labels_column: str | None = None,
        label_columns: list[str] | None = None,
        separator: str | None = None,
        label_names: list[str] | None = None,
        captions_only: bool | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        split_file: str | None = None,
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 36,
        batch_size: int = 32,
        captions_per_image: int | None = None,
        num_workers: int = 2,
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
            captions_per_image=captions_per_image,
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
        self._root_is_given = bool(root)  # a path does not tell "" from "."
        self.labels_file, self.image_folder, self.captions_only = labels_file, image_folder, captions_only
        each = tuple(label_columns) if label_columns else None
        names = tuple(label_names) if label_names else None
        self.columns = LabelColumns(image_column, caption_column, split_column, labels_column, each, separator, names)
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        self.folds, self.fold, self.split_file = folds, fold, split_file
        self._read: tuple[tuple[str, ...], dict[str, list[LabelRecord]]] | None = None
        self._paths: dict[str, str | None] = {}

    # facts

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels in the order of `Example.labels`."""
        return self._table()[0]

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve a picture: also the label names."""
        return {**super().describe(), "label_names": list(self.label_names)}

    # reading

    def load_examples(self, split: Split) -> list[Example]:
        """Reads the file, once for all splits, and finds the pictures of one.

        Raises:
            DataError: a folder or file is missing, a row is broken, or the split has no image.
        """
        records = self._table()[1]
        if split == "val" and not records["val"] and self.folds is not None:
            split = "test"  # as the argument val_fraction says
        if not records[split]:
            sizes = split_counts(name for name, found in records.items() for _ in found)
            way_out = f"name such a split in the file, raise {split}_fraction, or add images"
            raise DataError(f"{self._file()}: no image in split '{split}' ({sizes}); {way_out}")
        return self._search().examples(records[split], self._paths, self.report)

    def _search(self) -> PictureSearch:
        return PictureSearch(
            picture_folders(self.root, self.image_folder),
            self.captions_only if self.encoder_name is None else False,
            keep_missing=self.on_bad_image == "skip",
            needs_none=self.regions is not None,
        )

    def _table(self) -> tuple[tuple[str, ...], dict[str, list[LabelRecord]]]:
        """Names of the labels, and the records by split."""
        if self._read is None:
            if not self._root_is_given and self.labels_file is None:
                raise DataError(
                    "root is empty; give a folder with a file of labels (data.init_args.root, or --root) or labels_file"
                )
            path = self._file()
            names, records = read_label_table(path, self.columns, self.report)
            if not records:
                raise DataError(f"{path}: no usable row; is it the right file?")
            self._paths = self._search().find(records, path.name)
            splits = self._splits(records, path)
            by_split = {name: [r for r, own in zip(records, splits, strict=True) if own == name] for name in SPLITS}
            self._read = names, by_split
        return self._read

    def _splits(self, records: list[LabelRecord], path: Path) -> list[str]:
        """The file's own splits; those that are missing are drawn from train."""
        unknown = [record for record in records if record.split is None]
        if 0 < len(unknown) < len(records):
            few = f"{len(unknown)} of {len(records)} images have no split, such as {unknown[0].image_id}"
            raise DataError(f"{path}: {few}; give one to all")
        splits = ["train" if record.split in (None, "restval") else str(record.split) for record in records]
        drawn = [index for index, split in enumerate(splits) if split == "train"]
        fractions = tuple(
            0.0 if name in splits else fraction for name, fraction in zip(SPLITS[1:], self.fractions, strict=True)
        )
        folds = None if "test" in splits else self.folds
        if fractions == (0, 0) and folds is None:
            return splits
        where = Path(self.split_file) if self.split_file else default_cache_dir() / "splits"
        own = kept_splits(
            [records[index].image_id for index in drawn],
            [records[index].labels for index in drawn],
            (fractions[0], fractions[1]),
            self.split_seed,
            folds,
            self.fold,
            where,
        )
        for index, split in zip(drawn, own, strict=True):
            splits[index] = split
        return splits

    def _file(self) -> Path:
        if self.labels_file is not None:
            inside = self.root / self.labels_file
            return inside if inside.is_file() or not Path(self.labels_file).is_file() else Path(self.labels_file)
        if not self.root.is_dir():
            raise DataError(f"root={self.root}: no such folder; expected a folder with a file of labels")
        files = sorted(path for path in self.root.iterdir() if path.suffix.lower() in _USUAL_SUFFIXES)
        usual = [path for stem in _USUAL_NAMES for path in files if path.stem.lower() == stem] or files
        if len(usual) == 1:
            return usual[0]
        names = ", ".join(path.name for path in files[:8]) or "no .csv, .tsv, .jsonl, .json or .txt file"
        raise DataError(f"{self.root}: cannot tell the file of labels (there: {names}); set labels_file")
