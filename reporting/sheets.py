"""Sheets of pictures and texts: captioned images, attention word by word.

Pillow draws them, in a tenth of the time that matplotlib takes for its layout and the half second of its import: they
are drawn while a run trains.
"""

import functools
import importlib.util
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.text import visible
from reporting.pictures import ImageArray, Pixels, png_of_image

_DPI = 110
_FONT = Path("mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
"""matplotlib's own, of its package."""
_SMALL = 128
"""Rows of pixels below which an image is drawn with square pixels."""
_INFERNO = np.frombuffer(
    bytes.fromhex(
        "0000040b0724210c4a3d096557106e71196e8a226aa32c61bc3754d04545e35933f1711ff98c0afcaa0ff9c932f2e865fcffa4"
    ),
    np.uint8,
).reshape(-1, 3)
"""matplotlib's colour map of this name at 17 places."""
_COLOURS = np.stack(
    [0.6 * np.interp(np.arange(256) / 255, np.linspace(0, 1, len(_INFERNO)), channel) for channel in _INFERNO.T], axis=1
).astype(np.uint8)
"""The whole map, as it is laid over a grey picture: `(256, 3)`."""
_CROSS = "#00ffff"


class Sheet:
    """A white picture that pictures and texts are put on.

    Args:
        width: in pixels.
        height: in pixels.

    Attributes:
        image: what has been drawn.
        texts: what has been written, as it is shown.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.texts: list[str] = []
        self._draw = ImageDraw.Draw(self.image)

    def put(self, tile: Image.Image, left: int, top: int) -> None:
        """Puts a picture there."""
        self.image.paste(tile, (left, top))

    def write(
        self,
        text: str,
        place: tuple[float, float],
        *,
        room: float,
        points: float = 9,
        colour: str = "black",
        anchor: str = "ma",
        back: str | None = None,
    ) -> None:
        """Writes a text as it stands, with visible control characters.

        Args:
            text: of any number of lines.
            place: of the anchor, pixels from the left and from the top.
            room: in pixels; lines that are wider are cut.
            points: size of the font.
            colour: of the letters.
            anchor: Pillow's: left, middle or right; ascender or descender.
            back: colour of a box behind it.
        """
        font = _font(round(points * _DPI / 72))
        shown = "\n".join(_cut(line, font, room) for line in visible(text, keep="\n").split("\n"))
        self.texts.append(shown)
        if back is not None:
            left, top, right, bottom = self._draw.multiline_textbbox(place, shown, font, anchor)
            self._draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=back)
        self._draw.multiline_text(place, shown, colour, font, anchor, align="center")

    def png(self) -> bytes:
        """The content of a PNG file."""
        return png_of_image(self.image)

    def _repr_png_(self) -> bytes:
        """How notebooks show it."""
        return self.png()

    def cross(self, x: float, y: float, reach: int = 7) -> None:
        """Marks a place."""
        self._draw.line((x - reach, y, x + reach, y), _CROSS, 2)
        self._draw.line((x, y - reach, x, y + reach), _CROSS, 2)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _cut(line: str, font: Font, room: float) -> str:
    """As much of a line as there is room for."""
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + "…") > room:
        line = line[:-1]
    return line + "…"


@functools.lru_cache
def _font(size: int) -> Font:
    """The font of all figures; where its file is elsewhere, Pillow's own, which has Latin letters only."""
    found = importlib.util.find_spec("matplotlib")  # which is not imported for it
    folders = found.submodule_search_locations if found is not None else None
    try:
        return ImageFont.truetype(Path(next(iter(folders or ["."]))) / _FONT, size)
    except OSError:
        return ImageFont.load_default(size)


def wrap_text(text: str, width: int = 38, lines: int = 3) -> str:
    """Breaks a text into at most `lines` lines, the last cut with an ellipsis if need be."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def picture_of(image: ImageArray) -> Image.Image:
    """An image `(H, W, 3)`, 0 to 1, for Pillow."""
    return Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))


def scaled(image: ImageArray, width: int) -> Image.Image:
    """An image `(H, W, 3)`, 0 to 1, so many pixels wide; small ones keep their pixels."""
    picture = picture_of(image)
    small = image.shape[0] < _SMALL
    filters = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return picture.resize((width, round(width * image.shape[0] / image.shape[1])), filters)


def caption_sheet(images: Sequence[ImageArray], captions: Sequence[str], references: Sequence[str]) -> Sheet:
    """Draws images in rows of four, below each the generated caption, above it, in grey, a reference.

    Args:
        images: `(H, W, 3)` each, 0 to 1.
        captions: generated by the model.
        references: one per image; an empty string is none.
    """
    column, width, above, below = 352, 330, 50, 64
    columns = min(4, len(images))
    tiles = [scaled(image, width) for image in images]
    height = max(tile.height for tile in tiles)
    step = above + height + below
    sheet = Sheet(column * columns, step * math.ceil(len(images) / columns))
    for place, (tile, caption, reference) in enumerate(zip(tiles, captions, references, strict=True)):
        left, top = place % columns * column, place // columns * step + above
        middle = left + column // 2
        sheet.write(wrap_text(reference, 44), (middle, top - 4), room=width, points=8, colour="#737373", anchor="md")
        sheet.put(tile, left + (column - width) // 2, top)
        sheet.write(wrap_text(caption or "(empty)"), (middle, top + tile.height + 4), room=width)
    return sheet


def attention_sheet(
    image: ImageArray,
    words: Sequence[str],
    maps: Sequence[ImageArray],
    title: str = "",
    entropies: Sequence[float] = (),
) -> Sheet:
    """Draws an image and, for each word of its caption, the attention at that step.

    Every map has its own scale: a weight of 0 is dark and the peak is bright, unless the peak is lower than three times
    the uniform weight, so that a nearly uniform map looks uniform. A cross marks the cell of the peak.

    Args:
        image: `(H, W, 3)`, 0 to 1.
        words: the caption.
        maps: `(h, w)` each, weights that sum to one; as many as words.
        title: written above.
        entropies: entropy of each map relative to the uniform one, in [0, 1]; written into its corner.
    """
    columns = min(6, max(3, math.ceil(math.sqrt(1.5 * (len(words) + 1)))))
    column, width, above = 231, 218, 38
    picture = scaled(image, width)
    # small images are coloured before they are enlarged, which costs less, also in the file
    drawn = picture_of(image) if image.shape[0] < _SMALL else picture
    grey = (0.4 * np.asarray(drawn, np.float32).mean(axis=2, keepdims=True)).astype(np.uint8)
    heading = wrap_text(title, 16 * columns, 3)
    head = 10 + 20 * len(heading.splitlines())
    step = above + picture.height
    sheet = Sheet(column * columns, head + step * math.ceil((len(words) + 1) / columns))
    if heading:
        sheet.write(heading, (sheet.image.width / 2, 8), room=sheet.image.width - 20, points=11)
    for place, tile in enumerate([picture, *(_mixed(grey, weights) for weights in maps[: len(words)])]):
        if tile.size != picture.size:
            tile = tile.resize(picture.size, Image.Resampling.NEAREST)
        left, top = place % columns * column + (column - width) // 2, head + place // columns * step + above
        sheet.put(tile, left, top)
        if not place:
            continue
        word, weights = words[place - 1], maps[place - 1]
        if weights.max() > weights.min():
            row, cell = np.unravel_index(int(weights.argmax()), weights.shape)
            across, down = tile.width / weights.shape[1], tile.height / weights.shape[0]
            sheet.cross(left + (cell + 0.5) * across, top + (row + 0.5) * down)
        shown = word if len(word) <= 18 else word[:17] + "…"
        sheet.write(shown, (left + width / 2, top - 4), room=width, points=12, anchor="md")
        if entropies:
            corner = (left + 6, top + tile.height - 4)
            sheet.write(
                f"{entropies[place - 1]:.2f}", corner, room=width, points=7, colour="white", anchor="ld", back="#303030"
            )
    return sheet


def _mixed(grey: Pixels, weights: ImageArray) -> Image.Image:
    """Attention weights `(h, w)` in colours over an image `(H, W, 1)`, 0 to 102."""
    height, width = grey.shape[:2]
    top = max(float(weights.max()), 3 / weights.size)
    small = Image.fromarray(np.asarray(255 / top * weights, np.float32))
    levels = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).round().astype(np.uint8)
    return Image.fromarray(_COLOURS[levels] + grey)
