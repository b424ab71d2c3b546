"""Box features of a detector as image regions: objects instead of the cells of a grid.

Letters: B images, H x W pixels, R boxes, C width of a box's features, P proposals of an image.
"""

from pathlib import Path
from typing import Any, cast

import torch
import torchvision  # type: ignore[import-untyped]  # publishes no types
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.ops import boxes as box_ops  # type: ignore[import-untyped]

from core.errors import UserError
from networks.encoders.boxes import RowOfBoxes
from networks.layers.weights import check_file, load_file, reached, read_state

BOXES = 36
"""Boxes of an image unless the name says otherwise; the number that bottom-up attention and VisualBERT use."""
_OVERLAP = 0.5
_CLASSES = "roi_heads.box_predictor.cls_score.weight"


class BoxEncoder(RowOfBoxes):
    """The best boxes of a Faster R-CNN (Ren et al. 2015) with the features of its box head.

    A box is a proposal, scored by its most probable class other than the background. Of two boxes that overlap by more
    than half, the better one is kept, as in bottom-up attention (Anderson et al. 2018). There is no threshold on the
    score, so nearly every image has all R boxes; where fewer remain, `regions` says which are real.

    Images are expected square and normalised with ImageNet's mean and standard deviation. The detector's own resizing
    (to 800 pixels) is skipped, so choose `image_size` accordingly.

    Args:
        network: torchvision's detector.
        boxes: R.
    """

    def __init__(self, *, network: nn.Module, boxes: int = BOXES) -> None:
        super().__init__()
        self.network = network
        self.boxes = boxes
        self.grid_dim = self.vector_dim = int(cast(Any, network).roi_heads.box_predictor.cls_score.in_features)

    def located(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `RowOfBoxes.located`."""
        network = cast(Any, self.network)
        height, width = image.shape[-2:]
        sizes = [(height, width)] * len(image)
        maps = network.backbone(image)
        proposals, _ = network.rpn(ImageList(image, sizes), maps)
        whole = image.new_tensor([[0, 0, width, height]])  # the only box of an image without proposals
        proposals = [boxes if len(boxes) else whole for boxes in proposals]
        heads = network.roi_heads
        rows = heads.box_head(heads.box_roi_pool(maps, proposals, sizes))  # (sum of P, C)
        logits, offsets = heads.box_predictor(rows)
        decoded = heads.box_coder.decode(offsets, proposals)  # (sum of P, classes, 4)
        counts = [len(boxes) for boxes in proposals]
        features = rows.new_zeros(len(image), self.boxes, self.grid_dim)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=image.device)
        places = rows.new_zeros(len(image), self.boxes, 4)
        parts = zip(rows.split(counts), logits.softmax(-1).split(counts), decoded.split(counts), strict=True)
        for index, (own, scores, boxes) in enumerate(parts):
            clipped = box_ops.clip_boxes_to_image(boxes, (height, width))
            kept, found = _best(scores, clipped, self.boxes)
            features[index, : len(kept)] = own[kept]
            mask[index, : len(kept)] = True
            places[index, : len(kept)] = found / found.new_tensor([width, height, width, height])
        return features, mask, places


def _best(scores: Tensor, boxes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the best proposals, best first, and their boxes, `(count, 4)`.

    Args:
        scores: probability of every class of every proposal, background first, `(P, classes)`.
        boxes: its box for every class, `(P, classes, 4)`.
        count: number of proposals to keep.
    """
    score, label = scores[:, 1:].max(dim=1)
    own = boxes[torch.arange(len(boxes), device=boxes.device), label + 1]
    kept = cast(Tensor, box_ops.nms(own.float(), score.float(), _OVERLAP)[:count])
    return kept, own[kept]


def build_detector(name: str, weights: str | None, *, gradient_checkpointing: bool = False) -> BoxEncoder:
    """Builds a detector of torchvision as an image encoder. With `weights` None nothing is downloaded.

    Args:
        name: "fasterrcnn_resnet50_fpn" or another Faster R-CNN, followed by "@N" for N boxes instead of 36.
        weights: None for random weights, "coco" for those of torchvision, or a state-dict file with any number of
            classes.
        gradient_checkpointing: not supported; True is refused.

    Raises:
        UserError: unknown name or weights, weights that cannot be reached or do not match, or gradient checkpointing.
    """
    architecture, _, number = name.partition("@")
    known = [
        model for model in torchvision.models.list_models(module=torchvision.models.detection) if "faster" in model
    ]
    if architecture not in known or not (number.isdecimal() and int(number) > 0 if number else True):
        raise UserError(f"torchvision/{name}: expected one of {', '.join(known)}, with @N appended for N boxes")
    if gradient_checkpointing:
        raise UserError(f"torchvision/{name} has no gradient checkpointing; use it frozen (data's encoder)")
    make = torchvision.models.get_model
    if weights == "coco":
        network = reached(weights, f"torchvision/{name}", lambda: make(architecture, weights="DEFAULT"))
    else:
        classes = 91
        if weights is not None:
            check_file(weights, '"coco"')
            classes = len(read_state(Path(weights)).get(_CLASSES, range(classes)))
        network = make(architecture, weights=None, weights_backbone=None, num_classes=classes)
        if weights is not None:
            load_file(network, weights, '"coco"')
    return BoxEncoder(network=network, boxes=int(number or BOXES))
