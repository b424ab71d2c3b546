"""Boxes that know where they are: the encoding, detectors by name, and files of regions."""

import base64
import math

import numpy as np
import pytest
import torch

from core.errors import DataError, UserError
from datamodules.stored_features.regions import open_regions
from networks.encoders.build import build_encoder, picture_shape
from networks.encoders.positions import WIDTH, box_positions
from tests.genome import BOXES, write_genome
from tests.genome import WIDTH as GENOME_WIDTH

NAME = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn@5"


def test_the_encoding_is_one_to_one_and_smooth():
    """Centre and size can be read from it; near boxes have near encodings, whatever the scale."""
    boxes = torch.rand(200, 2).sort(dim=0).values
    boxes = torch.cat([boxes, boxes + (1 - boxes) * torch.rand(200, 2)], dim=1)
    encoded = box_positions(boxes)
    assert encoded.shape == (200, WIDTH)
    assert encoded.abs().max() <= 1
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    for axis, numbers in enumerate((centre[:, 0], centre[:, 1], boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])):
        own = encoded.unflatten(1, (4, 2, WIDTH // 8))[:, axis]
        angle = torch.atan2(own[:, 0, 0], own[:, 1, 0])
        torch.testing.assert_close(angle, numbers * math.pi, rtol=1e-4, atol=1e-4)
    moved = box_positions((boxes + 0.001).clamp(0, 1))
    assert (moved - encoded).abs().max() < 0.03


def test_a_detector_of_square_images_says_where_its_boxes_are():
    torch.manual_seed(0)
    encoder = build_encoder(f"positions/{NAME}", None).eval().requires_grad_(False)
    image = torch.randn(2, 3, 64, 64)
    features, mask, boxes = encoder.located(image)
    plain, own, same = encoder.encoder.located(image)
    assert torch.equal(mask, own)
    assert torch.equal(boxes, same)
    assert features.shape == (2, 5, encoder.grid_dim)
    assert torch.equal(features[..., :-WIDTH], plain)
    assert torch.equal(features[..., -WIDTH:][mask], box_positions(boxes[mask]))
    assert (features[~mask] == 0).all()
    assert (boxes[mask][:, :2] <= boxes[mask][:, 2:]).all()
    assert 0 <= boxes.min() <= boxes.max() <= 1
    assert encoder.grid_shape(64) == (1, 5)
    assert encoder.vector(image).shape == (2, encoder.vector_dim)


def test_the_detector_of_visual_genome_says_where_its_boxes_are(tmp_path):
    write_genome(tmp_path)
    encoder = build_encoder("positions/frcnn-vg@4", str(tmp_path), whole_pictures=True)
    assert picture_shape("positions/frcnn-vg@4", str(tmp_path)) == (GENOME_WIDTH + WIDTH, 4)
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 255
    sizes = torch.tensor([[64, 96], [64, 80]])
    features, mask = encoder.picture_regions(pixels, sizes)
    found = encoder.encoder.detect(pixels, sizes)
    for place, (own, (height, width)) in enumerate(zip(found, sizes.tolist(), strict=True)):
        shares = own.boxes / torch.tensor([width, height, width, height])
        assert torch.allclose(features[place, mask[place], -WIDTH:], box_positions(shares), atol=1e-5)
    assert BOXES > 4
    with pytest.raises(UserError, match="reads whole pictures, frozen"):
        build_encoder("positions/frcnn-vg", str(tmp_path))


def test_a_grid_has_no_boxes():
    with pytest.raises(UserError, match=r"positions/small-conv: only detectors have boxes; .*the option positions"):
        build_encoder("positions/small-conv", None)


# files of regions

BOXED = np.array([[0, 0, 50, 100], [100, 50, 200, 100]], np.float32)


def line(columns, boxes=BOXED):
    features, places = (
        base64.b64encode(values.tobytes()).decode() for values in (np.ones((2, 3), np.float32), np.asarray(boxes))
    )
    sizes = ["200", "100"] if columns == 6 else ["100", "200", "o", "c", "a", "c"]
    return "\t".join(["7", *sizes, "2", places, features]) + "\n"


@pytest.mark.parametrize("columns", [6, 10])
def test_boxes_of_a_file_stand_behind_its_features(tmp_path, columns):
    (tmp_path / "regions.tsv").write_text(line(columns))
    plain = open_regions("regions.tsv", tmp_path, tmp_path / "cache")
    found = open_regions("positions/regions.tsv", tmp_path, tmp_path / "cache")
    assert found.shape() == (3 + WIDTH, (1, 2))
    shares = torch.tensor([[0, 0, 0.25, 1], [0.5, 0.5, 1, 1]])
    assert np.array_equal(found.read("7"), np.hstack([plain.read("7"), box_positions(shares).numpy()]))
    assert plain.variant != found.variant  # so that neither takes the other's store


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (BOXED + np.float32(120), "some are outside of 200 x 100 pixels"),
        (BOXED[:1], "cannot reshape array of size 4"),
        (BOXED * np.float32("nan"), "some are outside"),
    ],
)
def test_broken_boxes_are_named(tmp_path, boxes, said):
    (tmp_path / "regions.tsv").write_text(line(6, boxes))
    with pytest.raises(DataError, match=f"boxes are not base64 of 2 x 4 float32 .*{said}.*leave positions/ out"):
        open_regions("positions/regions.tsv", tmp_path, tmp_path / "cache").read("7")


def test_npz_files_have_no_boxes(tmp_path):
    (tmp_path / "boxes").mkdir()
    with pytest.raises(DataError, match=r"regions=positions/boxes: .npz files are read without their boxes"):
        open_regions("positions/boxes", tmp_path, tmp_path / "cache")
