"""Any Hugging Face data set with an image and captions: from the hub, or local Parquet, JSON, CSV or image folder."""

import logging
from typing import TYPE_CHECKING, Literal

from PIL import Image

from core.errors import DataError
from datamodules.base import CaptionDataModule, Split
from datamodules.loading.dataset import Example
from datamodules.readers.images import Normalization, find_image, open_image
from datamodules.readers.records import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_NAMES,
    Problem,
    Report,
    caption_texts,
    fail,
    find_column,
)
from datamodules.splitting.splits import assign_splits, split_counts

if TYPE_CHECKING:
    from datasets import Dataset

_ID_COLUMNS = ("image_id", "cocoid", "imgid", "img_id")
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}


class HubCaptions(CaptionDataModule):
    """Captions and images of a Hugging Face data set.

    Tables stay on disk, memory-mapped; a picture is decoded when it is asked for. The caption column may hold a
    string, a list of strings or a list of objects with ``raw``, ``text`` and the like. With an id column, rows of the
    same id are one image with several captions; without one, every row is an image called ``<split>/<row>``.

    Args:
        root: hub id (``owner/name``), or a local Parquet, JSON, JSON lines, CSV or Arrow file, a folder with them, an
            image folder with metadata, or what ``save_to_disk`` wrote.
        config_name: configuration of a hub data set that has several.
        revision: branch, tag or commit of a hub data set; name a commit to get the same data always.
        train_split: the data set's name of the training split.
        val_split: of the validation split; None: validation, val, valid or dev, else drawn from train.
        test_split: of the test split; None: test or testing, else drawn from train.
        image_column: None: image, file_name, path, ...
        caption_column: None: caption, text, sentence, ...
        id_column: None: image_id, cocoid, imgid or img_id, if there is one.
        val_fraction: share of the images drawn for validation when there is no such split.
        test_fraction: the same for test.
        split_seed: seed of that draw.
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
    """

    report: Report = staticmethod(fail)
    """What is done with defects of the rows; a checker replaces it."""

    def __init__(
        self,
        root: str = "",
        config_name: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        id_column: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 36,
        batch_size: int = 8,
        captions_per_image: int | None = None,
        num_workers: int = 2,
        image_size: int = 224,
        normalization: Normalization = "imagenet",
        augment: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        evaluate_on: Split | None = None,
        encoder: str | None = None,
        encoder_weights: str | None = None,
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
        )
        self.source = root  # as written: a hub id is no path
        self.config_name, self.revision = config_name, revision
        self.split_names: dict[Split, str | None] = {"train": train_split, "val": val_split, "test": test_split}
        self.image_column, self.caption_column, self.id_column = image_column, caption_column, id_column
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed
        self._tables: dict[str, Dataset] | None = None
        self._splits: dict[str, list[Example]] = {}

    def load_examples(self, split: Split) -> list[Example]:
        """Reads ids and captions of one split; pictures stay where they are.

        Raises:
            DataError: the data set cannot be loaded, lacks a split or column, or a row is broken.
        """
        table = self._own_split(split)
        if table is not None and (split != "train" or not self._drawn()):
            return self._read_table(table)
        if split not in self._splits:
            examples = self._read_table(self._required("train"))
            fractions = tuple(
                f if n in self._drawn() else 0.0 for f, n in zip(self.fractions, ("val", "test"), strict=True)
            )
            keys = [example.image_id for example in examples]
            names = assign_splits(keys, [None] * len(keys), (fractions[0], fractions[1]), self.split_seed, self.source)
            for name in ("train", "val", "test"):
                self._splits[name] = [example for example, own in zip(examples, names, strict=True) if own == name]
        if not self._splits[split]:
            counts = split_counts(name for name, found in self._splits.items() for _ in found)
            way_out = f"set {split}_split to one of {', '.join(self.tables)}, or raise {split}_fraction"
            raise DataError(f"{self.source}: no image in split '{split}' ({counts}); {way_out}")
        return self._splits[split]

    def image_stamp(self, example: Example) -> str:
        """The data set's fingerprint and the row: both change with the picture."""
        table, row = example.image.rsplit("#", 1)
        return f"{self.tables[table]._fingerprint}#{row}"

    def open_image(self, example: Example) -> Image.Image:
        """Reads the picture of a row as RGB."""
        table, row = example.image.rsplit("#", 1)
        column = self._column(self.tables[table], "image", self.image_column, IMAGE_COLUMNS)
        value = self.tables[table][int(row)][column]
        if isinstance(value, dict):  # the Image feature, undecoded
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return open_image(value, name=example.origin, min_side=self.transform.min_side)
        if isinstance(value, str):
            folder = self.root if self.root.is_dir() else self.root.parent
            path = find_image(folder, value) or folder / value
            return open_image(path, name=f"{path} ({example.origin})", min_side=self.transform.min_side)
        raise DataError(f"{example.origin}: no picture in column {column!r}; remove the row, or set image_column")

    @property
    def tables(self) -> dict[str, "Dataset"]:
        """The data set's own splits by name, pictures undecoded; loaded on first access.

        Raises:
            DataError: it cannot be loaded.
        """
        if self._tables is None:
            self._tables = {name: _undecoded(table) for name, table in self._load().items()}
        return self._tables

    def _load(self) -> dict[str, "Dataset"]:
        """Loads the data set from where `root` says."""
        if not self.source:
            raise DataError("root is empty; expected a hub id (owner/name) or a local file or folder")
        if self.root.suffix.lower() in _BUILDERS and not self.root.is_file():
            raise DataError(f"{self.source}: no such file; expected Parquet, JSON, JSON lines, CSV or Arrow")
        try:
            # here, since it takes half a second and other data modules do not need it
            from datasets import Dataset, load_dataset, load_from_disk

            # what the library logs before it fails is in its error as well
            logging.getLogger("datasets").setLevel(logging.CRITICAL)
            if self.root.is_file() and self.root.suffix.lower() in _BUILDERS:
                options = {"sep": "\t"} if self.root.suffix.lower() == ".tsv" else {}
                loaded = load_dataset(_BUILDERS[self.root.suffix.lower()], data_files=str(self.root), **options)
            elif any((self.root / name).is_file() for name in ("dataset_dict.json", "state.json")):
                loaded = load_from_disk(str(self.root))
            else:
                loaded = load_dataset(self.source, self.config_name, revision=self.revision)
        except Exception as error:  # the library passes on those of a dozen others
            reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
            ways_out = "check the name, go online once, or give a local Parquet / JSON / CSV file or image folder"
            raise DataError(f"{self.source}: data set cannot be loaded ({reason}); {ways_out}") from error
        return {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)

    def _own_split(self, split: Split) -> str | None:
        """The data set's own name of a split, or None when it has none."""
        given = self.split_names[split]
        if given is not None:
            return self._required(split)
        return next((name for name in self.tables if SPLIT_NAMES.get(name.lower()) == split), None)

    def _required(self, split: Split) -> str:
        """A split that the user named."""
        name = self.split_names[split]
        if name is None or name not in self.tables:
            raise DataError(f"{self.source}: no split {name!r} (it has {', '.join(self.tables)}); set {split}_split")
        return name

    def _drawn(self) -> list[str]:
        """Splits that are drawn from train because the data set has none."""
        return [name for name in ("val", "test") if self._own_split(name) is None]

    def _read_table(self, name: str) -> list[Example]:
        """The images of one of the data set's own splits, rows of the same id put together."""
        table = self.tables[name]
        self._column(table, "image", self.image_column, IMAGE_COLUMNS)  # fail early
        captions = self._column(table, "caption", self.caption_column, CAPTION_COLUMNS)
        wanted = self.id_column is not None or any(column in table.column_names for column in _ID_COLUMNS)
        ids = self._column(table, "id", self.id_column, _ID_COLUMNS) if wanted else None
        found: dict[str, Example] = {}
        columns = table.select_columns([captions] if ids is None else [ids, captions])
        for row, values in enumerate(columns):
            origin = f"{self.source}, split {name}, row {row}"
            image_id = f"{name}/{row}" if ids is None else values[ids]
            if not isinstance(image_id, int | str):
                self.report(
                    Problem("record", f"{origin}: column {ids!r} is {image_id!r:.40}, expected a number or text")
                )
                continue
            texts = _row_texts(values[captions], captions, origin, self.report)
            if not texts:
                continue
            before = found.get(str(image_id))
            if before is None:
                found[str(image_id)] = Example(image_id, f"{name}#{row}", tuple(texts), origin=origin)
            else:
                joined = before.captions + tuple(texts)
                found[str(image_id)] = Example(before.image_id, before.image, joined, origin=before.origin)
        return list(found.values())

    def _column(self, table: "Dataset", role: str, given: str | None, usual: tuple[str, ...]) -> str:
        """The name of a column."""
        names: list[str] = list(table.column_names)
        return names[find_column(names, given, usual, role, self.source)]


def _row_texts(value: object, column: str, origin: str, report: Report) -> list[str]:
    """The captions of a row, without empty ones, which are reported."""
    texts = caption_texts(value)
    if texts is None:
        wrong = f"column {column!r} is {value!r:.40}, expected a string, a list of strings or of objects"
        report(Problem("record", f"{origin}: {wrong}; set caption_column"))
    elif not texts or not all(texts):
        report(Problem("empty", f"{origin}: the caption is empty; write one or remove the row"))
    return [text for text in texts or [] if text]


def _undecoded(table: "Dataset") -> "Dataset":
    """The table with pictures as bytes or paths: reading captions must not decode them."""
    from datasets import Image as ImageFeature

    for name, feature in table.features.items():
        if isinstance(feature, ImageFeature):
            table = table.cast_column(name, ImageFeature(decode=False))
    return table
