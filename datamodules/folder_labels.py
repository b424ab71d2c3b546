"""Your own images or texts with labels: CSV, TSV or JSON lines, for emotions and any other multi-label task."""

from pathlib import Path
from typing import Any

from core.errors import DataError
from datamodules.labelled import LabelledDataModule
from datamodules.readers.label_tables import LabelColumns, read_label_table
from datamodules.readers.records import Example

_USUAL_NAMES = ("labels", "annotations", "dataset", "data", "metadata", "cleaned_data")
_USUAL_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt")


class FolderLabels(LabelledDataModule):
    """Your own images with labels, with captions, or texts with labels and no images.

    The file is a table with a header (CSV, TSV), JSON lines or a JSON list, in UTF-8. Labels stand in columns of their
    own, with 0 and 1 (or a number in between for soft targets), or all in one column: a list (JSON or Python), or text
    with a separator. An image may have several rows, with a caption each; the labels must then agree. Its id is the
    column ``image_id`` or ``id``, else its path as written. Splits are those of a column ``split``.

    Args:
        labels_file: the file, in the root or relative to the working directory; None: the only usual name in the root
            (labels, annotations, dataset, ... with .csv, .tsv, .jsonl, .json or .txt).
        image_column: name of the image column; None: image, file_name, path, ..., or no images.
        caption_column: name of the caption column; None: caption, text, sentence, ..., or no captions.
        split_column: name of the split column; None: split, if there is one.
        labels_column: name of the column with all labels; None: labels, emotions, tags, ..., if there is one.
        label_columns: names of the columns of single labels; None: without a column of labels, all columns that hold
            nothing but numbers from 0 to 1.
        separator: what stands between labels in one cell; None: the first of | ; , that occurs in the column.
        label_names: all labels in their order; None: alphabetical, or the order of the columns.
        batch_size: images per batch and process.
    """

    def __init__(
        self,
        *,
        labels_file: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        split_column: str | None = None,
        labels_column: str | None = None,
        label_columns: list[str] | None = None,
        separator: str | None = None,
        label_names: list[str] | None = None,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self._root_is_given = bool(kwargs.get("root"))  # a path does not tell "" from "."
        self.labels_file = labels_file
        each = tuple(label_columns) if label_columns else None
        names = tuple(label_names) if label_names else None
        self.columns = LabelColumns(
            image=image_column,
            caption=caption_column,
            split=split_column,
            labels=labels_column,
            each=each,
            separator=separator,
            names=names,
        )
        self._table: tuple[tuple[str, ...], list[Example]] | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels in the order of `Example.labels`."""
        return self._read()[0]

    def read_records(self) -> list[Example]:
        """Reads the file, once.

        Raises:
            DataError: it is missing or broken, or no row is usable.
        """
        return self._read()[1]

    def _read(self) -> tuple[tuple[str, ...], list[Example]]:
        if self._table is None:
            path = self.annotations()
            names, records = read_label_table(path, self.columns, self.report)
            if not records:
                raise DataError(f"{path}: no usable row; is it the right file?")
            self._table = names, records
        return self._table

    def annotations(self) -> Path:
        """The file of labels.

        Raises:
            DataError: there is none, or several may be it.
        """
        if self.labels_file is not None:
            inside = self.root / self.labels_file
            return inside if inside.is_file() or not Path(self.labels_file).is_file() else Path(self.labels_file)
        if not self._root_is_given:
            raise DataError(
                "root is empty; give a folder with a file of labels (data.init_args.root, or --root) or labels_file"
            )
        if not self.root.is_dir():
            raise DataError(f"root={self.root}: no such folder; expected a folder with a file of labels")
        files = sorted(path for path in self.root.iterdir() if path.suffix.lower() in _USUAL_SUFFIXES)
        usual = [path for stem in _USUAL_NAMES for path in files if path.stem.lower() == stem] or files
        if len(usual) == 1:
            return usual[0]
        names = ", ".join(path.name for path in files[:8]) or "no .csv, .tsv, .jsonl, .json or .txt file"
        raise DataError(f"{self.root}: cannot tell the file of labels (there: {names}); set labels_file")
