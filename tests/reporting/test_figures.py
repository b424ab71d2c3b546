"""Single figures, and the files that they go to."""

import numpy as np
import pytest
import torch

from callbacks.code_projection import principal_plane
from core.errors import UserError
from reporting.drawing import TextFigure
from reporting.figures import code_sheet
from reporting.pictures import save_figure


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
    figure = TextFigure(figsize=(0.1, 0.1))
    assert save_figure(figure, tmp_path, "a/b c.jpg").name == "a_b_c.jpg.png"
    assert save_figure(b"drawn", tmp_path, "drawn").read_bytes() == b"drawn"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*; give another folder"):
        save_figure(figure, tmp_path / "file", "x")
