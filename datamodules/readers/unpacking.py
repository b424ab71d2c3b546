"""Unpacking zip and tar files: whole, or only the members that are wanted."""

import errno
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from core.errors import DataError
from core.inputs import open_regular, reason
from core.tar_files import open_tar, tar_members

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is, in bytes or files."""
Place = Callable[[str], str | None]
"""Name of a member to its path in the root, None where it is not wanted."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of the files that can be unpacked."""
_MARGIN = 1 << 28  # bytes left free, for file systems need room for themselves
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
)


class BrokenArchiveError(DataError):
    """An archive that cannot be unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path there.
        size: bytes when unpacked.
        open: opens its content.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a file is called like something that can be unpacked."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


@contextmanager
def members_of(file: Path) -> Iterator[list[Member]]:
    """The files in an archive, without what systems add to it.

    Raises:
        BrokenArchiveError: it is broken, encrypted or no archive.
    """
    with open_regular(file, "an archive", BrokenArchiveError) as opened, ExitStack() as stack:
        with _broken(file, (Exception,)):
            if file.name.lower().endswith(".zip"):
                archive = stack.enter_context(zipfile.ZipFile(opened))
                found = [_zip_member(archive, item) for item in archive.infolist() if _is_wanted(item.filename)]
            else:
                tar = stack.enter_context(open_tar(opened, compressed=True))
                found = [_tar_member(tar, item) for item in tar_members(tar) if item.isfile() and _is_wanted(item.name)]
        with _broken(file, _BROKEN):
            yield found


@contextmanager
def _broken(file: Path, causes: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turns errors that mean a damaged archive into one line; those of a disk have a number and are none."""
    try:
        yield
    except causes as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a place that cannot be
            raise
        raise BrokenArchiveError(f"{file}: broken archive ({reason(error)})") from error


def unpack(file: Path, root: Path, progress: Progress | None = None, place: Place | None = None) -> int:
    """Unpacks an archive; files appear in the root only when all of them are unpacked and their checksums are right.

    Args:
        file: zip or tar, compressed or not.
        root: where its files go.
        progress: called after each member.
        place: where each member goes; None: to its own path. Names that lead out of the root are cut.

    Returns:
        Number of files.

    Raises:
        BrokenArchiveError: it cannot be unpacked.
        DataError: there is no room on the disk.
    """
    work = root / f".{file.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with members_of(file) as members:
            wanted = [(member, target) for member in members if (target := _target(member.name, place)) is not None]
            need, free = sum(member.size for member, _ in wanted) + _MARGIN, shutil.disk_usage(file.parent).free
            if wanted and need > free:
                raise DataError(f"{root}: needs {need / 1e9:.1f} GB free, has {free / 1e9:.1f} GB; free some")
            for number, (member, target) in enumerate(wanted, start=1):
                path = work / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                if progress:
                    progress(f"unpacking {file.name}", number, len(wanted))
        for path in sorted(work.iterdir()) if wanted else ():
            _move_into(path, root / path.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return len(wanted)


def _target(name: str, place: Place | None) -> str | None:
    """Where a member goes, inside of the root whatever it is called."""
    target = name if place is None else place(name)
    if target is None:
        return None
    parts = [part for part in PurePosixPath(target.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    return "/".join(parts) or None


def _zip_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Member:
    if item.flag_bits & 1:
        raise zipfile.BadZipFile("it is encrypted")
    return Member(name=item.filename, size=item.file_size, open=lambda: archive.open(item))


def _tar_member(tar: tarfile.TarFile, item: tarfile.TarInfo) -> Member:
    return Member(name=item.name, size=item.size, open=lambda: cast(IO[bytes], tar.extractfile(item)))


def _is_wanted(name: str) -> bool:
    """Whether a member is a file, and not what macOS and Windows put beside the files of others."""
    path = PurePosixPath(name)
    added = "__MACOSX" in path.parts or path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db")
    return not added and not name.endswith("/")


def _move_into(source: Path, target: Path) -> None:
    """Renames a folder in one step, or moves its files into the one that is there already."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir():
        for path in sorted(source.iterdir()):
            _move_into(path, target / path.name)
    else:
        source.replace(target)
