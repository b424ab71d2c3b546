"""Damage to files, made by code: every kind as a function that replaces an intact file."""

import copy
import io
import os
import random
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]

WRONG: tuple[Any, ...] = (None, [], {}, -1, 1e400, True, "", "x\u0000y", ["x"], {"a": 1}, 10**400, "\ud83d", [[[]]])
"""Values that stand where others are expected."""


def bytes_damage(change: Callable[[bytes], bytes]) -> Damage:
    """A damage that changes the content."""

    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(seed: int, count: int) -> Damage:
    """Some random bits."""

    def change(data: bytes) -> bytes:
        drawn, changed = random.Random(seed), bytearray(data)
        for _ in range(count):
            changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
        return bytes(changed)

    return bytes_damage(change)


def cut(share: float) -> Damage:
    """The beginning of the file."""
    return bytes_damage(lambda data: data[: int(share * len(data))])


def replaced(make: Callable[[Path], object]) -> Damage:
    """Something else where the file was."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def bound_socket(path: Path) -> None:
    """A socket; its name may only have some hundred bytes, so it is bound from its folder."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def zip_bomb(data: bytes) -> bytes:
    """An archive of some kilobytes that unpacks to 64 MB of zeros under many names."""
    del data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x.npy", "features.npy", "archive/data.pkl", "archive/version"):
            archive.writestr(name, bytes(1 << 24))
    return buffer.getvalue()


def sparse(path: Path) -> None:
    """A file that has 1 TB and takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def without_quote(data: bytes) -> bytes:
    """A quote that is opened in the middle and never closed."""
    return data[: len(data) // 2] + b'"' + data[len(data) // 2 :]


def shuffled_lines(data: bytes) -> bytes:
    """The lines in another order."""
    lines = data.splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    return b"".join(lines)


DAMAGES: dict[str, Damage] = {
    "empty": bytes_damage(lambda data: b""),
    "one byte": bytes_damage(lambda data: data[:1]),
    "cut at 1 %": cut(0.01),
    "cut at 30 %": cut(0.3),
    "cut at 90 %": cut(0.9),
    "without its last byte": bytes_damage(lambda data: data[:-1]),
    "one bit": flipped(0, 1),
    "ten bits": flipped(1, 10),
    "a thousand bits": flipped(2, 1000),
    "NULs": bytes_damage(lambda data: bytes(len(data))),
    "NULs at its end": bytes_damage(lambda data: data[: len(data) // 2] + bytes(len(data) // 2)),
    "twice": bytes_damage(lambda data: data + data),
    "UTF-16": bytes_damage(lambda data: data.decode("latin-1").encode("utf-16")),
    "Latin-1": bytes_damage(lambda data: data.replace(b"a", b"\xe4")),
    "byte order mark": bytes_damage(lambda data: b"\xef\xbb\xbf" + data),
    "old line ends": bytes_damage(lambda data: data.replace(b"\n", b"\r")),
    "lines shuffled": bytes_damage(shuffled_lines),
    "an open quote": bytes_damage(without_quote),
    "huge numbers": bytes_damage(lambda data: data.replace(b"1", b"9" * 5000)),
    "nested": bytes_damage(lambda data: b'{"a":[' * 100_000),
    "a long line": bytes_damage(lambda data: b"a" * (1 << 22)),
    "a zip bomb": bytes_damage(zip_bomb),
    "PNG of another": bytes_damage(lambda data: b"\x89PNG\r\n\x1a\n" + data),
    "random": bytes_damage(lambda data: random.Random(3).randbytes(4096)),
    "1 TB": sparse,
    "a pipe": replaced(os.mkfifo),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a folder": replaced(Path.mkdir),
    "a socket": replaced(bound_socket),
    "a link to nowhere": replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "gone": Path.unlink,
}


def wrong_documents(document: Any, values: tuple[Any, ...] = WRONG) -> Iterator[tuple[str, Any]]:
    """The document with one value replaced or one key taken out, each with what was done."""
    for place in list(_places(document)):
        for value in values:
            changed = copy.deepcopy(document)
            _inner(changed, place[:-1])[place[-1]] = copy.deepcopy(value)
            yield f"{place} = {repr(value)[:20]}", changed
        changed = copy.deepcopy(document)
        del _inner(changed, place[:-1])[place[-1]]
        yield f"without {place}", changed
    for value in values:
        yield f"all = {repr(value)[:20]}", value


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, list) and key > 1:
            break  # entries of a list are alike
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _inner(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value
