"""Boxes of brightly coloured areas: a detector for synthetic scenes that needs no weights and hardly errs.

It is there to measure what boxes are worth to a captioner when nothing is wrong with them.

Letters: B pictures, H x W pixels, R boxes, K colours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from networks.encoders.pictures import PictureEncoder

NAME = "colour-boxes"
BOXES = 6
_SIDES = (64, 96)
_COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (1, 1, 1))
"""Which of red, green and blue are bright."""
_BRIGHT, _COLOURFUL, _WHITE = 128, 60, 190
_LEAST = 12
"""Pixels of an area; smaller ones are edges."""
_MASK = 8
WIDTH = len(_COLOURS) + _MASK * _MASK
"""Of a box's features."""


class ColourBoxes(PictureEncoder):
    """The largest areas of one bright colour each; the features are the colour and the shape, scaled to 8 x 8.

    Args:
        boxes: R.
    """

    def __init__(self, *, boxes: int = BOXES) -> None:
        super().__init__()
        self.boxes, self.sides = boxes, _SIDES
        self.grid_dim = self.vector_dim = WIDTH
        # says on which device it is
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def located_pictures(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `PictureEncoder.located_pictures`; largest areas first."""
        features = self.scale.new_zeros(len(pixels), self.boxes, WIDTH)
        places = self.scale.new_zeros(len(pixels), self.boxes, 4)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
        for index, (picture, (height, width)) in enumerate(zip(pixels, sizes.tolist(), strict=True)):
            areas = components(picture[:, :height, :width])[: self.boxes]
            if not areas:  # every picture has a region
                mask[index, 0], places[index, 0] = True, places.new_tensor([0, 0, 1, 1])
            for number, (colour, area) in enumerate(areas):
                rows, columns = area.any(1).nonzero(), area.any(0).nonzero()
                top, bottom = int(rows[0]), int(rows[-1]) + 1
                left, right = int(columns[0]), int(columns[-1]) + 1
                shape = F.adaptive_avg_pool2d(area[None, top:bottom, left:right].to(features.dtype), _MASK)
                features[index, number, colour] = 1
                features[index, number, len(_COLOURS) :] = shape.flatten()
                places[index, number] = places.new_tensor([left / width, top / height, right / width, bottom / height])
                mask[index, number] = True
        return features * self.scale, mask, places


def components(picture: Tensor) -> list[tuple[int, Tensor]]:
    """Areas of one bright colour: the colour's number and the area's pixels `(H, W)`, bool, largest first.

    Args:
        picture: RGB, 0 to 255, `(3, H, W)`.
    """
    bright = picture > _BRIGHT
    low, high = picture.amin(0), picture.amax(0)
    masks = torch.stack(
        [
            (bright == bright.new_tensor(colour).view(3, 1, 1)).all(0)
            & ((low > _WHITE) if all(colour) else (high - low > _COLOURFUL))
            for colour in _COLOURS
        ]
    )
    present = masks.flatten(1).any(1).nonzero().flatten().tolist()
    masks = masks[present]
    numbers = torch.arange(1, masks.numel() + 1, device=picture.device, dtype=torch.float32).view_as(masks) * masks
    while True:  # the largest number of an area spreads to all of it
        near = torch.stack(
            [numbers, *(numbers.roll(step, axis) * _inside(numbers, step, axis) for step in (1, -1) for axis in (1, 2))]
        )
        spread = near.amax(0) * masks
        if torch.equal(spread, numbers):
            break
        numbers = spread
    counts = torch.bincount(numbers.flatten().long(), minlength=1)
    counts[0] = 0  # what is in no area
    found = []
    for number in counts.argsort(descending=True, stable=True)[: int((counts >= _LEAST).sum())].tolist():
        whole = numbers == number
        layer = int(whole.flatten(1).any(1).nonzero()[0])
        found.append((present[layer], whole[layer]))
    return found


def _inside(numbers: Tensor, step: int, axis: int) -> Tensor:
    """0 where a roll has brought in what stood at the other edge."""
    inside = torch.ones(numbers.shape[axis], device=numbers.device)
    inside[0 if step == 1 else -1] = 0
    return inside.view(-1, 1) if axis == 1 else inside


def build_colour_boxes(name: str, weights: str | None = None) -> ColourBoxes:
    """By name: "colour-boxes", followed by "@N" for N boxes instead of 6.

    Raises:
        UserError: unknown name, or there are weights.
    """
    if weights is not None:
        raise UserError(f"encoder weights {weights!r}: {NAME} has none; set encoder_weights to null")
    return ColourBoxes(boxes=colour_shape(name)[1])


def colour_shape(name: str) -> tuple[int, int]:
    """Width and number of the boxes.

    Raises:
        UserError: the name says no number.
    """
    _, at, number = name.partition("@")
    if at and not (number.isdecimal() and 0 < int(number) <= 100):
        raise UserError(f"image encoder {name!r}: expected {NAME}, or {NAME}@N for N boxes, 1 to 100")
    return WIDTH, int(number) if at else BOXES
