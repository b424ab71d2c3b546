"""The layers of the Visual Genome detector, named as in the published checkpoint.

Letters: B images, h x w cells of res4's map (16 pixels each), A anchors of a cell, P proposals, C objects, D width.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, roi_pool  # type: ignore[import-untyped]

from networks.encoders.visual_genome.config import BLOCKS, DetectorConfig, HeadConfig, ProposalConfig, ResNetConfig

STRIDE = 16
"""Pixels from one cell of res4's map to the next."""
_MOST_GROWTH = math.log(1000 / 16)
"""Most that an offset may enlarge a side: from 16 to 1,000 pixels (logarithm)."""
_BOXES_AT_ONCE = 100
"""Boxes that go through res5 together; a box has 2.4 MB there, in each of several layers."""


class ConvNorm(nn.Conv2d):
    """A convolution without bias and its BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, *, size: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        padding = dilation * (size // 2)
        super().__init__(inputs, outputs, size, stride, padding, dilation, groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """`(B, inputs, h, w)` to `(B, outputs, h / stride, w / stride)`."""
        return cast(Tensor, self.norm(super().forward(features)))


class Bottleneck(nn.Module):
    """A bottleneck block (He et al. 2016).

    Args:
        inputs: channels of its input.
        outputs: channels of its output; another number brings a shortcut with weights.
        hidden: channels between.
        stride: stride of the block.
        dilation: dilation of its 3 x 3 convolution.
        config: groups, and where the stride is.
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden: int, stride: int, dilation: int, config: ResNetConfig
    ) -> None:
        super().__init__()
        self.shortcut = ConvNorm(inputs, outputs, size=1, stride=stride) if inputs != outputs else nn.Identity()
        first, second = (stride, 1) if config.stride_in_first else (1, stride)
        self.conv1 = ConvNorm(inputs, hidden, size=1, stride=first)
        self.conv2 = ConvNorm(hidden, hidden, size=3, stride=second, dilation=dilation, groups=config.groups)
        self.conv3 = ConvNorm(hidden, outputs, size=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(B, inputs, h, w)` to `(B, outputs, h / stride, w / stride)`."""
        inner = F.relu_(self.conv2(F.relu_(self.conv1(features))))
        return F.relu_(self.conv3(inner).add_(self.shortcut(features)))


def make_stage(number: int, config: ResNetConfig, stride: int, dilation: int = 1) -> nn.Sequential:
    """The blocks of res2, res3, res4 or res5."""
    outputs, hidden = (size << (number - 2) for size in (config.res2_width, config.groups * config.group_width))
    inputs = config.stem_width if number == 2 else outputs // 2
    blocks = [
        Bottleneck(
            outputs if place else inputs,
            outputs,
            hidden=hidden,
            stride=1 if place else stride,
            dilation=dilation,
            config=config,
        )
        for place in range(BLOCKS[config.depth][number - 2])
    ]
    return nn.Sequential(*blocks)


class Stem(nn.Module):
    """The first convolution and max pooling: to a quarter of the pixels."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, config.stem_width, size=7, stride=2)
        self.caffe_pool = config.caffe_pool

    def forward(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, stem_width, H / 4, W / 4)`."""
        features = F.relu_(self.conv1(image))
        if self.caffe_pool:
            return F.max_pool2d(features, 3, 2, padding=0, ceil_mode=True)
        return F.max_pool2d(features, 3, 2, padding=1)


class Backbone(nn.Module):
    """ResNet up to res4."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.res2, self.res3, self.res4 = (make_stage(n, config, stride=1 if n == 2 else 2) for n in (2, 3, 4))

    def forward(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, D / 2, h, w)`."""
        return cast(Tensor, self.res4(self.res3(self.res2(self.stem(image)))))


class AnchorGenerator(nn.Module):
    """Anchors of every cell; those of the first cell are part of the checkpoint."""

    def __init__(self, config: ProposalConfig) -> None:
        super().__init__()
        rows = []
        for size in config.anchor_sizes:
            for ratio in config.anchor_ratios:
                width = math.sqrt(size * size / ratio)
                rows.append([-width / 2, -ratio * width / 2, width / 2, ratio * width / 2])
        self.cell_anchors = nn.ParameterList([nn.Parameter(torch.tensor(rows), requires_grad=False)])
        self.offset = config.anchor_offset

    def forward(self, height: int, width: int) -> Tensor:
        """Anchors of a map, cell by cell, row by row: `(h * w * A, 4)`."""
        anchors: Tensor = self.cell_anchors[0]
        down, across = (
            (torch.arange(cells, device=anchors.device, dtype=anchors.dtype) + self.offset) * STRIDE
            for cells in (height, width)
        )
        y, x = torch.meshgrid(down, across, indexing="ij")
        return (torch.stack([x, y, x, y], dim=-1).unsqueeze(2) + anchors).view(-1, 4)


class ProposalHead(nn.Module):
    """Objectness and offsets of the anchors."""

    def __init__(self, config: ProposalConfig, inputs: int) -> None:
        super().__init__()
        hidden = inputs if config.hidden_width == -1 else config.hidden_width
        anchors = len(config.anchor_sizes) * len(config.anchor_ratios)
        self.conv = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.objectness_logits = nn.Conv2d(hidden, anchors, 1)
        self.anchor_deltas = nn.Conv2d(hidden, 4 * anchors, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, D / 2, h, w)` to `(B, h * w * A)` and `(B, h * w * A, 4)`."""
        inner = F.relu_(self.conv(features))
        logits = self.objectness_logits(inner).permute(0, 2, 3, 1).flatten(1)
        offsets = self.anchor_deltas(inner).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return logits, offsets


class ProposalGenerator(nn.Module):
    """Where there could be objects."""

    def __init__(self, config: ProposalConfig, inputs: int) -> None:
        super().__init__()
        self.config = config
        self.anchor_generator = AnchorGenerator(config)
        self.rpn_head = ProposalHead(config, inputs)

    def forward(self, features: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The best proposals of each image, best first.

        Args:
            features: `(B, D / 2, h, w)`.
            size: height and width of the images, pixels.

        Returns:
            Boxes `(P, 4)` of each image, at least one: the whole image where nothing is proposed.
        """
        config = self.config
        anchors = self.anchor_generator(*features.shape[-2:])
        found = []
        for logits, offsets in zip(*self.rpn_head(features), strict=True):
            scores, order = logits.sort(descending=True)
            scores, order = scores[: config.before], order[: config.before]
            boxes = moved_boxes(anchors[order], offsets[order], config.scale)
            boxes = clip_boxes_to_image(boxes, size)
            sides = boxes[:, 2:] - boxes[:, :2]
            real = (sides > config.least_side).all(dim=1)
            boxes, scores = boxes[real], scores[real]
            boxes = boxes[nms(boxes.float(), scores.float(), config.overlap)[: config.after]]
            found.append(boxes if len(boxes) else boxes.new_tensor([[0, 0, size[1], size[0]]]))
        return found


class BoxPredictor(nn.Module):
    """Objects, offsets and attributes of boxes from their features."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        classes = config.classes
        self.cls_score = nn.Linear(width, classes + 1)  # the last one is the background
        self.bbox_pred = nn.Linear(width, 4 * (1 if config.shared_offsets else classes))
        if config.has_attributes:
            self.cls_embedding = nn.Embedding(classes + 1, width // 8)
            self.fc_attr = nn.Linear(width + width // 8, width // 4)
            self.attr_score = nn.Linear(width // 4, config.attributes + 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`(P, D)` to logits `(P, C + 1)` and offsets `(P, C or 1, 4)`."""
        return self.cls_score(features), self.bbox_pred(features).unflatten(1, (-1, 4))

    def attributes(self, features: Tensor) -> Tensor:
        """Probability of every attribute, given the likeliest object: `(P, D)` to `(P, attributes)`."""
        words = self.cls_embedding(self.cls_score(features).argmax(-1))
        hidden = F.relu(self.fc_attr(torch.cat([features, words], dim=-1)))
        return cast(Tensor, self.attr_score(hidden)[:, :-1].softmax(-1))


class RoiHeads(nn.Module):
    """Features of boxes: res5 on what is pooled from res4's map."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.pool_size = config.heads.pool_size
        stride, dilation = (2, 1) if config.heads.res5_halves else (1, 2)
        self.res5 = make_stage(5, config.resnet, stride, dilation)
        self.box_predictor = BoxPredictor(config.heads, config.resnet.width)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Mean of res5 over each box: map `(1, D / 2, h, w)` and boxes `(P, 4)` to `(P, D)`."""
        parts = []
        for part in torch.split(boxes, _BOXES_AT_ONCE):
            pooled = roi_pool(features, [part.to(features.dtype)], self.pool_size, 1 / STRIDE)
            pooled = pooled.contiguous(memory_format=torch.channels_last)
            parts.append(self.res5(pooled).mean(dim=(2, 3)))
        return torch.cat(parts)


class GenomeNetwork(nn.Module):
    """The whole detector.

    Args:
        config: its settings.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config.resnet)
        self.proposal_generator = ProposalGenerator(config.proposals, config.resnet.width // 2)
        self.roi_heads = RoiHeads(config)


def moved_boxes(boxes: Tensor, offsets: Tensor, scale: tuple[float, ...]) -> Tensor:
    """Moves and resizes boxes by what a network says.

    Args:
        boxes: left, top, right, bottom, `(..., 4)`.
        offsets: offsets of the centre, in widths and heights, and logarithms of the growth, `(..., 4)`.
        scale: what the offsets are divided by.
    """
    x, y, growth_x, growth_y = (offsets / offsets.new_tensor(scale)).unbind(-1)
    left, top, right, bottom = boxes.unbind(-1)
    width, height = right - left, bottom - top
    middle_x, middle_y = x * width + left + width / 2, y * height + top + height / 2
    half_x = width * growth_x.clamp(max=_MOST_GROWTH).exp() / 2
    half_y = height * growth_y.clamp(max=_MOST_GROWTH).exp() / 2
    return torch.stack([middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y], dim=-1)
