"""Tar archives that no honest program writes, made by code."""

import tarfile
from collections.abc import Iterator
from typing import Any

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
ORDINARY = "a.png"


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None, **more: Any
) -> bytes:
    """A header, which may say another size than that of the content behind it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    for key, value in more.items():
        setattr(info, key, value)
    header = info.tobuf(tarfile.GNU_FORMAT)[-BLOCK:]
    return header + content + bytes(-len(content) % BLOCK)


def pax(content: bytes, size: int | None = None) -> bytes:
    return member("pax", content, tarfile.XHDTYPE, size)


def noted(key: str, value: str) -> bytes:
    """An entry of an extended header; it begins with its length."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + len(str(len(rest) + 2))
    return str(length).encode() + rest


def forgeries(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """Archives with one ordinary picture, and what else is in them."""
    good = member(ORDINARY, picture)
    names = ("../../x.png", "/tmp/x.png", "a/../../x.png", "C:\\x.png", "x\n.png", "\x1b[31mx.png", "x" * 96 + ".png")
    for name in names:
        yield f"a member called {name[:20]!r}", good + member(name, picture) + END
    kinds = {
        "hard link": tarfile.LNKTYPE,
        "symbolic link": tarfile.SYMTYPE,
        "device": tarfile.CHRTYPE,
        "block device": tarfile.BLKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "folder": tarfile.DIRTYPE,
        "unknown kind": b"Q",
    }
    for name, kind in kinds.items():
        yield f"a {name}", good + member("x.png", kind=kind, linkname="/etc/passwd") + END
    for size in (len(picture) + 1, 1 << 20, 1 << 40, 1 << 62):
        yield f"a member that says {size} bytes", good + member("x.png", picture, size=size) + END
    for size in (-1, -BLOCK, -4 * BLOCK, -(1 << 40)):
        yield f"a member of {size} bytes", good + member("x.png", picture, size=size) + END
        yield f"an extended size of {size}", good + pax(noted("size", str(size))) + member("x.png", picture) + END
        yield f"an extended header of {size} bytes", good + pax(b"", size) + member("x.png", picture) + END
    yield "an extended size of 1 TB", good + pax(noted("size", str(1 << 40))) + member("x.png", picture) + END
    yield "an extended size that is none", good + pax(noted("size", "9" * 5000)) + member("x.png", picture) + END
    yield "an extended path of 1 MB", good + pax(noted("path", "x" * (1 << 20))) + member("x.png", picture) + END
    yield "an extended path out", good + pax(noted("path", "../../x.png")) + member("x.png", picture) + END
    yield "digits for an expression", good + pax(b"1" * (1 << 20)) + member("x.png", picture) + END
    yield "fewer digits for it", good + pax(b"1" * (1 << 13)) + member("x.png", picture) + END
    yield "a chain of extended headers", good + pax(noted("comment", "x")) * 5000 + member("x.png", picture) + END
    long = member("././@LongLink", b"x" * 100 + b"\0", tarfile.GNUTYPE_LONGNAME)
    yield "a chain of long names", good + long * 5000 + member("x.png", picture) + END
    yield "a long name of 1 TB", good + member("././@LongLink", b"x", tarfile.GNUTYPE_LONGNAME, 1 << 40) + END
    entries = noted("GNU.sparse.major", "1") + noted("GNU.sparse.minor", "0") + noted("GNU.sparse.name", "x.png")
    yield "holes of 1 TB", good + pax(entries) + member("x.png", b"1000000000000\n" + b"1\n" * 5000) + END
    yield "a broken header behind another", good + bytes([255]) + member("x.png", picture)[1:] + END
    yield "no end mark", good
    yield "half a header", good + member("x.png", picture)[:100]
    yield "the same name many times", good * 50 + END
