"""Laws of the pictures."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from datamodules.scenes.generator import COLOURS, SHAPES, Scene, SceneObject, make_scene
from datamodules.scenes.render import render, render_array


def _alone(shape, colour, size="large", radius=34):
    return Scene((SceneObject(shape=shape, colour=colour, size=size, x=128, y=128, radius=radius),), 5)


def test_a_picture_depends_on_the_scene_alone():
    scenes = [make_scene("train", index) for index in range(10)]
    first = [render_array(scene) for scene in scenes]
    again = [render_array(Scene.from_json(scene.to_json())) for scene in reversed(scenes)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_kind_of_the_result():
    picture = render(make_scene("val", 0), 96)
    assert isinstance(picture, Image.Image)
    assert (picture.mode, picture.size) == ("RGB", (96, 96))
    with pytest.raises(UserError, match="at least 64"):
        render_array(make_scene("val", 0), 32)


@pytest.mark.parametrize("size", [64, 100, 224])
def test_objects_change_the_picture_inside_their_boxes_only(size):
    for index in range(5):
        scene = make_scene("test", index)
        inside = np.zeros((size, size), bool)
        for item in scene.objects:
            left, top, right, bottom = item.box(size)
            inside[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
        # flat regions differ by light and noise only; an object's colour stands out from its surroundings
        moved = Scene(scene.objects[::-1], scene.background)
        difference = np.abs(render_array(scene, size).astype(int) - render_array(moved, size)).max(axis=2)
        assert difference[~inside].max() <= 16
        picture = render_array(scene, size).astype(int)
        spread = picture.max(axis=2) - picture.min(axis=2)
        for item in scene.objects:
            x, y = item.x * size // 256, item.y * size // 256
            vivid = picture[y, x].min() > 180 if item.colour == "white" else spread[y, x] > 80
            assert vivid, (index, item)


def test_colours_and_shapes_can_be_told_apart():
    centres = {colour: render_array(_alone("square", colour))[28:36, 28:36].mean(axis=(0, 1)) for colour in COLOURS}
    gaps = [np.abs(centres[a] - centres[b]).max() for a in COLOURS for b in COLOURS if a < b]
    assert min(gaps) > 60
    for radius in (21, 36):
        masks = {shape: render_array(_alone(shape, "white", radius=radius)).min(axis=2) > 150 for shape in SHAPES}
        union = {(a, b): (masks[a] | masks[b]).sum() for a in SHAPES for b in SHAPES if a < b}
        assert all((masks[a] ^ masks[b]).sum() > 0.11 * area for (a, b), area in union.items())


def test_edges_are_smooth():
    red = render_array(_alone("circle", "white"))[32, :, 0].astype(int)
    edge = np.flatnonzero(np.abs(np.diff(red)) > 25)
    assert len(edge) >= 2
    assert ((red > 120) & (red < 225)).any()


def test_background_is_textured_and_noisy():
    picture = render_array(make_scene("train", 1)).astype(int)
    corner = picture[:, :, 1]
    assert corner.std() > 5
    assert np.abs(np.diff(corner, axis=1)).mean() > 2


def test_pictures_stay_the_same_across_platforms():
    pixels = b"".join(render_array(make_scene("test", index)).tobytes() for index in range(5))
    assert hashlib.sha256(pixels).hexdigest()[:16] == "12f38eab8a717183"
