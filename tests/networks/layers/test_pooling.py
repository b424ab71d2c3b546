"""Pooling: real regions alone count, and the covariance is the one that a textbook computes."""

import pytest
import torch

from core.errors import UserError
from networks.layers.pooling import CovariancePooling, RegionPooling, matrix_root


@pytest.fixture
def regions():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 9, 6, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 2.0, 0.1, 1.5]) + 2


def found(layer, *batches):
    layer.start_fit()
    for batch in batches:
        layer(batch)
    layer.finish_fit()
    return layer


def test_matrix_root_is_the_eigenvalues_root(regions):
    matrices = regions.transpose(1, 2) @ regions / 9 + 0.1 * torch.eye(6)
    values, vectors = torch.linalg.eigh(matrices)
    expected = vectors @ torch.diag_embed(values.sqrt()) @ vectors.transpose(1, 2)
    torch.testing.assert_close(matrix_root(matrices, 30), expected, atol=2e-2, rtol=0)


def test_covariance_is_that_of_the_regions_in_their_main_directions(regions):
    layer = found(CovariancePooling(feature_dim=6, directions=3, steps=30), regions)
    seen = (regions - layer.centre) @ layer.directions.t()
    seen = seen - seen.mean(1, keepdim=True)
    root = torch.zeros(5, 3, 3)
    rows, columns = torch.triu_indices(3, 3)
    values = layer(regions) / torch.where(rows == columns, 1.0, 2**0.5)
    root[:, rows, columns] = root[:, columns, rows] = values
    torch.testing.assert_close(root @ root, seen.transpose(1, 2) @ seen / 9, atol=2e-3, rtol=1e-3)


def test_directions_are_the_main_ones_of_all_that_was_seen(regions):
    layer = found(CovariancePooling(feature_dim=6, directions=4), regions[:2], regions[2:])
    rows = regions.reshape(-1, 6).double()
    torch.testing.assert_close(layer.centre, rows.mean(0).float())
    _, _, right = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    along = (layer.directions.double() @ right.t()).abs()
    torch.testing.assert_close(along[:, :4], torch.eye(4, dtype=torch.double), atol=1e-4, rtol=0)
    assert layer.fitted


def test_order_and_padding_of_regions_do_not_matter(regions):
    layer = found(CovariancePooling(feature_dim=6, directions=4), regions)
    whole = layer(regions)
    torch.testing.assert_close(layer(regions.flip(1)), whole)
    padded = torch.cat([regions, torch.full((5, 2, 6), torch.nan)], dim=1)
    mask = torch.arange(11).expand(5, 11) < 9
    torch.testing.assert_close(layer(padded, mask), whole)
    masked = CovariancePooling(feature_dim=6, directions=4)
    masked.start_fit()
    masked(padded, mask)
    masked.finish_fit()
    torch.testing.assert_close(masked.directions, layer.directions)


def test_a_picture_of_one_colour_has_finite_numbers_and_gradients():
    regions = torch.ones(2, 4, 6, requires_grad=True)
    pooled = RegionPooling(pooling="covariance", feature_dim=6)(regions)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert regions.grad is not None
    assert regions.grad.isfinite().all()


def test_half_precision_is_close(regions):
    pooling = RegionPooling(pooling="covariance", feature_dim=6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = pooling(regions.bfloat16())
    torch.testing.assert_close(low.float(), pooling(regions), atol=0.1, rtol=0.05)


def test_width_is_what_is_said(regions):
    pooling = RegionPooling(pooling="covariance", feature_dim=6)
    assert pooling(regions).shape == (5, pooling.out_features)


@pytest.mark.parametrize("kind", ["mean", "max", "mean_max", "attention", "covariance"])
def test_pooling_does_not_see_what_is_masked(kind):
    pooling = RegionPooling(pooling=kind, feature_dim=6)
    regions, mask = torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    changed = regions.clone()
    changed[1, 3:] = 100.0
    assert torch.equal(pooling(regions, mask), pooling(changed, mask))
    assert torch.allclose(pooling(regions, mask)[1], pooling(regions[1:, :3])[0], atol=1e-6)
    assert pooling(regions).shape == (2, pooling.out_features)


def test_pooling_by_hand():
    regions = torch.tensor([[[1.0, 4.0], [3.0, 0.0]]])
    assert RegionPooling(pooling="mean_max", feature_dim=2)(regions).tolist() == [[2.0, 2.0, 3.0, 4.0]]
    weights = RegionPooling(pooling="attention", feature_dim=2)
    torch.nn.init.zeros_(weights.score.weight)
    assert weights(regions).tolist() == [[2.0, 2.0]]


def test_unknown_kind_is_refused():
    with pytest.raises(UserError, match="pooling is 'median'"):
        RegionPooling(pooling="median", feature_dim=2)
