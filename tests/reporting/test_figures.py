"""Single figures: sheets of images, attention maps, codes."""

import numpy as np
import pytest
import torch

from callbacks.code_projection import principal_plane
from core.errors import UserError
from reporting.figures import attention_sheet, caption_sheet, code_sheet, wrap_text
from reporting.pictures import save_figure

IMAGE = np.full((16, 16, 3), 0.5, np.float32)


def test_captions_stand_below_and_references_above():
    figure = caption_sheet([IMAGE] * 5, ["a dog", "", "b", "c", "d"], ["one dog"] + [""] * 4)
    assert len(figure.axes) == 8
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_title()) == ("a dog", "one dog")
    assert figure.axes[1].get_xlabel() == "(empty)"


def test_the_peak_of_a_map_is_marked_and_a_uniform_one_has_none():
    peaked = np.zeros((4, 4), np.float32)
    peaked[3, 0] = 1
    figure = attention_sheet(
        IMAGE, ["dog", "runs"], [peaked, np.full((4, 4), 1 / 16, np.float32)], entropies=[0.0, 1.0]
    )
    (axis,) = figure.axes
    left, top = 17, 4  # of the second tile: 17 x 20 pixels each, the picture at its bottom
    marks = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axis.lines]
    assert marks == [(left + 1.5, top + 13.5)]
    assert [text.get_text() for text in axis.texts] == ["dog", "0.00", "runs", "1.00"]
    tiles = axis.images[0].get_array()
    assert np.allclose(tiles[top : top + 16, :16], IMAGE), "the image itself comes first"
    dog, runs = (tiles[top : top + 16, 17 * place : 17 * place + 16] for place in (1, 2))
    assert dog[15, 0].sum() > runs.max() + 0.5, "the peak is bright"
    assert np.ptp(runs.reshape(-1, 3), axis=0).max() < 1e-6, "a uniform map looks uniform"


def test_codes_are_coloured_by_class():
    points = np.eye(3, 2, dtype=np.float32)
    (axis,) = code_sheet(points, points, ["sea", "wood", "sea"]).axes
    assert [part.get_label() for part in axis.collections] == ["sentences", "sea", "wood"]


def test_plane_keeps_the_largest_variance():
    codes = torch.tensor([[0.0, 0, 5], [0, 1, -5], [0, -1, 0]])
    plane = principal_plane(codes)
    assert plane.shape == (3, 2)
    assert plane[:, 0].var() >= plane[:, 1].var()
    assert torch.allclose(plane.sum(dim=0), torch.zeros(2), atol=1e-5)


def test_file_names_are_safe_and_a_bad_folder_is_one_line(tmp_path):
    figure = caption_sheet([IMAGE], ["a"], [""])
    assert save_figure(figure, tmp_path, "a/b c.jpg").name == "a_b_c.jpg.png"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*; give another folder"):
        save_figure(figure, tmp_path / "file", "x")


def test_long_texts_are_cut():
    assert wrap_text("word " * 100, 20, 2).count("\n") == 1
    assert wrap_text("word " * 100, 20, 2).endswith("…")
