"""The Visual Genome detector as an image encoder.

Letters: B pictures, H x W pixels, R boxes, P proposals, D width of a box's features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms  # type: ignore[import-untyped]  # publishes no types

from networks.encoders.pictures import PictureEncoder
from networks.encoders.visual_genome.config import DetectorConfig
from networks.encoders.visual_genome.network import GenomeNetwork, moved_boxes


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The boxes of one picture, best first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the picture as the encoder read it, `(r, 4)`.
        features: `(r, D)`.
        objects: likeliest object of each, background not counted, `(r,)`, int64.
        scores: its probability, `(r,)`.
        proposals: what the boxes were chosen from, best first, `(P, 4)`.
    """

    boxes: Tensor
    features: Tensor
    objects: Tensor
    scores: Tensor
    proposals: Tensor


class GenomeEncoder(PictureEncoder):
    """The best boxes of the Faster R-CNN of Visual Genome, with the features that VisualBERT and LXMERT read.

    Bottom-up attention (Anderson et al. 2018) in the form of Tan and Bansal (2019): ResNet-101 up to res4, 300
    proposals, res5 on each of them, its mean as feature; one suppression over all objects.

    Args:
        config: settings of the detector.
        boxes: R; None: as the settings say.
    """

    def __init__(self, *, config: DetectorConfig | None = None, boxes: int | None = None) -> None:
        super().__init__()
        self.config = config or DetectorConfig()
        self.network = GenomeNetwork(self.config).to(memory_format=torch.channels_last)
        self.boxes = boxes or self.config.heads.boxes
        self.grid_dim = self.vector_dim = self.config.resnet.width
        self.sides = self.config.picture.shorter, self.config.picture.longer

    def located_pictures(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the best boxes, best first, `(B, R, D)`, zero where one is absent, their mask, and the boxes."""
        found = self.detect(pixels, sizes)
        features = found[0].features.new_zeros(len(found), self.boxes, self.grid_dim)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
        places = features.new_zeros(*mask.shape, 4)
        for place, (own, (height, width)) in enumerate(zip(found, sizes.tolist(), strict=True)):
            features[place, : len(own.features)] = own.features
            mask[place, : len(own.features)] = True
            places[place, : len(own.boxes)] = own.boxes / own.boxes.new_tensor([width, height, width, height])
        return features, mask, places

    def detect(self, pixels: Tensor, sizes: Tensor) -> list[Detections]:
        """The boxes of each picture; arguments as for `picture_regions`."""
        dtype = self.network.backbone.stem.conv1.weight.dtype
        found = []
        # one by one: 300 boxes of one picture keep a GPU busy, and no picture can disturb another
        for picture, (height, width) in zip(pixels, sizes.tolist(), strict=True):
            own = self._normalised(picture[:, :height, :width].to(dtype)).unsqueeze(0)
            features = self.network.backbone(own.contiguous(memory_format=torch.channels_last))
            (proposals,) = self.network.proposal_generator(features, (height, width))
            found.append(self._best(features, proposals, (height, width)))
        return found

    def _normalised(self, picture: Tensor) -> Tensor:
        """`(3, H, W)`, RGB, to the order and scale of the weights."""
        mean, std = (
            picture.new_tensor(values).view(3, 1, 1) for values in (self.config.picture.mean, self.config.picture.std)
        )
        return ((picture.flip(0) if self.config.picture.colours == "BGR" else picture) - mean) / std

    def _best(self, features: Tensor, proposals: Tensor, size: tuple[int, int]) -> Detections:
        """The best boxes among the proposals of one picture."""
        heads = self.network.roi_heads
        rows = heads(features, proposals)
        logits, offsets = heads.box_predictor(rows)
        scores, objects = logits.softmax(-1)[:, :-1].max(dim=1)  # the background is the last one
        own = offsets[torch.arange(len(rows), device=rows.device), objects if offsets.shape[1] > 1 else objects * 0]
        boxes = clip_boxes_to_image(moved_boxes(proposals, own, self.config.heads.scale), size)
        kept = torch.empty(0)
        for overlap in self.config.heads.overlaps:
            kept = nms(boxes.float(), scores.float(), overlap)[: self.boxes]
            if len(kept) >= min(self.boxes, self.config.heads.least_boxes):
                break
        return Detections(
            boxes=boxes[kept], features=rows[kept], objects=objects[kept], scores=scores[kept], proposals=proposals
        )
