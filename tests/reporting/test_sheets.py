"""Sheets of pictures: every one is where its text is, and says what it should."""

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image, ImageFont

from reporting import sheets
from reporting.sheets import attention_sheet, caption_sheet, scaled, wrap_text

IMAGE = np.full((16, 16, 3), (0.2, 0.4, 0.8), np.float32)
COLOUR = [51, 102, 204]
CYAN = [0, 255, 255]


def test_captions_stand_below_and_references_above():
    sheet = caption_sheet([IMAGE] * 5, ["a dog", "", "b", "c", "d"], ["one dog", "", "", "", ""])
    assert sheet.texts == ["one dog", "a dog", "", "(empty)", "", "b", "", "c", "", "d"]
    pixels = np.asarray(sheet.image)
    width, height = 4 * 352, 2 * (50 + 330 + 64)
    assert pixels.shape == (height, width, 3)
    pictures = (pixels == COLOUR).all(axis=2)
    assert pictures.sum() == 5 * 330 * 330
    written = pixels.min(axis=2) < 100
    assert written[380:444, :352].any(), "a caption below its picture"
    assert not written[:50].any(), "references are grey"
    assert (pixels[:50, :352] < 150).any()
    assert not (pixels[:50, 352:] < 255).any(), "and missing ones leave no trace"


def test_no_text_reaches_the_picture_beside_it():
    long = ["WWWWW " * 40, "w" * 200, "", ""]
    sheet = caption_sheet([IMAGE] * 4, long, long)
    between = [place * 352 + offset for place in range(1, 4) for offset in (-1, 0)]
    assert (np.asarray(sheet.image)[:, between] == 255).all()
    words = attention_sheet(IMAGE, ["W" * 40] * 2, [np.full((2, 2), 0.25, np.float32)] * 2)
    assert (np.asarray(words.image)[:, [230, 231, 461, 462]] == 255).all()


def test_the_peak_of_a_map_is_marked_and_a_uniform_one_has_none():
    peaked = np.zeros((4, 4), np.float32)
    peaked[3, 0] = 1
    uniform = np.full((4, 4), 1 / 16, np.float32)
    sheet = attention_sheet(IMAGE, ["dog", "runs"], [peaked, uniform], "a title", [0.0, 1.0])
    assert sheet.texts == ["a title", "dog", "0.00", "runs", "1.00"]
    pixels = np.asarray(sheet.image)
    left, top = 231 + 6, 30 + 38  # of the second tile
    tiles = [pixels[top : top + 218, 231 * place + 6 :][:, :218] for place in range(3)]
    assert (tiles[0] == COLOUR).all(), "the image itself comes first"
    marked = np.argwhere((pixels == CYAN).all(axis=2))
    assert np.allclose(marked.mean(axis=0), (top + 3.5 * 218 / 4, left + 0.5 * 218 / 4), atol=1.5)
    dog, runs = (tile[:, 60:].astype(int) for tile in tiles[1:])  # right of the number in the corner
    assert np.ptp(runs.reshape(-1, 3), axis=0).max() == 0, "a uniform map looks uniform"
    assert tiles[1][195:205, 5:15].sum(axis=2).mean() > runs.sum(axis=2).max() + 100, "the peak is bright"
    assert dog[:100].sum(axis=2).max() < runs.sum(axis=2).min(), "and the rest dark"


def test_maps_have_the_colours_of_matplotlib():
    levels = np.linspace(0, 1, 64, dtype=np.float32)[None] ** 3
    weights = levels / levels.sum()
    drawn = np.asarray(sheets._mixed(np.zeros((1, 64, 1), np.uint8), weights)) / 255
    assert np.abs(drawn - 0.6 * colormaps["inferno"](levels)[..., :3]).max() < 0.03


def test_small_pictures_keep_their_pixels_and_all_their_shape():
    half = np.concatenate([np.zeros((4, 4, 3)), np.ones((4, 4, 3))], axis=1).astype(np.float32)
    wide = np.asarray(scaled(half, 80))
    assert wide.shape == (40, 80, 3)
    assert set(np.unique(wide)) == {0, 255}
    assert wide[:, 39].max() == 0


def test_files_are_png_of_the_same_pixels():
    sheet = caption_sheet([np.random.default_rng(0).random((8, 8, 3), np.float32)], ["x"], ["y"])
    with Image.open(io.BytesIO(sheet.png())) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), np.asarray(sheet.image))
    assert sheet._repr_png_() == sheet.png(), "which a notebook shows"


@pytest.fixture
def no_fonts(monkeypatch):
    monkeypatch.setattr(sheets, "_FONT", "nowhere.ttf")
    sheets._font.cache_clear()
    yield
    sheets._font.cache_clear()


def test_an_installation_without_fonts_of_matplotlib_draws_all_the_same(no_fonts):
    assert (np.asarray(caption_sheet([IMAGE], ["a dog"], [""]).image)[380:] < 100).any()


def test_the_font_is_that_of_figures():
    assert isinstance(sheets._font(14), ImageFont.FreeTypeFont)
    assert sheets._font(14).getname()[0] == "DejaVu Sans"


def test_long_texts_are_cut():
    assert wrap_text("word " * 100, 20, 2).count("\n") == 1
    assert wrap_text("word " * 100, 20, 2).endswith("…")
