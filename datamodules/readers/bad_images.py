"""Skipping the images of a data set that cannot be decoded: ``on_bad_image=skip``."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from core.errors import DataError, UserError
from core.files import write_text
from core.inputs import read_object
from core.text import log_of
from datamodules.readers.images import WAYS_OUT
from datamodules.readers.records import Example

OpenImage = Callable[[Example], Image.Image]

_log = log_of(__name__)
_LISTED = 20
_Result = TypeVar("_Result")


def without_bad_images(examples: Sequence[Example], open_image: OpenImage, cache_dir: Path) -> list[Example]:
    """Decodes every image once and skips those that fail, before training starts.

    They are skipped up front and never replaced while training, so that all processes and a resumed run see the same
    list. Results are kept in a file under `cache_dir` and are valid as long as path, size and modification time stay
    the same. How many were skipped is logged, and which.

    Args:
        examples: the images of one split.
        open_image: reads the image of an example and raises DataError when it is bad.
        cache_dir: folder of files that can be made again.

    Returns:
        The good ones, in the same order.
    """
    # stamps are taken before decoding: a file that changes meanwhile misses next time
    stamps = [_stamp(example) for example in examples]
    # one file for all splits of the same folders, so that a changed split looks at new images only
    folders = sorted({str(Path(example.image_name).parent) for example in examples})
    digest = hashlib.sha256("\n".join(folders).encode()).hexdigest()[:16]
    cache_file = cache_dir / "checked_images" / f"{digest}.json"
    known = _read_cache(cache_file)
    errors: list[str | None] = [None] * len(examples)
    unknown = []
    for index, (example, stamp) in enumerate(zip(examples, stamps, strict=True)):
        entry = known.get(example.image_name)
        if stamp is not None and isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3:
            errors[index] = entry[2]
        elif example.image is not None:
            unknown.append(index)
    if unknown:
        _log.info("on_bad_image=skip: decoding %d images", len(unknown))
        found = in_threads(lambda index: _error_of(examples[index], open_image), unknown)
        for index, error in zip(unknown, found, strict=True):
            errors[index] = error
        rows = zip(examples, stamps, errors, strict=True)
        _write_cache(cache_file, known | {row[0].image_name: [*row[1], row[2]] for row in rows if row[1] is not None})
    _warn([error.removesuffix(f"; {WAYS_OUT}") for error in errors if error is not None], len(examples))
    return [example for example, error in zip(examples, errors, strict=True) if error is None]


def _warn(bad: Sequence[str], total: int) -> None:
    """Lists what is wrong with the images that are skipped."""
    if bad:
        shown = "; ".join(bad[:_LISTED]) + (f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else "")
        _log.warning("on_bad_image=skip: %d of %d images are skipped: %s", len(bad), total, shown)


def in_threads(function: Callable[[Any], _Result], items: Sequence[Any]) -> Iterator[_Result]:
    """Results in order; Pillow decodes outside of the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # in pieces: the pool would take up all items, hundreds of thousands, at once
        for start in range(0, len(items), 1024):
            yield from pool.map(function, items[start : start + 1024])


def _error_of(example: Example, open_image: OpenImage) -> str | None:
    """Why an image cannot be used, or None."""
    try:
        open_image(example)
    except DataError as error:
        return str(error)
    return None


def _stamp(example: Example) -> list[int] | None:
    """Size and modification time of a file; None for what is no file and therefore decoded every time."""
    file = None if example.image is None else example.image.file
    try:
        status = None if file is None else file.stat()
    except (OSError, ValueError):
        return None
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _read_cache(path: Path) -> dict[str, Any]:
    """Earlier results; none when the file is missing or broken."""
    try:
        return read_object(path, "")
    except UserError:
        return {}


def _write_cache(path: Path, entries: dict[str, Any]) -> None:
    """Writes the results whole, since several processes may do so at once; a full disk costs only the cache."""
    try:
        write_text(path, json.dumps(entries))
    except OSError as error:
        _log.warning("%s: cannot store which images are good (%s); they are decoded again next time", path, error)
