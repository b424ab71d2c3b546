"""Reading files that anybody may have written: only regular files, in bounded memory, damage said in one line."""

import contextlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from core.errors import DataError, UserError

MOST_TEXT = 1 << 30
"""Bytes of an annotation file or table; COCO's largest has 90 million."""
MOST_STATE = 1 << 26
"""Bytes of what a run notes of itself, such as ``run.json``."""
WRONG_VALUES = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError)
"""What a value of the wrong kind or size raises; neither a full disk nor a lack of memory."""
_HALF = re.compile(
    r"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|"
    r"(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
"""An escaped surrogate without its other half: no encoding can write it."""
_REASON = 160
"""Characters of a library's message that are repeated."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path, expected: str = "a file", kind: type[UserError] = DataError) -> BufferedReader:
    """Opens a regular file for reading; pipes and devices, which may never end, are not even opened.

    Args:
        path: the file.
        expected: what should be there, for the message.
        kind: class of the error that is raised.

    Raises:
        UserError: of that kind: there is no such file, it is something else, or it cannot be read.
    """
    try:
        _check_regular(Path(path).stat().st_mode, path, expected, kind)
        # it may have been replaced by a pipe meanwhile, and opening one would wait for its writer
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise kind(f"{path}: {what}; expected {expected}") from error
    except UserError:
        raise
    except ValueError as error:  # a NUL in the name
        raise kind(f"{str(path)!r}: no file can be called that ({error}); expected {expected}") from error
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path, expected, kind)
    except UserError:
        file.close()
        raise
    return file


def read_bytes(
    path: str | Path, most: int = MOST_TEXT, expected: str = "a file", kind: type[UserError] = DataError
) -> bytes:
    """Reads a regular file that is not too large.

    Args:
        path: the file.
        most: bytes that it may have.
        expected: what should be there, for the message.
        kind: class of the error that is raised.

    Raises:
        UserError: of that kind: as for `open_regular`, or it is larger.
    """
    with open_regular(path, expected, kind) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise kind(f"{path}: has {size:,} bytes, at most {most:,} are read; expected {expected}")
        try:
            return file.read(most)
        except OSError as error:
            raise kind(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error


def read_text(
    path: str | Path, most: int = MOST_TEXT, expected: str = "a file", kind: type[UserError] = DataError
) -> str:
    """Reads a UTF-8 file, with or without byte order mark; arguments as for `read_bytes`.

    Raises:
        UserError: of that kind: as for `read_bytes`, or it is not UTF-8; the message has the line.
    """
    data = read_bytes(path, most, expected, kind)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte 0x{data[error.start]:02x}"
        raise kind(f"{path}, line {line}: not UTF-8 ({hint}); save the file as UTF-8") from error
    if "\0" in text:  # what a crash leaves where it had no time to write, and no text has
        line = text.count("\n", 0, text.index("\0")) + 1
        raise kind(f"{path}, line {line}: has NUL bytes, so it is damaged; get the file again")
    return text


def parse_json(text: str, path: str | Path, kind: type[UserError] = DataError) -> Any:
    """Parses a whole JSON file.

    Args:
        text: content of the file.
        path: the file, for messages.
        kind: class of the error that is raised.

    Raises:
        UserError: of that kind: it is broken; the message has line and column and says whether it was cut off.
    """
    check_halves(text, path, kind)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")
        hint = "the file is cut off, fetch it again" if cut else "correct the file"
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise kind(f"{where}: not valid JSON ({error.msg}); {hint}") from error
    except RecursionError as error:
        raise kind(f"{path}: JSON is nested too deeply; is it the right file?") from error
    except ValueError as error:  # an integer of thousands of digits
        raise kind(f"{path}: a number cannot be read ({reason(error)}); correct the file") from error


def check_halves(text: str, path: str | Path, kind: type[UserError] = DataError) -> None:
    """Refuses JSON with half of a character, which Python reads and no encoding can write; as for `parse_json`."""
    if "\\u" in text and (half := _HALF.search(text)):
        line = text.count("\n", 0, half.start()) + 1
        raise kind(f"{path}, line {line}: {half[1]} is half of a character; correct the file")


def read_object(path: Path, way_out: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Reads a JSON object that this project has written.

    Args:
        path: the file.
        way_out: what the user can do when it is damaged.
        required: keys that it must have.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    try:
        found = parse_json(read_text(path, MOST_STATE, "a JSON object", UserError), path, UserError)
    except UserError as error:
        raise UserError(f"{error}; {way_out}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object, found {shown(found)}; {way_out}")
    missing = next((key for key in required if key not in found), None)
    if missing is not None:
        raise UserError(f"{path}: has no entry '{missing}'; {way_out}")
    return found


@contextlib.contextmanager
def damage(
    path: str | Path,
    what: str,
    way_out: str,
    kind: type[UserError] = UserError,
    causes: tuple[type[Exception], ...] = (Exception,),
) -> Iterator[None]:
    """Turns whatever a library raises about the content of a file into one line.

    Libraries raise a dozen types for a broken file, and all mean the same to a user. Only for the reading itself: a
    mistake of ours inside the block would be blamed on the file.

    Args:
        path: the file, which is named first.
        what: the file should be, such as "a Parquet file".
        way_out: what the user can do.
        kind: class of the error that is raised.
        causes: errors that mean a damaged file, where others may have other reasons.

    Raises:
        UserError: of that kind; those raised inside pass through, with the file's name if they lack it.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise kind(f"{path}: {error}") from error
    except BaseException as error:
        # a panic of a library in Rust is no Exception
        if not isinstance(error, causes) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{path} cannot be read as {what} ({reason(error)}); {way_out}") from error


def check_expansion(path: str | Path, most: int, what: str, kind: type[UserError] = UserError) -> None:
    """Refuses a zip archive that claims to hold much more than a file of its kind does, before it fills the memory.

    Args:
        path: the file; nothing is done when it is no zip archive.
        most: bytes of its content.
        what: the file should be, for the message.
        kind: class of the error that is raised.

    Raises:
        UserError: of that kind.
    """
    with damage(path, what, "get the file again", kind):
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    if claimed > most:
        raise kind(f"{path}: claims to unpack to {claimed:,} bytes, at most {most:,} are read; expected {what}")


def check_folder(folder: str | Path, most: int, expected: str, kind: type[UserError] = UserError) -> None:
    """Looks at the files of a folder before a library opens them by itself.

    Args:
        folder: the folder; what is in folders inside it is not looked at.
        most: bytes that a file in it may have.
        expected: what the folder should hold, for the message.
        kind: class of the error that is raised.

    Raises:
        UserError: of that kind: something in it is neither file nor folder, or too large.
    """
    try:
        entries = sorted(Path(folder).iterdir())
        modes = [(entry, entry.stat()) for entry in entries if entry.exists()]
    except OSError as error:
        raise kind(f"{folder}: cannot be read ({error.strerror}); expected {expected}") from error
    for entry, status in modes:
        if not stat.S_ISDIR(status.st_mode):
            _check_regular(status.st_mode, entry, expected, kind)
            if status.st_size > most:
                raise kind(f"{entry}: has {status.st_size:,} bytes, at most {most:,} are read; expected {expected}")


def _check_regular(mode: int, path: str | Path, expected: str, kind: type[UserError]) -> None:
    if not stat.S_ISREG(mode):
        found = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
        raise kind(f"{path}: is {found}; expected {expected}")


def reason(error: BaseException) -> str:
    """A library's message in one line, without its advice to lower the guard."""
    text = " ".join(str(error).split())
    if any(word in text for word in ("weights_only", "Weights only", "allow_pickle", "trust_remote_code")):
        return "it holds more than plain values, or is damaged"
    if isinstance(error, MemoryError):
        return "it claims more than fits into the memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (text if len(text) <= _REASON else f"{text[:_REASON]}...") or type(error).__name__


def shown(value: object, most: int = 40) -> str:
    """A value in a message: the beginning of its `repr`; its type when it has none, as what is nested too deeply.

    >>> shown({"a": 1}), shown("a" * 50, 10)
    ("{'a': 1}", "'aaaaaaaaa")
    """
    try:
        return repr(value)[:most]
    except (RecursionError, ValueError):  # an integer of thousands of digits has no text either
        return f"a {type(value).__name__}"
