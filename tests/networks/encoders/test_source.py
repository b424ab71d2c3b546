"""Own encoder or stored features: one rule for masks, dtype and errors."""

import pytest
import torch

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.source import image_regions, images_of, mean_region

REGIONS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])
EXPECTED = {"feature_dim": 5, "dtype": torch.float32}


def test_the_encoder_computes_regions_without_a_mask():
    encoder = build_encoder("small-conv", None).eval()
    image = torch.randn(2, 3, 32, 32)
    regions, mask = image_regions({"image": image}, encoder, feature_dim=128, dtype=torch.float32)
    assert torch.equal(regions, encoder.grid(image))
    assert mask is None


def test_stored_features_come_before_the_encoder():
    encoder = build_encoder("small-conv", None).eval()
    batch = {"image": torch.randn(2, 3, 32, 32), "features": REGIONS}
    assert torch.equal(image_regions(batch, encoder, **EXPECTED)[0], REGIONS)


def test_stored_features_get_the_dtype_of_the_network():
    regions, mask = image_regions({"features": REGIONS.half()}, None, **EXPECTED)
    assert torch.equal(regions, REGIONS.half().float())
    assert mask is None


def test_masked_regions_are_zero_whatever_the_padding_holds():
    batch = {"features": REGIONS.masked_fill(~MASK.unsqueeze(2), torch.nan), "feature_mask": MASK}
    regions, mask = image_regions(batch, None, **EXPECTED)
    assert torch.equal(regions, REGIONS * MASK.unsqueeze(2))
    assert torch.equal(mask, MASK)
    torch.testing.assert_close(
        mean_region(batch, **EXPECTED), torch.stack([REGIONS[0, :2].mean(0), REGIONS[1].mean(0)])
    )


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"no features and the network no image encoder; set data\.init_args\.encoder"):
        image_regions({"image": torch.zeros(1, 3, 8, 8)}, None, **EXPECTED)
    with pytest.raises(UserError, match="neither images nor features"):
        images_of({"image_id": ["a"]})
    with pytest.raises(UserError, match="features have 7 channels and the network expects 5; set feature_dim"):
        image_regions({"features": torch.zeros(1, 4, 7)}, None, **EXPECTED)
    with pytest.raises(UserError, match="feature_mask hides every region"):
        image_regions({"features": REGIONS, "feature_mask": torch.zeros(2, 4, dtype=torch.bool)}, None, **EXPECTED)
