"""The mean over the views of a picture."""

import pytest
import torch

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.views import VIEWS, turned, turned_back


def test_turning_back_undoes_turning():
    image = torch.randn(2, 3, 5, 7)
    views = {tuple(turned(image, view).flatten().tolist()) for view in VIEWS}
    assert len(views) == 8
    for view in VIEWS:
        assert torch.equal(turned_back(turned(image, view), view), image)


def test_features_turn_with_the_picture():
    encoder = build_encoder("eight-views/small-conv", None).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.feature_map(image)
        for view in VIEWS:
            torch.testing.assert_close(
                encoder.feature_map(turned(image, view)), turned(features, view), rtol=1e-4, atol=1e-5
            )


def test_vector_is_that_of_the_mean_map():
    encoder = build_encoder("eight-views/torchvision/squeezenet1_0", None).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = [turned_back(encoder.encoder.feature_map(turned(image, view)), view) for view in VIEWS]
        torch.testing.assert_close(encoder.vector(image), torch.stack(maps).mean(0).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_tower_without_a_map_is_refused():
    encoder = build_encoder("eight-views/timm/vit_tiny_patch16_224", None)
    with pytest.raises(UserError, match="leave the prefix out"):
        encoder.grid(torch.zeros(1, 3, 224, 224))
