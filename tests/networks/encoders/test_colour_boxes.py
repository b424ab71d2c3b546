"""The detector of synthetic scenes finds every object, and says its colour, shape and place."""

import pytest
import torch
from torchvision.ops import box_iou

from core.errors import UserError
from datamodules.scenes.generator import CANVAS, COLOURS, SHAPES, make_scene
from datamodules.scenes.render import render_array
from networks.encoders.build import build_encoder, picture_shape
from networks.encoders.colour_boxes import WIDTH, components
from networks.encoders.positions import WIDTH as PLACES


def scene(number, split="val"):
    made = make_scene(split, number, 0, max_groups=2, max_objects=4)
    return made, torch.from_numpy(render_array(made)).permute(2, 0, 1).float()


def test_every_object_is_one_box():
    """Of 24 scenes: as many boxes as objects, each where an object of that colour is."""
    encoder = build_encoder("colour-boxes", None, whole_pictures=True)
    for number in range(24):
        made, pixels = scene(number)
        features, mask, boxes = (found[0] for found in encoder.located(pixels.unsqueeze(0)))
        assert mask.sum() == len(made.objects), number
        true = torch.tensor([[o.x - o.radius, o.y - o.radius, o.x + o.radius, o.y + o.radius] for o in made.objects])
        overlap, which = box_iou(boxes[mask], true / CANVAS).max(dim=1)
        assert len(set(which.tolist())) == len(which)
        assert overlap.min() > 0.6, number
        colours = [COLOURS[int(row[: len(COLOURS)].argmax())] for row in features[mask]]
        assert colours == [made.objects[place].colour for place in which.tolist()]
        assert (features[~mask] == 0).all()


def test_shapes_can_be_told_apart():
    """The nearest mean of each shape is the right one for most boxes."""
    encoder = build_encoder("colour-boxes", None, whole_pictures=True)
    rows, names = [], []
    for number in range(24):
        made, pixels = scene(number)
        features, mask, boxes = (found[0] for found in encoder.located(pixels.unsqueeze(0)))
        true = torch.tensor([[o.x - o.radius, o.y - o.radius, o.x + o.radius, o.y + o.radius] for o in made.objects])
        which = box_iou(boxes[mask], true / CANVAS).argmax(dim=1).tolist()
        rows.append(features[mask][:, len(COLOURS) :])
        names += [SHAPES.index(made.objects[place].shape) for place in which]
    table, label = torch.cat(rows), torch.tensor(names)
    means = torch.stack([table[label == number].mean(0) for number in range(len(SHAPES))])
    assert (torch.cdist(table, means).argmin(1) == label).float().mean() > 0.9


def test_areas_do_not_reach_over_the_edge_and_small_ones_are_none():
    picture = torch.full((3, 20, 30), 90.0)
    picture[0, 5:10, :4] = picture[0, 5:10, -4:] = 220  # red, at both edges
    picture[2, :2, 10:12] = 220
    found = components(picture)
    assert [(colour, int(area.sum())) for colour, area in found] == [(0, 20), (0, 20)]


def test_a_picture_without_areas_is_one_box():
    encoder = build_encoder("positions/colour-boxes@2", None, whole_pictures=True)
    assert picture_shape("positions/colour-boxes@2", None) == (WIDTH + PLACES, 2)
    assert (encoder.boxes, encoder.grid_dim, encoder.grid_shape(64)) == (2, WIDTH + PLACES, (1, 2))
    grey = torch.full((2, 3, 64, 64), 100.0)
    grey[1] = scene(0)[1]
    features, mask = encoder.picture_regions(grey, torch.tensor([[64, 64], [64, 64]]))
    assert mask.tolist()[0] == [True, False]
    assert features[0, 0, :WIDTH].abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("colour-boxes@0", None, "colour-boxes@N for N boxes, 1 to 100"),
        ("colour-boxes", "file.pt", "colour-boxes has none; set encoder_weights to null"),
    ],
)
def test_what_is_wrong_is_named(name, weights, message):
    with pytest.raises(UserError, match=message):
        build_encoder(name, weights, whole_pictures=True)
    with pytest.raises(UserError, match="reads whole pictures, frozen"):
        build_encoder("colour-boxes", None)
