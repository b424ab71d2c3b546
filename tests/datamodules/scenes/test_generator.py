"""Laws of the scenes: deterministic, legible, and held-out combinations."""

import hashlib
import json
from itertools import combinations

import pytest

from core.errors import DataError, UserError
from datamodules.scenes.generator import (
    CANVAS,
    KINDS,
    LABEL_NAMES,
    SPLITS,
    Scene,
    combination_of,
    groups_of,
    make_scene,
    scene_labels,
    split_of,
)
from datamodules.scenes.relations import OPPOSITE, RELATIONS, relation_holds

SCENES = {split: [make_scene(split, index, 3, max_groups=3, max_objects=5) for index in range(400)] for split in SPLITS}
EVERY = [scene for scenes in SCENES.values() for scene in scenes]


def test_a_scene_depends_on_its_arguments_alone():
    backwards = [make_scene("test", index, 3, max_groups=3, max_objects=5) for index in reversed(range(50))]
    assert backwards[::-1] == SCENES["test"][:50]
    assert make_scene("test", 0, 4) != make_scene("test", 0, 3) != make_scene("train", 0, 3)


@pytest.mark.parametrize("seeds", [(3, 3), (0, 1)])
def test_held_out_combinations_never_occur_in_training(seeds):
    seen = {combination_of(make_scene("train", index, seeds[0])) for index in range(2000)}
    for split in ("val", "test"):
        held_out = {combination_of(make_scene(split, index, seeds[1])) for index in range(400)}
        assert len(held_out) > 150
        assert not held_out & seen


def test_combinations_are_shared_out_for_good():
    for split in SPLITS:
        assert all(split_of(combination_of(scene)) == split for scene in SCENES[split])
    pairs = [[(2, "small", *one), (1, "large", *other)] for one, other in combinations(KINDS, 2)]
    assert all(split_of(pair) == split_of(pair[::-1]) for pair in pairs)
    shares = [sum(split_of(pair) == split for pair in pairs) / len(pairs) for split in SPLITS]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.05)


def test_every_type_size_and_count_occurs_in_training():
    groups = [group for scene in SCENES["train"] for group in groups_of(scene)]
    assert {(group.colour, group.shape) for group in groups} == set(KINDS)
    assert {group.size for group in groups} == {"small", "large"}
    assert {len(group.members) for group in groups} == {1, 2, 3}


def test_objects_keep_apart_and_inside():
    for scene in EVERY:
        boxes = [item.box(CANVAS) for item in scene.objects]
        assert all(min(box) > 0 and max(box) < CANVAS for box in boxes)
        for a, b in combinations(boxes, 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_two_groups_always_stand_in_a_clear_relation():
    for scene in EVERY:
        for one, other in combinations(groups_of(scene), 2):
            found = {name for name in RELATIONS if relation_holds(scene, one.members, name, other.members)}
            assert found
            assert not any(relation_holds(scene, one.members, OPPOSITE[name], other.members) for name in found)
            assert all(relation_holds(scene, other.members, OPPOSITE[name], one.members) for name in found)


def test_limits_are_kept():
    scenes = [make_scene("train", index, max_groups=2, max_objects=3) for index in range(100)]
    assert {len(groups_of(scene)) for scene in scenes} == {2}
    assert max(len(scene.objects) for scene in scenes) == 3
    assert {len(groups_of(scene)) for scene in EVERY} == {2, 3}


def test_json_round_trip():
    for scene in EVERY[:50]:
        text = scene.to_json()
        assert Scene.from_json(text) == scene
        assert "\n" not in text
        assert json.loads(text)["background"] == scene.background


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"objects": []}',
        '{"objects": [[1]], "background": 0}',
        '{"objects": [["star", "red", "small", 1, 2, 3]], "background": 0}',
        '{"objects": [], "background": 0}',
    ],
)
def test_what_is_no_scene_is_refused_by_name(text):
    with pytest.raises(DataError, match="not a scene"):
        Scene.from_json(text)


def test_labels_name_the_types_present():
    for scene in EVERY[:50]:
        on = {LABEL_NAMES[index] for index, value in enumerate(scene_labels(scene)) if value}
        assert on == {f"{item.colour} {item.shape}" for item in scene.objects}


@pytest.mark.parametrize(
    "arguments",
    [("dev", 0, 0, {}), ("train", -1, 0, {}), ("train", 0, 0, {"max_groups": 4}), ("val", 0, 0, {"max_objects": 1})],
)
def test_bad_arguments_are_refused(arguments):
    split, index, seed, more = arguments
    with pytest.raises(UserError):
        make_scene(split, index, seed, **more)


def test_scenes_stay_the_same_across_versions():
    """Published figures were measured on these scenes: a change here is a change of the data set."""
    text = "".join(make_scene(split, index).to_json() for split in SPLITS for index in range(20))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2a7b443ea26b747a"
