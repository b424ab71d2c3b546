"""Distances between codes."""

import pytest
import torch

from core.errors import UserError
from networks.losses.distillation import code_distance


def test_distances_by_hand():
    image, text = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    assert code_distance(image, text, "mse", False).item() == pytest.approx((4 + 16) / 2)
    assert code_distance(image, text, "mse", True).item() == pytest.approx(2 - 2 * 0.6)
    assert code_distance(image, text, "cosine", False).item() == pytest.approx(1 - 0.6)
    p, q = text[0].softmax(0), image[0].softmax(0)
    assert code_distance(image, text, "kl", False).item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    assert code_distance(text, text, "kl", True).item() == pytest.approx(0, abs=1e-6)
    # with lengths set to one, only directions count
    for kind in ("mse", "cosine", "kl"):
        ours, theirs = (code_distance(scale * image, text, kind, True).item() for scale in (1.0, 7.0))
        assert ours == pytest.approx(theirs, rel=1e-5)
    with pytest.raises(UserError, match="expected mse, cosine or kl"):
        code_distance(image, text, "dot", True)
