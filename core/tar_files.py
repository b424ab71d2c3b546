"""Reading tar archives that anybody may have written: in bounded time and memory, and no member silently lost.

`tarfile` takes a broken header in the middle for the end of the archive, reads an extended header whatever its size,
and walks in circles when a size is negative.
"""

import tarfile
from collections.abc import Iterator
from typing import IO

_MOST_HEADER = 1 << 13
"""Bytes of an extended header; it has names of at most 4,096 bytes and attributes of a file system. Older versions of
`tarfile` take time that grows with its square."""
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _CheckedInfo(tarfile.TarInfo):
    """A header that is refused when it is broken, or when reading what it announces would take too much."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_CheckedInfo":
        if not buf:
            raise tarfile.ReadError("it is cut off: its end mark is missing")
        if not any(buf):  # the end mark
            return super().frombuf(buf, encoding, errors)
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is broken: {error}") from error
        if found.size < 0 or (found.type in _EXTENDED and found.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header has {found.size:,} bytes")
        return found


def open_tar(file: IO[bytes], *, compressed: bool = False) -> tarfile.TarFile:
    """Opens an archive; nothing of it is unpacked.

    Args:
        file: open for reading.
        compressed: with gzip, bzip2 or xz, or not at all; else only not at all.

    Raises:
        Exception: one of many types, when it is damaged.
    """
    return tarfile.open(fileobj=file, mode="r:*" if compressed else "r:", tarinfo=_CheckedInfo)


def tar_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, none of which is kept: `tarfile` would need a kilobyte for each.

    Args:
        archive: one from `open_tar`.

    Raises:
        Exception: one of many types, when it is damaged.
    """
    before = -1
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        if member.size < 0 or archive.offset <= before:  # an extended header may give another size
            raise tarfile.ReadError(f"a member has {member.size:,} bytes")
        before = archive.offset
        yield member
