"""Synthetic scenes: what stands in an image, as plain data, made from (split, index, seed) alone.

A scene holds two or three groups. The objects of a group share shape, colour and size ("two small red circles"); no
two groups share a type, that is, a (colour, shape) pair. The image is divided into 3 x 3 cells, a cell holds at most
one object, and each group keeps to a row (or each to a column) of its own, two groups to opposite sides. Hence objects
neither overlap nor leave the image, and between any two groups at least one of "left of", "right of", "above",
"below" holds beyond doubt.

**Splits.** What stands together, the set of (count, size, colour, shape) of the groups, is the scene's combination:
"two small red circles with a large blue square". Each combination belongs to train, val or test for good, whatever the
seed. So every held-out scene shows a combination that no training scene shows, while every single type, size and count
is common in training: remembering scenes does not help, seeing and counting does.

Lengths are integers, `CANVAS` to the image's side, x to the right and y downwards.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import DataError, UserError
from datamodules.scenes.draws import Draws

Split = Literal["train", "val", "test"]
Kind = tuple[str, str]
"""Type of an object: (colour, shape)."""
Described = tuple[int, str, str, str]
"""A group as far as splits are concerned: (count, size, colour, shape)."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
KINDS: tuple[Kind, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
LABEL_NAMES: tuple[str, ...] = tuple(f"{colour} {shape}" for colour, shape in KINDS)
"""Names of the multi-labels, in the order of `scene_labels`."""

CANVAS = 256
"""Side of an image in scene units."""
CELL = 85
"""Side of a cell; 3 cells and one unit make the canvas."""
MAX_GROUP = 3
"""Most objects in a group: the cells of a row or column."""

_RADIUS = {"small": (21, 23), "large": (33, 36)}
# centres in the same row (column) of cells differ by at most twice this in y (x), those in neighbouring ones by at
# least CELL minus twice this: relations leave no doubt
_MAX_SLACK = 14
# least distance of an object from the border of its cell: touching squares could not be groups
_GAP = 3
_TRAIN_PERCENT, _VAL_PERCENT = 70, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One object.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        size: one of `SIZES`.
        x: centre, scene units from the left edge.
        y: centre, scene units from the upper edge.
        radius: half the side of the box around the object, scene units.
    """

    shape: str
    colour: str
    size: str
    x: int
    y: int
    radius: int

    @property
    def kind(self) -> Kind:
        """The object's (colour, shape)."""
        return self.colour, self.shape

    def box(self, image_size: int) -> tuple[float, float, float, float]:
        """Returns the box around the object as (left, top, right, bottom) in pixels of an image of that side."""
        scale = image_size / CANVAS
        x, y, r = self.x, self.y, self.radius
        return (x - r) * scale, (y - r) * scale, (x + r) * scale, (y + r) * scale


def _object_of_row(row: Sequence[Any]) -> SceneObject:
    shape, colour, size, x, y, radius = row
    return SceneObject(shape=shape, colour=colour, size=size, x=x, y=y, radius=radius)


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands in one image.

    Attributes:
        objects: the objects, those of a group one after the other.
        background: key of the image's background texture and noise.
    """

    objects: tuple[SceneObject, ...]
    background: int

    def to_json(self) -> str:
        """Returns the scene as one line of JSON; `from_json` gives it back."""
        rows = [[o.shape, o.colour, o.size, o.x, o.y, o.radius] for o in self.objects]
        return json.dumps({"objects": rows, "background": self.background}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Scene":
        """Reads what `to_json` wrote.

        Raises:
            DataError: the text does not describe a scene.
        """
        try:
            data = json.loads(text)
            scene = Scene(tuple(map(_object_of_row, data["objects"])), data["background"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"not a scene: {text[:60]!r} ({error}); expected what Scene.to_json writes") from error
        if not scene.objects:
            raise DataError(f"not a scene: {text[:60]!r} has no objects; expected what Scene.to_json writes")
        for item in scene.objects:
            if item.shape not in SHAPES or item.colour not in COLOURS or item.size not in SIZES:
                raise DataError(
                    f"not a scene: unknown object {item}; expected a shape of {SHAPES}, a colour of {COLOURS}"
                )
        return scene

    def digest(self) -> int:
        """Returns 64 bits that name the scene's content, the same in every process."""
        return int.from_bytes(hashlib.blake2b(self.to_json().encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Objects of one shape, colour and size.

    Attributes:
        shape: shape of all its objects.
        colour: colour of all its objects.
        size: size of all its objects.
        members: indices into the scene's objects.
    """

    shape: str
    colour: str
    size: str
    members: tuple[int, ...]


def groups_of(scene: Scene) -> list[Group]:
    """Collects the objects of a scene by shape, colour and size, in order of first appearance."""
    members: dict[tuple[str, str, str], list[int]] = {}
    for index, item in enumerate(scene.objects):
        members.setdefault((item.shape, item.colour, item.size), []).append(index)
    return [
        Group(shape=shape, colour=colour, size=size, members=tuple(indices))
        for (shape, colour, size), indices in members.items()
    ]


def split_of(combination: Iterable[Described]) -> Split:
    """Tells which split owns a combination; neither the order of its groups nor any seed matters.

    Args:
        combination: (count, size, colour, shape) of every group.

    >>> groups = [(2, "small", "red", "circle"), (1, "large", "blue", "square")]
    >>> split_of(groups) == split_of(groups[::-1])
    True
    """
    name = "+".join(sorted(f"{count} {size} {colour} {shape}" for count, size, colour, shape in combination))
    percent = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") % 100
    if percent < _TRAIN_PERCENT:
        return "train"
    return "val" if percent < _TRAIN_PERCENT + _VAL_PERCENT else "test"


def combination_of(scene: Scene) -> frozenset[Described]:
    """Returns what stands together in a scene."""
    return frozenset((len(group.members), group.size, group.colour, group.shape) for group in groups_of(scene))


def make_scene(split: Split, index: int, seed: int = 0, *, max_groups: int = 2, max_objects: int = 4) -> Scene:
    """Makes one scene. The result is a function of the arguments: no call order, process or platform matters.

    Args:
        split: "train", "val" or "test"; decides what may stand together.
        index: number of the scene within its split, from 0.
        seed: another seed gives other scenes of the same kind.
        max_groups: most groups in a scene, 2 or 3.
        max_objects: most objects in a scene, at least `max_groups`.

    Raises:
        UserError: an argument is out of range.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; expected one of {SPLITS}")
    if index < 0 or seed < 0:
        raise UserError(f"index {index} and seed {seed} must not be negative")
    if max_groups not in (2, 3) or max_objects < max_groups:
        raise UserError(f"max_groups {max_groups} must be 2 or 3 and max_objects {max_objects} at least as many")
    draws = Draws(seed, SPLITS.index(split), index)
    groups = _combination(draws, max_groups, max_objects)
    while split_of(groups) != split:
        groups = _combination(draws, max_groups, max_objects)
    in_rows = draws.below(2) == 1
    bands = draws.sample((0, 2) if len(groups) == 2 else (0, 1, 2), len(groups))
    objects = []
    for (count, size, colour, shape), band in zip(groups, bands, strict=True):
        for place in sorted(draws.sample(range(3), count)):
            column, row = (place, band) if in_rows else (band, place)
            objects.append(_place(draws, shape, colour, size, column, row))
    return Scene(tuple(objects), draws.word() >> 32)


def _combination(draws: Draws, max_groups: int, max_objects: int) -> list[Described]:
    """Draws groups of different types whose objects are not too many in all."""
    num_groups = draws.between(2, max_groups)
    kinds = draws.sample(KINDS, num_groups)
    counts = [draws.between(1, MAX_GROUP) for _ in kinds]
    while sum(counts) > max_objects:
        counts = [draws.between(1, MAX_GROUP) for _ in kinds]
    return [(count, draws.choose(SIZES), *kind) for count, kind in zip(counts, kinds, strict=True)]


def _place(draws: Draws, shape: str, colour: str, size: str, column: int, row: int) -> SceneObject:
    """Puts an object somewhere within its cell."""
    radius = draws.between(*_RADIUS[size])
    slack = min(CELL // 2 - radius - _GAP, _MAX_SLACK)
    x = CELL // 2 + 1 + column * CELL + draws.between(-slack, slack)
    y = CELL // 2 + 1 + row * CELL + draws.between(-slack, slack)
    return SceneObject(shape=shape, colour=colour, size=size, x=x, y=y, radius=radius)


def scene_labels(scene: Scene) -> tuple[float, ...]:
    """Returns 1.0 for every type present and 0.0 for the others, in the order of `LABEL_NAMES`."""
    present = {item.kind for item in scene.objects}
    return tuple(1.0 if kind in present else 0.0 for kind in KINDS)
