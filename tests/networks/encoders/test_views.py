"""The mean feature map over the dihedral transforms of an image."""

import pytest
import torch

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.views import _ORDER
from networks.layers.dihedral import NUM_DIHEDRAL, dihedral, inverse_dihedral


def test_every_transform_counts_once():
    assert sorted(_ORDER) == list(range(NUM_DIHEDRAL))


def test_features_turn_with_the_image():
    encoder = build_encoder("eight-views/small-conv", None).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.feature_map(image)
        for index in range(NUM_DIHEDRAL):
            torch.testing.assert_close(
                encoder.feature_map(dihedral(image, index)), dihedral(features, index), rtol=1e-4, atol=1e-5
            )


def test_vector_is_that_of_the_mean_map():
    encoder = build_encoder("eight-views/torchvision/squeezenet1_0", None).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = [
            inverse_dihedral(encoder.encoder.feature_map(dihedral(image, index)), index)
            for index in range(NUM_DIHEDRAL)
        ]
        torch.testing.assert_close(encoder.vector(image), torch.stack(maps).mean(0).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_encoder_without_a_map_is_refused():
    encoder = build_encoder("eight-views/timm/vit_tiny_patch16_224", None)
    with pytest.raises(UserError, match="leave the prefix out"):
        encoder.grid(torch.zeros(1, 3, 224, 224))
