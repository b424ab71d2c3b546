"""Writing files whole or not at all, so that a kill or a full disk never leaves half a file under its name."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb", *, durable: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file in the same folder, which replaces `path` when the block ends without an error.

    Args:
        path: file to write; its folder is created.
        mode: "w" or "wb".
        durable: flush file and folder to the disk, so that a power cut loses nothing either.
        options: passed to `open`, such as ``newline``; text is UTF-8.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    if "b" not in mode:  # file names that are not UTF-8 become escapes, which JSON reads back
        options = {"encoding": "utf-8", "errors": "backslashreplace", **options}
    try:
        with temporary.open(mode, **options) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any, indent: int | None = 0) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def write_cache(path: Path, text: str) -> None:
    """Writes a cache file whole or not at all; a read-only or full disk only costs the cache."""
    with contextlib.suppress(OSError):
        write_text(path, text)


def sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power cut.

    Folders cannot be opened on Windows, where renaming is journalled anyway.
    """
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
