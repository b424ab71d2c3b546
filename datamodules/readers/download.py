"""Downloads that resume where they stopped."""

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from core.errors import DataError
from core.text import log_of
from datamodules.readers.unpacking import BrokenArchiveError, Place, Progress, is_archive, unpack

_log = log_of(__name__)
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 5  # in a row without a new byte
_LOST_CONNECTION = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS)
_MD5, _GIT, _SHA = 32, 40, 64  # digits
_CHECKSUMS = {_MD5: "MD5", _GIT: "git's object name", _SHA: "SHA-256"}
_MARGIN = 1 << 28  # bytes left free, for file systems need room for themselves


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file on a server, and what it brings: an archive, or the file itself.

    Attributes:
        path: path of the file on the server.
        size: bytes; where `is_size_exact` is False, roughly.
        checksum: in hexadecimal, of MD5, SHA-256 or git (SHA-1 of the content behind its length), by its length; None
            when none is known: then the size and zip's own checksums (CRC-32 of every member) are checked.
        unpacked: bytes of its content, roughly; for the check of free space.
        contents: paths in the root that must exist afterwards; for a folder with its number of files, else 0.
        server: address before the path.
        is_size_exact: whether a file of another size is another file.
        place: where each member goes; None: to its own path.
    """

    path: str
    size: int
    checksum: str | None
    unpacked: int
    contents: tuple[tuple[str, int], ...]
    server: str = ""
    is_size_exact: bool = True
    place: Place | None = None

    @property
    def is_packed(self) -> bool:
        """Whether it is an archive."""
        return is_archive(Path(self.name))

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.rsplit("/", 1)[-1]


def prepare(
    root: Path,
    archives: Sequence[Archive],
    base_url: str | None = None,
    *,
    keep_archives: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[str]:
    """Downloads and unpacks what the root lacks; can be interrupted and called again at any time.

    Args:
        root: folder of the data set, made if it is not there.
        archives: what to fetch.
        base_url: address before each archive's path, instead of its own server.
        keep_archives: leave the zip files in the root.
        progress: called at every step.

    Returns:
        For each archive a line on what was done.

    Raises:
        DataError: not enough space, the server does not have a file, a file is broken or the connection stays away.
    """
    root.mkdir(parents=True, exist_ok=True)
    wanted = [archive for archive in archives if missing_contents(root, archive)]
    lines = [f"{archive.name}: unpacked already" for archive in archives if archive not in wanted]
    check_free_space(root, wanted, keep_archives)
    for archive in wanted:
        file = root / archive.name
        server = archive.server if base_url is None else base_url
        size = archive.size if archive.is_size_exact else None
        fetch(f"{server.rstrip('/')}/{archive.path}", file, size, archive.checksum, progress)
        checked = f"{_CHECKSUMS[len(archive.checksum)]} {archive.checksum}" if archive.checksum else ""
        fetched = f"{archive.name}: {file.stat().st_size:,} bytes fetched"
        if archive.is_packed:
            fetched += " and unpacked"
            checked = checked or "size and CRC-32 of every member (no checksum is published)"
            _unpack(archive, file, root, keep_archives, progress)
        lines.append(f"{fetched}; checked {checked}" if checked else f"{fetched}; no checksum is published")
    return lines


def _unpack(archive: Archive, file: Path, root: Path, keep_archives: bool, progress: Progress) -> None:
    """Unpacks what was fetched, and looks whether all is there; a broken file is removed, it will be fetched anew."""
    try:
        unpack(file, root, progress, archive.place)
    except BrokenArchiveError as error:
        file.unlink(missing_ok=True)
        raise DataError(f"{error}; it was removed, run the command again") from error
    absent = missing_contents(root, archive)
    if absent:
        raise DataError(f"{file}: unpacked, but {absent[0]}; the archive is not the expected one, remove it")
    if not keep_archives:
        file.unlink()


def missing_contents(root: Path, archive: Archive) -> list[str]:
    """What an archive would bring that the root does not have, as phrases."""
    missing = []
    for name, count in archive.contents:
        path = root / name
        if not path.exists():
            missing.append(f"{path} is missing")
        elif count:
            found = sum(1 for _ in os.scandir(path))
            if found < count:
                missing.append(f"{path} has {found:,} of {count:,} files")
    return missing


def check_free_space(root: Path, archives: Sequence[Archive], keep_archives: bool = False) -> None:
    """Stops before the first byte when the disk cannot take it all.

    Raises:
        DataError: with what is needed and what is free.
    """
    held = peak = 0
    for archive in archives:
        present = max((path.stat().st_size for path in _files_of(root / archive.name) if path.exists()), default=0)
        download = max(0, archive.size - present)
        peak = max(peak, held + download + archive.unpacked)
        # an archive removed after unpacking also gives back what was there of it before
        held += archive.unpacked + (download if keep_archives else -present)
    free = shutil.disk_usage(root).free
    if archives and peak + _MARGIN > free:
        need, have = (peak + _MARGIN) / 1e9, free / 1e9
        raise DataError(f"{root}: needs {need:.1f} GB free, has {have:.1f} GB; free some or choose another --root")


def fetch(
    url: str, path: Path, size: int | None = None, checksum: str | None = None, progress: Progress | None = None
) -> None:
    """Downloads a file; a partial one (``.part``) is continued, and the name appears only when the file is whole.

    Args:
        url: address.
        path: where the file goes; nothing is done when it is there with the right size and checksum.
        size: bytes that the file must have; None: what the server says.
        checksum: as in `Archive`; None: not checked.
        progress: called with the bytes.

    Raises:
        DataError: the server has no such file or another one, the checksum is wrong, or the connection stays away.
    """
    part = path.with_name(path.name + ".part")
    if path.exists():
        path.replace(part)  # goes through the same checks
    failures = 0
    # without a known size only the checksum tells that nothing is lacking
    whole = size is None and checksum is not None and part.exists() and _checksum_of(part, len(checksum)) == checksum
    while not whole:
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, size, progress)
            break
        except _LOST_CONNECTION as error:
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= _ATTEMPTS:
                raise DataError(_unreachable(url, part, error)) from error
            _log.info("%s: connection lost at %d bytes (%s); continuing", url, after, error)
            time.sleep(_pause(failures))
    if checksum is not None:
        if progress:
            progress(f"checking {path.name}", 0, 0)
        found = _checksum_of(part, len(checksum))
        if found != checksum:
            part.unlink()
            wrong = f"checksum is {found}, expected {checksum}"
            raise DataError(f"{url}: {wrong}; the file was removed, run the command again")
    part.replace(path)


def _checksum_of(path: Path, digits: int) -> str:
    """MD5, git's name or SHA-256 of a file: the one with so many hexadecimal digits."""
    if digits != _GIT:
        return str(pooch.file_hash(str(path), alg="md5" if digits == _MD5 else "sha256"))
    with path.open("rb") as file:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _continue(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Fetches what a partial file lacks; a lost connection leaves it longer than it was."""
    start = part.stat().st_size if part.exists() else 0
    if size is not None and start == size:
        return
    if size is not None and start > size:
        part.unlink()
        start = 0
    tag_file = part.with_name(part.name + ".etag")
    response = _request(url, part, start, tag_file)
    with response:
        total = _announced(response, start)
        if response.status != 206:
            start = 0
        if size is not None and total is not None and total != size:
            raise DataError(f"{url}: has {total} bytes, expected {size}; it is another file, check --base-url")
        _note_tag(response, tag_file)
        done = _append(response, part, start, total, progress, size)
    if done != (size or total or done):
        raise ConnectionError(f"ended after {done} of {size or total} bytes")
    tag_file.unlink(missing_ok=True)


def _request(url: str, part: Path, start: int, tag_file: Path) -> http.client.HTTPResponse:
    """Asks the server for everything behind the first `start` bytes."""
    headers = {"User-Agent": "captioners"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag_file.exists():
            headers["If-Range"] = tag_file.read_text()  # a file that changed on the server starts again
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing behind our last byte: not the same file
            part.unlink()
            raise ConnectionError("the server refuses to continue; starting again") from error
        if error.code in (408, 429) or error.code >= 500:
            raise
        raise DataError(
            f"{url}: the server answers {error.code} {error.reason}; check the address (--base-url)"
        ) from error
    except ValueError as error:
        raise DataError(f"{url}: not an address ({error}); check --base-url") from error


def _append(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    progress: Progress | None,
    size: int | None,
) -> int:
    """Writes the body behind the first `start` bytes of the file, no more than `size`; returns the file's length.

    Raises:
        DataError: it cannot be written, or the server, which has not said how much it sends, sends more.
    """
    done = start
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := response.read(_CHUNK):
                if size is not None and done + len(chunk) > size:
                    raise DataError(f"{part}: the server sends more than {size} bytes; check --base-url")
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(f"fetching {part.stem}", done, total or 0)
    except OSError as error:
        if error.errno in _DISK_ERRORS:  # also when the rest of the buffer is written on closing
            raise DataError(f"{part}: cannot be written ({error.strerror}); what is there stays, call again") from error
        raise  # a lost connection
    return done


def _announced(response: http.client.HTTPResponse, start: int) -> int | None:
    """Length of the whole file as the server says it."""
    if response.status == 206:
        interval, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if interval.split("-")[0] != str(start):
            raise ConnectionError(f"the server sends {interval or 'another part'} instead of {start}-")
        return int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length")
    return int(length) if length is not None else None


def _note_tag(response: http.client.HTTPResponse, tag_file: Path) -> None:
    """Keeps the server's mark of this version of the file; weak marks cannot be used to go on."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        tag_file.write_text(tag)


def _files_of(path: Path) -> tuple[Path, Path]:
    """A file that is fetched, whole and in part."""
    return path, path.with_name(path.name + ".part")


def _pause(failures: int) -> float:
    """Seconds to wait after a lost connection."""
    return 0.0 if failures == 0 else min(30.0, 0.5 * 2.0**failures)


def _unreachable(url: str, part: Path, error: Exception) -> str:
    """The message when the connection stays away."""
    reason = getattr(error, "reason", None) or error
    kept = f"{part.stat().st_size:,} bytes are kept" if part.exists() else "nothing was fetched"
    return f"{url}: cannot be reached ({reason}); {kept}, run the command again to go on"
