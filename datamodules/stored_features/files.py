"""The files of a feature store: written row by row so that a kill costs little, read without copies.

Letters: N images, B images of a batch, R regions, C width of a region.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError, UserError
from core.inputs import reason
from core.text import log_of
from datamodules.stored_features.arrays import map_array

Half = NDArray[np.float16]

FLUSH_ROWS = 256
"""Images after which rows are flushed: a multiple of the batch, so that a resumed build sees the same batches."""
_log = log_of(__name__)


class FeatureStore(Sequence[Tensor]):
    """Finished features, read from a memory map: row i belongs to image i.

    Args:
        folder: the store.

    Raises:
        UserError: it is not there or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows = self._map()

    def _map(self) -> Tensor:
        path = self.folder / "features.npy"
        try:
            # copy on write: PyTorch wants memory that may be written to
            array = map_array(path)
        except Exception as error:  # a broken header raises a dozen types
            raise UserError(
                f"feature store {self.folder} is damaged ({reason(error)}); remove the folder, and it is made again"
            ) from error
        return torch.from_numpy(np.asarray(array))

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, R, C."""
        images, regions, width = self._rows.shape
        return images, regions, width

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Features of an image, `(R, C)`, float16, no copy; or of several, `(n, R, C)`."""
        return self._rows[index]

    def regions(self, index: int) -> Tensor:
        """Features of the regions that an image has, `(r, C)`, float16, no copy; regions it does not have are NaN."""
        row = self._rows[index]
        # absent regions are the last ones: one number tells whether there are any
        return row[: int((~row[:, 0].isnan()).sum())] if row[-1, 0].isnan() else row

    def means(self) -> NDArray[np.float32]:
        """Mean over the regions of every image, `(N, C)`."""
        # in pieces: all of it in single precision would be twice the file
        starts = range(0, len(self), FLUSH_ROWS)
        return torch.cat([self._rows[start : start + FLUSH_ROWS].float().nanmean(1) for start in starts]).numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Processes get the folder, not the content."""
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder = state["folder"]
        self._rows = self._map()


class RowWriter:
    """Appends rows to ``features.npy`` in a folder; continues after the rows that an earlier attempt flushed.

    The rows go through ordinary writes, not through a memory map: a full disk is an error then, not a crash, and
    memory stays flat however long the file gets.

    Args:
        folder: where the file is or will be.
        shape: N, R, C.

    Raises:
        UserError: the disk has not enough room for what is missing.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.path = folder / "features.npy"
        folder.mkdir(parents=True, exist_ok=True)
        self.row_bytes = shape[1] * shape[2] * np.dtype(np.float16).itemsize
        self.rows = self._safe_rows()
        """Rows written so far."""
        _check_space(folder, (shape[0] - self.rows) * self.row_bytes)
        self._file = self.path.open("r+b" if self.rows else "w+b")
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.seek(self._file.tell() + self.rows * self.row_bytes)
        self._file.truncate()  # rows behind the last flush may be incomplete

    def _safe_rows(self) -> int:
        try:
            progress = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
            enough = self.path.stat().st_size >= progress["rows"] * self.row_bytes
            return int(progress["rows"]) if progress["shape"] == list(self.shape) and enough else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def append(self, rows: Half) -> None:
        """Writes the next rows, `(B, R, C)`.

        Raises:
            UserError: the disk is full.
        """
        assert rows.shape[1:] == self.shape[1:], "all rows have the same shape"
        try:
            self._file.write(np.ascontiguousarray(rows, dtype="<f2").data)
        except OSError as error:
            raise UserError(_no_space(self.folder, error.strerror or str(error))) from error
        self.rows += len(rows)

    def flush(self) -> None:
        """Makes everything written so far survive a kill or a power cut."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            _write_json(self.folder / "progress.json", {"rows": self.rows, "shape": list(self.shape)})
        except OSError as error:
            raise UserError(_no_space(self.folder, error.strerror or str(error))) from error

    def close(self) -> None:
        """Closes the file; rows not flushed may be lost."""
        self._file.close()


def write_store(
    folder: Path, shape: tuple[int, int, int], facts: Mapping[str, Any], batches: Callable[[int], Iterable[Half]]
) -> FeatureStore:
    """Fills a store and gives it its name, all at once, when it is complete.

    Args:
        folder: the finished store.
        shape: N, R, C.
        facts: content of ``index.json``.
        batches: from the number of rows that are there already to the rows that follow, in batches `(B, R, C)`.

    Raises:
        UserError: the disk is full.
    """
    partial = folder.with_name(folder.name + ".partial")
    writer = RowWriter(partial, shape)
    if writer.rows:
        _log.info("feature store: continuing after %d of %d images", writer.rows, shape[0])
    safe = writer.rows
    try:
        for rows in batches(writer.rows):
            writer.append(rows)
            if writer.rows - safe >= FLUSH_ROWS:
                writer.flush()
                safe = writer.rows
        writer.flush()
    finally:
        writer.close()
    if writer.rows != shape[0]:
        raise DataError(f"feature store {folder}: {writer.rows} rows for {shape[0]} images; start again")
    _write_json(partial / "index.json", {**facts, "shape": list(shape)})
    (partial / "progress.json").unlink()
    partial.replace(folder)
    return FeatureStore(folder)


def _check_space(folder: Path, needed: int) -> None:
    """Refuses to begin what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(_no_space(folder, f"{_gigabytes(needed)} GB are needed, {_gigabytes(free)} GB are free"))


def _no_space(folder: Path, reason: str) -> str:
    return (
        f"feature store {folder}: {reason}; free some space, or set the environment variable CAPTION_CACHE to a folder "
        "on a larger disk"
    )


def _gigabytes(size: int) -> str:
    return f"{math.ceil(size / 1e7) / 100:.2f}"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file that is always whole."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
