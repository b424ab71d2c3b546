"""Arrays of NumPy files, read in bounded memory: what a header claims is compared with the size of the file."""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from core.inputs import damage, open_regular

ARRAY_NAMES = ("features", "feat", "x", "roi_features", "att_feat")
"""Names of the array in an .npz, first match wins; a file with a single array may call it anything."""
_MOST = 1 << 30
"""Bytes of the array of an image."""
_AGAIN = "extract it again"


def array_shape(path: Path) -> tuple[int, int]:
    """Shape of the array of a .npy or .npz file, from its header.

    Raises:
        DataError: it is broken, or holds no array of numbers with two dimensions.
    """
    with damage(path, "an .npz file", _AGAIN, DataError), open_regular(path) as file:
        if path.suffix == ".npy":
            return _header(file, os.fstat(file.fileno()).st_size, path)[0]
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(_array_name(archive.namelist(), path))
            with archive.open(member) as inner:
                return _header(inner, member.file_size, path)[0]


def read_array(path: Path) -> NDArray[np.float32]:
    """The array of a .npy or .npz file, `(r, D)`.

    Raises:
        DataError: it is broken, or holds no array of numbers with two dimensions.
    """
    with damage(path, "an .npz file", _AGAIN, DataError), open_regular(path) as file:
        if path.suffix == ".npy":
            return _read(file, os.fstat(file.fileno()).st_size, path)
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(_array_name(archive.namelist(), path))
            with archive.open(member) as inner:
                return _read(inner, member.file_size, path)


def map_array(path: Path) -> NDArray[np.float16]:
    """The array of a feature store, copied into memory where it is written to.

    Raises:
        ValueError: it is broken, or no array of half-precision numbers with three dimensions.
    """
    with open_regular(path):
        array: NDArray[np.float16] = np.load(path, mmap_mode="c", allow_pickle=False)
    if array.ndim != 3 or array.dtype != np.float16:
        raise ValueError(f"it holds {array.dtype} of shape {array.shape}, not float16 of three dimensions")
    return array


def _read(file: IO[bytes], size: int, path: Path) -> NDArray[np.float32]:
    shape, fortran, kind = _header(file, size, path)
    values = np.frombuffer(file.read(math.prod(shape) * kind.itemsize), kind)
    return np.asarray(values.reshape(shape, order="F" if fortran else "C"), dtype=np.float32)


def _header(file: IO[bytes], size: int, path: Path) -> tuple[tuple[int, int], bool, np.dtype[Any]]:
    """Shape, order and type of an array, of which a file of `size` bytes must hold all."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    if kind.hasobject or kind.kind not in "fiub":
        raise DataError(f"{path}: not a readable .npz file of numbers (it holds {kind}); {_AGAIN}")
    if len(shape) != 2 or min(shape) < 0:
        raise DataError(f"{path}: the array has shape {shape}, expected regions x width; {_AGAIN}")
    claimed = math.prod(shape) * kind.itemsize
    if claimed > _MOST:
        raise DataError(f"{path}: claims {claimed:,} bytes for the array of an image, at most {_MOST:,} are read")
    if claimed > size:
        raise DataError(f"{path}: claims an array of {claimed:,} bytes and has {size:,}: it is cut off; {_AGAIN}")
    return shape, fortran, kind


def _array_name(members: Sequence[str], path: Path) -> str:
    """The member of an .npz archive that holds the features."""
    arrays = {member.removesuffix(".npy"): member for member in members}
    found: Any = next((arrays[name] for name in ARRAY_NAMES if name in arrays), None)
    if found is None and len(arrays) == 1:
        found = next(iter(arrays.values()))
    if found is None:
        there = ", ".join(arrays) or "none"
        raise DataError(f"{path}: arrays {there}; expected the features as one of {', '.join(ARRAY_NAMES)}")
    return str(found)
