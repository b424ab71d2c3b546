"""Reading images of any kind as RGB, and finding their files; without torch."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from core.errors import DataError, UserError
from core.inputs import open_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of the files that count as images, in the order in which `find_image` tries them."""

MAX_PIXELS = 178_956_970
"""More pixels than this in one image are refused: a small file may claim any size and fill the memory."""
LIMIT = "CAPTION_MAX_PIXELS"
"""Environment variable that replaces `MAX_PIXELS`."""
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of images, whatever the file is called; others of Pillow start other programs (EPS) or are no pictures."""
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm"}
"""Ending of the name of a file with a format."""
MOST_BYTES = 1 << 28
"""Bytes of an image file that is passed on as it is."""
_STRIP = 1 << 22
"""Values that are scaled at once."""

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SKIP = "pass on_bad_image=skip"
"""The way out of a bad or missing image, at the end of messages; it makes training do without the image."""
WAYS_OUT = f"correct the file, or remove it and its captions, or {SKIP}"
"""What can be done about a bad image of a data set, at the end of messages."""


def open_image(source: str | Path | bytes | BinaryIO, *, name: str = "", min_side: int = 0) -> Image.Image:
    """Reads an image as RGB, upright, its first frame if it moves.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits (not clipped), an EXIF rotation is carried out.

    Args:
        source: path of the file, its bytes, or a file opened for reading bytes.
        name: what error messages call the image; by default its path.
        min_side: JPEG files that are much larger may be decoded at a half, a quarter or an eighth as long as the
            shorter side keeps at least this many pixels, which is several times faster; 0 decodes all of them.

    Raises:
        DataError: the file is missing, cannot be read or decoded, is cut off, has more than `MAX_PIXELS` pixels or
            values that are not an image's.
        UserError: the environment variable with another limit is no number.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "image given as bytes")
    limit = max_pixels()
    try:
        with _opened(source, name) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            with Image.open(file, formats=_formats()) as image:
                return _decode(image, name, min_side, limit)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name)) from error
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # decoders raise nearly anything on broken files: SyntaxError, struct.error, EOFError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "its content is no image format that Pillow knows"
        raise DataError(f"{name}: image cannot be decoded ({reason}); {WAYS_OUT}") from error


def encoded_image(content: bytes, name: str) -> tuple[bytes, str]:
    """The bytes of an image file and the ending that its content calls for; of rarer formats, the image as PNG.

    Args:
        content: content of the file.
        name: name of the image, for messages.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:  # reads the header only
            ending = _ENDINGS.get(image.format or "")
    except Exception:  # as many kinds as there are broken files: the reader says what is wrong
        ending = None
    return as_png(open_image(content, name=name)) if ending is None else (content, ending)


def as_png(image: Image.Image) -> tuple[bytes, str]:
    """An image as PNG, and the ending of its name; equal images give equal bytes."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), ".png"


def max_pixels() -> int:
    """Most pixels of an image.

    Raises:
        UserError: the environment variable `LIMIT` is no number.
    """
    given = os.environ.get(LIMIT)
    if given is None:
        return MAX_PIXELS
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{LIMIT} is {given!r}: expected the most pixels that an image may have, such as {MAX_PIXELS}")
    if int(given) > MAX_PIXELS:  # Pillow has a limit of its own
        Image.MAX_IMAGE_PIXELS = int(given)
    return int(given)


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Turns a decoded image of any mode into RGB: transparency on white, 16-bit grey and floats scaled.

    Raises:
        DataError: 32-bit values beyond 16 bits, floats beyond 255, or a mode without a way to RGB.
    """
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_deep(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def find_image(root: str | Path, name: str) -> Path | None:
    """Finds an image by the name that an annotation file gives it.

    Data sets are often passed on in another format than their annotations name: when ``root/name`` does not exist,
    files with the same name and another ending are tried, in the order of `IMAGE_SUFFIXES`.

    Returns:
        The path of an existing file, or None.
    """
    path = Path(root) / name
    if is_file(path):
        return path
    if path.suffix.lower() in IMAGE_SUFFIXES:
        stem = path.with_suffix("")
    elif path.name:  # dots inside a name without an ending are part of the name
        stem = path
    else:
        return None
    for suffix in IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            other = stem.with_name(stem.name + spelling)
            if is_file(other):
                return other
    return None


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, as one of thousands of letters, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow can read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _opened(source: str | Path | bytes | BinaryIO, name: str) -> Iterator[IO[bytes]]:
    """The file of an image; one that was given stays open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif not isinstance(source, str | Path):
        yield source
    elif not os.path.lexists(source):
        raise DataError(f"{name}: no such image file; put it there, or remove its captions")
    else:
        try:
            file = open_regular(source)
        except DataError as error:
            reason = str(error).removeprefix(f"{source}: ").rpartition(";")[0]
            raise DataError(f"{name}: cannot be read as a file: {reason}; {WAYS_OUT}") from error
        with file:
            yield file


def _decode(image: Image.Image, name: str, min_side: int, limit: int) -> Image.Image:
    """Decodes an opened file: reduced if asked for, upright, RGB."""
    if image.width * image.height > limit:
        raise DataError(_too_large(name))
    if min_side and image.format == "JPEG":
        image.draft(None, (min_side, min_side))  # keeps both sides at or above it
    image.load()
    orientation = _orientation(image)
    rgb = to_rgb(image, name)
    if orientation in _ORIENTATIONS:
        rgb = rgb.transpose(_ORIENTATIONS[orientation])
    # without a reference to the file, so that it can be closed and the image sent between processes
    return rgb.copy() if rgb is image else rgb


def _orientation(image: Image.Image) -> int:
    """Reads the EXIF rotation; unreadable EXIF data counts as none, since the image itself is whole."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # as many kinds as there are broken files
        return 1


def _scale_deep(image: Image.Image, name: str) -> Image.Image:
    """Brings 16-bit and float grey to 8 bits: 65535 and 1.0 (or 255.0) become 255."""
    values = np.asarray(image)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F":
        if not (low >= 0 and high <= 255):  # not-a-number fails as well
            raise DataError(f"{name}: float values from {low:g} to {high:g}, expected 0 to 1 or 0 to 255; {WAYS_OUT}")
        factor = 255.0 if high <= 1 else 1.0
    else:
        if not (low >= 0 and high <= 65535):
            raise DataError(f"{name}: grey values from {low:g} to {high:g}, expected 0 to 65535; {WAYS_OUT}")
        factor = 1 / 257
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP // max(1, image.width))
    for start in range(0, len(values), rows):  # all of it in double precision would be eight times the result
        scaled[start : start + rows] = np.rint(values[start : start + rows].astype(np.float64) * factor)
    return Image.fromarray(scaled)


def _too_large(name: str) -> str:
    """The message for images that would fill the memory."""
    return (
        f"{name}: image has more than {max_pixels() / 10**6:.0f} million pixels; shrink the file, set {LIMIT} to more "
        f"(about 10 bytes of memory for each), or {SKIP}"
    )
