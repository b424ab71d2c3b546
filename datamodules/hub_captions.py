"""Any Hugging Face data set with images and captions: from the hub, or local Parquet, JSON, CSV or image folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import DataError, UserError
from core.inputs import shown
from datamodules.base import CaptionDataModule
from datamodules.readers.hub_rows import TableRow, is_saved, loading, stored_image, undecoded
from datamodules.readers.image_refs import ImageFile, ImageRef
from datamodules.readers.images import find_image
from datamodules.readers.records import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_NAMES,
    SPLITS,
    Example,
    Problem,
    Report,
    Split,
    caption_texts,
    find_column,
)
from datamodules.splitting.splits import assign_splits, split_counts

_ID_COLUMNS = ("image_id", "cocoid", "imgid", "img_id")
_URL_COLUMNS = ("coco_url", "image_url", "url")
_FOLDER_COLUMN = "filepath"
"""Column with the folder of the file in Karpathy's format."""
_COCO_FOLDERS = ("train2017", "val2017", "train2014", "val2014")
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Names of the columns that are read.

    Attributes:
        caption: the captions.
        image: the image: embedded, or the name of a file.
        id: identifier of the image.
        url: address of the image, read where there is no file.
        folder: folder of the file.
    """

    caption: str
    image: str | None
    id: str | None
    url: str | None
    folder: str | None


class HubCaptions(CaptionDataModule):
    """Captions and images of a Hugging Face data set.

    Tables stay on disk, memory-mapped; an image is decoded when it is asked for. The caption column may hold a string,
    a list of strings or a list of objects with ``raw``, ``text`` and the like. With an id column, rows of the same id
    are one image with several captions; without one, every row is an image called ``<split>/<row>``.

    Images are embedded in the rows, or files that the rows name, in `image_folder` or beside a local table. Data sets
    of the hub that have addresses only, as those of COCO (``phiyodr/coco2017``, ``yerevann/coco-karpathy``), are read
    from `image_folder` where it has the file, else each image is fetched once, when it is first needed, and kept in
    the cache.

    Args:
        root: hub id (``owner/name``), or a local Parquet, JSON, JSON lines, CSV or Arrow file, a folder with them, an
            image folder with metadata, or what ``save_to_disk`` wrote.
        config_name: configuration of a hub data set that has several.
        revision: branch, tag or commit of a hub data set; name a commit to get the same data always.
        train_split: the data set's name of the training split; several with + in between (``train+restval``).
        val_split: name of the validation split; None: validation, val, valid or dev, else drawn from train.
        test_split: name of the test split; None: test or testing, else drawn from train.
        image_column: None: image, file_name, path, ..., else an address (coco_url, image_url or url).
        caption_column: None: caption, text, sentence, ...
        id_column: None: image_id, cocoid, imgid or img_id, if there is one.
        image_folder: local folder of the images that the rows name, such as the root of COCO.
        val_fraction: share of the images drawn for validation when there is no such split.
        test_fraction: share of the images drawn for test when there is no such split.
        split_seed: seed of that draw.
        streaming: read rows from the hub as they are needed instead of downloading the data set first; embedded images
            are written into the cache. Useful with `max_images`.
        max_images: most images of each split of the data set, the first ones; None: all.
    """

    def __init__(
        self,
        *,
        root: str = "",
        config_name: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        id_column: str | None = None,
        image_folder: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        streaming: bool = False,
        max_images: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        if max_images is not None and max_images < 1:
            raise UserError(f"max_images is {max_images}: expected at least 1, or null for all")
        self.source = root  # as written: a hub id is no path
        self.config_name, self.revision, self.streaming = config_name, revision, streaming
        self.split_names: dict[Split, str | None] = {"train": train_split, "val": val_split, "test": test_split}
        self.image_column, self.caption_column, self.id_column = image_column, caption_column, id_column
        self.image_folder, self.max_images = image_folder, max_images
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed
        self._splits: dict[str, list[Example]] = {}

    def load_examples(self, split: Split) -> list[Example]:
        """Reads ids and captions of one split; images stay where they are.

        Raises:
            DataError: the data set cannot be loaded, lacks a split or column, or a row is broken.
        """
        own = self._own_splits(split)
        if own and (split != "train" or not self._drawn()):
            return self._read_tables(own)
        if split not in self._splits:
            examples = self._read_tables(self._required("train"))
            val, test = (
                fraction if name in self._drawn() else 0.0
                for name, fraction in zip(SPLITS[1:], self.fractions, strict=True)
            )
            keys = [example.image_id for example in examples]
            names = assign_splits(keys, [None] * len(keys), (val, test), self.split_seed, self.source)
            for name in SPLITS:
                self._splits[name] = [example for example, own in zip(examples, names, strict=True) if own == name]
        if not self._splits[split]:
            counts = split_counts(name for name, found in self._splits.items() for _ in found)
            way_out = f"set {split}_split to one of {', '.join(self.tables)}, or raise {split}_fraction"
            raise DataError(f"{self.source}: no image in split '{split}' ({counts}); {way_out}")
        return self._splits[split]

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The data set's own splits by name, images undecoded; loaded on first access.

        Raises:
            DataError: it cannot be loaded.
        """
        return {name: undecoded(table) for name, table in self._load().items()}

    def _load(self) -> dict[str, Any]:
        """Loads the data set from where `root` says."""
        if not self.source:
            raise DataError("root is empty; expected a hub id (owner/name) or a local file or folder")
        if self.root.suffix.lower() in _BUILDERS and not self.root.is_file():
            raise DataError(f"{self.source}: no such file; expected Parquet, JSON, JSON lines, CSV or Arrow")
        with loading(self.source):
            # here, since it takes half a second and other data modules do not need it
            from datasets import load_dataset, load_from_disk

            if self.root.is_file() and self.root.suffix.lower() in _BUILDERS:
                suffix = self.root.suffix.lower()
                options: dict[str, Any] = {"data_files": str(self.root), **({"sep": "\t"} if suffix == ".tsv" else {})}
                loaded = load_dataset(_BUILDERS[suffix], streaming=self.streaming, **options)
            elif is_saved(self.root):
                loaded = load_from_disk(str(self.root))
            else:
                options = {"revision": self.revision, "streaming": self.streaming}
                loaded = load_dataset(self.source, self.config_name, **options)
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}

    def _own_splits(self, split: Split) -> list[str]:
        """The data set's own names of a split; empty when it has none."""
        if self.split_names[split] is not None:
            return self._required(split)
        return [name for name in self.tables if SPLIT_NAMES.get(name.lower()) == split][:1]

    def _required(self, split: Split) -> list[str]:
        """The splits of the data set that the user named."""
        names = str(self.split_names[split]).split("+")
        for name in names:
            if name not in self.tables:
                there = f"it has {', '.join(self.tables)}"
                raise DataError(f"{self.source}: no split {name!r} ({there}); set {split}_split")
        return names

    def _drawn(self) -> list[str]:
        """Splits that are drawn from train because the data set has none."""
        return [name for name in SPLITS[1:] if not self._own_splits(name)]

    def _read_tables(self, names: Sequence[str]) -> list[Example]:
        """The images of some of the data set's own splits, rows of the same id put together."""
        found: dict[str, Example] = {}
        for name in names:
            table = self.tables[name]
            # a stream may not know its columns before its first row
            columns = self._columns(list(table.column_names or next(iter(table), {})), table)
            images = 0
            for row, values in self._rows(table, columns):
                if (example := self._example(name, row, values, columns)) is None:
                    continue
                if (before := found.get(str(example.image_id))) is not None:
                    found[str(example.image_id)] = replace(before, captions=before.captions + example.captions)
                    continue
                if images == self.max_images:
                    break
                images += 1
                ref = self._image_ref(name, row, values, columns, example.origin)
                found[str(example.image_id)] = replace(example, image=ref)
        return list(found.values())

    def _rows(self, table: Any, columns: _Columns) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Number and cells of every row; of a table on the disk without the images, which are read when needed."""
        if not self.streaming:
            read = [columns.caption, columns.id, columns.url, columns.folder]
            if columns.url is not None:
                read.append(columns.image)  # the name of a file
            table = table.select_columns([name for name in dict.fromkeys(read) if name is not None])
        yield from enumerate(table)

    def _example(self, split: str, row: int, values: Mapping[str, Any], columns: _Columns) -> Example | None:
        """One row without its image; None when it was reported."""
        origin = f"{self.source}, split {split}, row {row}"
        image_id = f"{split}/{row}" if columns.id is None else values[columns.id]
        if not isinstance(image_id, int | str):
            wrong = f"column {columns.id!r} is {shown(image_id)}, expected a number or text"
            self.report(Problem("record", f"{origin}: {wrong}"))
            return None
        texts = _row_texts(values[columns.caption], columns.caption, origin, self.report)
        if not texts:
            return None
        return Example(image_id=image_id, captions=tuple(texts), origin=origin)

    def _image_ref(self, split: str, row: int, values: Mapping[str, Any], columns: _Columns, origin: str) -> ImageRef:
        if columns.url is not None and columns.url != columns.image:
            name = "" if columns.image is None else str(values[columns.image] or "")
            if columns.folder is not None and name:
                name = f"{values[columns.folder]}/{name}"
            path = self._local_file(name)
            return stored_image(values[columns.url], self._folder, origin) if path is None else ImageFile(str(path))
        assert columns.image is not None, "one of the two is there"
        if self.streaming:
            return stored_image(values[columns.image], self._folder, origin)
        return TableRow(
            table=self.tables[split], split=split, row=row, column=columns.image, origin=origin, folder=self._folder
        )

    def _local_file(self, name: str) -> Path | None:
        """The file of that name in `image_folder`, its subfolders of COCO included."""
        if self.image_folder is None or not name:
            return None
        parts = name.split("/")
        folders = [self._folder, *(self._folder / sub for sub in _COCO_FOLDERS)]
        names = dict.fromkeys((name, parts[-1]))
        return next((path for own in names for folder in folders if (path := find_image(folder, own))), None)

    @cached_property
    def _folder(self) -> Path:
        """Where the paths of the rows start."""
        if self.image_folder is not None:
            inside = self.root / self.image_folder
            return inside if inside.is_dir() else Path(self.image_folder)
        return self.root if self.root.is_dir() else self.root.parent

    def _columns(self, names: list[str], table: Any) -> _Columns:
        """Finds the columns by their given or usual names.

        Raises:
            DataError: one is not there.
        """
        caption = self._column(names, "caption", self.caption_column, CAPTION_COLUMNS)
        wanted = self.id_column is not None or any(column in names for column in _ID_COLUMNS)
        ids = self._column(names, "id", self.id_column, _ID_COLUMNS) if wanted else None
        url = next((name for name in _URL_COLUMNS if name in names), None)
        others = [name for name in names if name not in (caption, url, _FOLDER_COLUMN)]
        usual = any(name in others for name in IMAGE_COLUMNS)
        if self.image_column is not None or usual or url is None:
            known = names if self.image_column is not None or url is None else others
            image: str | None = self._column(known, "image", self.image_column, IMAGE_COLUMNS)
        else:
            image = None
        if url is not None and (self.image_column is not None or not self._is_remote(image, table)):
            url = None
        folder = _FOLDER_COLUMN if url is not None and _FOLDER_COLUMN in names else None
        return _Columns(caption=caption, image=image, id=ids, url=url, folder=folder)

    def _is_remote(self, image: str | None, table: Any) -> bool:
        """Whether the images are at addresses: they are neither embedded nor files beside a local table."""
        if image is None:
            return True
        embedded = type((table.features or {}).get(image)).__name__ == "Image"
        return not embedded and (self.image_folder is not None or not self.root.exists())

    def _column(self, names: list[str], role: str, given: str | None, usual: tuple[str, ...]) -> str:
        """The name of a column."""
        return names[find_column(names, given, usual, role, self.source)]


def _row_texts(value: object, column: str, origin: str, report: Report) -> list[str]:
    """The captions of a row, without empty ones, which are reported."""
    texts = caption_texts(value)
    if texts is None:
        wrong = f"column {column!r} is {shown(value)}, expected a string, a list of strings or of objects"
        report(Problem("record", f"{origin}: {wrong}; set caption_column"))
    elif not texts or not all(texts):
        report(Problem("empty", f"{origin}: the caption is empty; write one or remove the row"))
    return [text for text in texts or [] if text]
