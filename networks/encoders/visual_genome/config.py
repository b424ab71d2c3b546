"""Settings of the Visual Genome detector, as the ``config.yaml`` beside its weights has them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.safe_yaml import read_yaml

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottleneck blocks of res2 to res5 by depth (He et al. 2016)."""
_LARGEST = 65_536
"""Sizes above this are no detector's; a file must not be able to ask for any amount of memory."""

_POSITIVE = (
    *("stem_width", "res2_width", "groups", "group_width", "anchor_sizes", "anchor_ratios", "before", "after"),
    *("classes", "attributes", "pool_size", "scale", "overlaps", "boxes", "shorter", "longer", "std"),
)
_CHOICES: dict[str, tuple[object, ...]] = {"depth": tuple(BLOCKS), "norm": ("BN",), "colours": ("BGR", "RGB")}
_COUNTS = {"mean": 3, "std": 3, "scale": 4}


def _key(name: str, default: Any) -> Any:
    """A setting with the published value as default and its place in the file, sections separated by dots."""
    return field(default=default, metadata={"key": name})


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The backbone and res5.

    Attributes:
        depth: depth of the ResNet.
        stem_width: channels of the stem.
        res2_width: channels of res2; each stage has twice as many as the one before.
        groups: groups of the 3 x 3 convolutions.
        group_width: their channels per group in res2.
        stride_in_first: the first 1 x 1 convolution of a stage halves the map, not the 3 x 3 one.
        caffe_pool: max pooling without padding, rounded up.
        norm: normalisation; only BatchNorm, "BN".
    """

    depth: int = _key("RESNETS.DEPTH", 101)
    stem_width: int = _key("RESNETS.STEM_OUT_CHANNELS", 64)
    res2_width: int = _key("RESNETS.RES2_OUT_CHANNELS", 256)
    groups: int = _key("RESNETS.NUM_GROUPS", 1)
    group_width: int = _key("RESNETS.WIDTH_PER_GROUP", 64)
    stride_in_first: bool = _key("RESNETS.STRIDE_IN_1X1", True)
    caffe_pool: bool = _key("MODEL.MAX_POOL", True)
    norm: str = _key("RESNETS.NORM", "BN")

    @property
    def width(self) -> int:
        """Channels of res5, the width of a box's features."""
        return 8 * self.res2_width


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """The proposal network.

    Attributes:
        anchor_sizes: square roots of the anchors' areas, pixels.
        anchor_ratios: height over width.
        anchor_offset: offset of the first anchor, as a share of the stride.
        hidden_width: width of the proposal network; -1: that of res4.
        least_side: proposals with a side of at most this many pixels are dropped.
        scale: what the proposal network's offsets are divided by.
        overlap: suppression among proposals.
        before: best ones before the suppression.
        after: best ones after it.
    """

    anchor_sizes: tuple[float, ...] = _key("ANCHOR_GENERATOR.SIZES", (64.0, 128.0, 256.0, 512.0))
    anchor_ratios: tuple[float, ...] = _key("ANCHOR_GENERATOR.ASPECT_RATIOS", (0.5, 1.0, 2.0))
    anchor_offset: float = _key("ANCHOR_GENERATOR.OFFSET", 0.0)
    hidden_width: int = _key("PROPOSAL_GENERATOR.HIDDEN_CHANNELS", 512)
    least_side: float = _key("PROPOSAL_GENERATOR.MIN_SIZE", 0.0)
    scale: tuple[float, ...] = _key("RPN.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0))
    overlap: float = _key("RPN.NMS_THRESH", 0.7)
    before: int = _key("RPN.PRE_NMS_TOPK_TEST", 6000)
    after: int = _key("RPN.POST_NMS_TOPK_TEST", 300)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The heads, and which boxes are kept.

    Attributes:
        classes: objects, background not counted.
        attributes: kinds of attributes, "none" not counted.
        has_attributes: whether there is a head for them.
        pool_size: rows and columns of a pooled box.
        scale: what the offsets of boxes are divided by.
        shared_offsets: one offset for all classes.
        res5_halves: res5 halves the pooled box; else its 3 x 3 convolutions are dilated by 2.
        overlaps: suppression of boxes over all classes; the first threshold that leaves `least_boxes`.
        least_boxes: boxes that a threshold has to leave.
        boxes: most boxes kept.
    """

    classes: int = _key("ROI_HEADS.NUM_CLASSES", 1600)
    attributes: int = _key("ROI_BOX_HEAD.NUM_ATTRS", 400)
    has_attributes: bool = _key("ROI_BOX_HEAD.ATTR", True)
    pool_size: int = _key("ROI_BOX_HEAD.POOLER_RESOLUTION", 14)
    scale: tuple[float, ...] = _key("ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0))
    shared_offsets: bool = _key("ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False)
    res5_halves: bool = _key("ROI_BOX_HEAD.RES5HALVE", False)
    overlaps: tuple[float, ...] = _key("ROI_HEADS.NMS_THRESH_TEST", (0.6,))
    least_boxes: int = _key("MIN_DETECTIONS", 36)
    boxes: int = _key("MAX_DETECTIONS", 36)


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How pictures are prepared.

    Attributes:
        shorter: pixels of the picture's shorter side.
        longer: most pixels of its longer side.
        colours: order of the channels.
        mean: of each channel, 0 to 255, in that order.
        std: what channels are divided by.
    """

    shorter: int = _key("INPUT.MIN_SIZE_TEST", 800)
    longer: int = _key("INPUT.MAX_SIZE_TEST", 1333)
    colours: str = _key("INPUT.FORMAT", "BGR")
    mean: tuple[float, ...] = _key("MODEL.PIXEL_MEAN", (102.9801, 115.9465, 122.7717))
    std: tuple[float, ...] = _key("MODEL.PIXEL_STD", (1.0, 1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of the detector; the defaults are those of the published one.

    Attributes:
        resnet: the backbone and res5.
        proposals: the proposal network.
        heads: the heads, and which boxes are kept.
        picture: how pictures are prepared.
    """

    resnet: ResNetConfig = ResNetConfig()
    proposals: ProposalConfig = ProposalConfig()
    heads: HeadConfig = HeadConfig()
    picture: PictureConfig = PictureConfig()


def read_config(path: Path) -> DetectorConfig:
    """Reads a ``config.yaml``; what it does not say is as published, what it says besides is ignored.

    Raises:
        UserError: it cannot be read, or a value cannot be a detector's.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected the settings of a detector (sections RESNETS, RPN, ...)")
    parts: dict[str, Any] = {}
    for name, part in vars(DetectorConfig()).items():
        values: dict[str, Any] = {}
        for item in dataclasses.fields(part):
            key = item.metadata["key"]
            value = _found(content, key.split("."))
            if value is not None:
                values[item.name] = _checked(value, item.default, f"{path}, {key}")
        parts[name] = type(part)(**values)
        _check(parts[name], path)
    return DetectorConfig(**parts)


def _found(content: Any, parts: list[str]) -> Any:
    """The value at a place of nested mappings; None where there is none."""
    for part in parts:
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _checked(value: Any, default: Any, where: str) -> Any:
    """A value of the same type as the default.

    Raises:
        UserError: it has another type, or is too large.
    """
    if isinstance(default, tuple):
        rows = value if isinstance(value, list) else [value]
        if len(rows) == 1 and isinstance(rows[0], list):  # one list for each map; C4 has one map
            rows = rows[0]
        return tuple(float(_checked(item, 0.0, where)) for item in rows)
    kind: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, kind) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise UserError(f"{where}: {value!r}: expected a value like {default!r}")
    if isinstance(value, (int, float)) and not abs(value) <= _LARGEST:  # NaN as well
        raise UserError(f"{where}: {value!r}: expected at most {_LARGEST}")
    return value


def _check(part: Any, path: Path) -> None:
    """Refuses settings that no detector of this kind has.

    Raises:
        UserError: one of them.
    """
    for item in dataclasses.fields(part):
        value, where = getattr(part, item.name), f"{path}, {item.metadata['key']}"
        if (allowed := _CHOICES.get(item.name)) and value not in allowed:
            raise UserError(f"{where}: {value!r}: expected one of {', '.join(map(str, allowed))}")
        if (count := _COUNTS.get(item.name)) and len(value) != count:
            raise UserError(f"{where}: {len(value)} numbers: expected {count}")
        numbers = value if isinstance(value, tuple) else (value,)
        if item.name in _POSITIVE and not (numbers and all(number > 0 for number in numbers)):
            raise UserError(f"{where}: expected a number above 0")
        if item.name == "hidden_width" and value < 1 and value != -1:
            raise UserError(f"{where}: expected a number above 0, or -1")
