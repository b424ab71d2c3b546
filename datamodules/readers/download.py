"""Downloads that resume where they stopped, and the files of COCO 2017."""

import errno
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from core.errors import DataError
from core.text import log_of

COCO_URL = "http://images.cocodataset.org"
"""Where COCO's files are; a mirror must have the same paths and files."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is, in bytes or files."""

_log = log_of(__name__)
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 5  # in a row without a new byte
_LOST_CONNECTION = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS)
_MARGIN = 1 << 28  # bytes left free, for file systems need room for themselves


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file and what it holds.

    Attributes:
        path: of the file on the server.
        size: bytes.
        md5: checksum in hexadecimal; None when none is known: then the size and zip's own checksums (CRC-32 of every
            member) are checked.
        unpacked: bytes of its content, roughly; for the check of free space.
        contents: paths in the root that must exist afterwards; for a folder with its number of files, else 0.
    """

    path: str
    size: int
    md5: str | None
    unpacked: int
    contents: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.rsplit("/", 1)[-1]


# COCO publishes no checksums; these are what independent projects have found for the same files
COCO_ARCHIVES = {
    "annotations": Archive(
        path="annotations/annotations_trainval2017.zip",
        size=252_907_541,
        md5="f4bbac642086de4f52a3fdda2de5fa2c",
        unpacked=1_100_000_000,
        contents=(("annotations/captions_train2017.json", 0), ("annotations/captions_val2017.json", 0)),
    ),
    "val": Archive(
        path="zips/val2017.zip",
        size=815_585_330,
        md5="442b8da7639aecaf257c1dceb8ba8c80",
        unpacked=830_000_000,
        contents=(("val2017", 5000),),
    ),
    "train": Archive(
        path="zips/train2017.zip",
        size=19_336_861_798,
        md5="cced6f7f71b7629ddf16f17bbcfab6b2",
        unpacked=19_700_000_000,
        contents=(("train2017", 118_287),),
    ),
}
"""The parts of COCO 2017 that captioning needs, smallest first."""


def prepare(
    root: Path,
    archives: Sequence[Archive],
    base_url: str,
    *,
    keep_archives: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[str]:
    """Downloads and unpacks what the root lacks; can be interrupted and called again at any time.

    Args:
        root: folder of the data set, made if it is not there.
        archives: what to fetch.
        base_url: address before each archive's path.
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
        fetch(f"{base_url.rstrip('/')}/{archive.path}", file, archive.size, archive.md5, progress)
        unpack(file, root, progress)
        absent = missing_contents(root, archive)
        if absent:
            raise DataError(f"{file}: unpacked, but {absent[0]}; the archive is not the expected one, remove it")
        if not keep_archives:
            file.unlink()
        how = f"MD5 {archive.md5}" if archive.md5 else "size and CRC-32 of every member (no checksum is published)"
        lines.append(f"{archive.name}: {archive.size:,} bytes fetched and unpacked; checked {how}")
    return lines


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
    url: str, path: Path, size: int | None = None, md5: str | None = None, progress: Progress | None = None
) -> None:
    """Downloads a file; a partial one (``.part``) is continued, and the name appears only when the file is whole.

    Args:
        url: address.
        path: where the file goes; nothing is done when it is there with the right size and checksum.
        size: bytes that the file must have; None: what the server says.
        md5: checksum; None: not checked.
        progress: called with the bytes.

    Raises:
        DataError: the server has no such file or another one, the checksum is wrong, or the connection stays away.
    """
    part = path.with_name(path.name + ".part")
    if path.exists():
        path.replace(part)  # goes through the same checks
    failures = 0
    while True:
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
    if md5 is not None:
        if progress:
            progress(f"checking {path.name}", 0, 0)
        found = pooch.file_hash(str(part), alg="md5")
        if found != md5:
            part.unlink()
            raise DataError(f"{url}: checksum is {found}, expected {md5}; the file was removed, run the command again")
    part.replace(path)


def unpack(file: Path, root: Path, progress: Progress | None = None) -> None:
    """Unpacks a zip file; its folders appear in the root only when all of it is unpacked and its CRCs are right.

    Raises:
        DataError: the archive is broken; it is removed, so that the next call fetches it again.
    """
    work = root / f".{file.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for number, member in enumerate(members, start=1):
                archive.extract(member, work)
                if progress:
                    progress(f"unpacking {file.name}", number, len(members))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        file.unlink(missing_ok=True)
        raise DataError(f"{file}: broken archive ({error}); it was removed, run the command again") from error
    else:
        for path in sorted(work.iterdir()):
            _move_into(path, root / path.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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


def _move_into(source: Path, target: Path) -> None:
    """Renames a folder in one step, or moves its files into the one that is there already."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir():
        for path in sorted(source.iterdir()):
            _move_into(path, target / path.name)
    else:
        source.replace(target)


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
