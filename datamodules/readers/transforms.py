"""Turning images into normalised tensors.

Letters: H, W height and width of the tensor in pixels.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.errors import UserError

Normalization = Literal["advprop", "imagenet", "clip", "none"]
Resize = Literal["crop", "squash"]
Interpolation = Literal["bilinear", "bicubic"]

# mean and standard deviation of each colour on the scale 0 to 1
_STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "advprop": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Turns an RGB image into a normalised square tensor.

    Attributes:
        size: height and width of the result, pixels.
        normalization: ``advprop`` (-1 to 1, as EfficientNet's AdvProp weights expect), ``imagenet``, ``clip``, or
            ``none`` (0 to 1).
        resize: ``crop`` scales the shorter side to `size` and keeps the centre; ``squash`` keeps everything and gives
            up the proportions.
        interpolation: filter, always with antialiasing.
        min_scale: smallest share of the area that `augment` may keep.
        flip: whether `augment` mirrors half of the images; off by default, since captions say left and right.

    Raises:
        UserError: an attribute outside its range.
    """

    size: int
    normalization: Normalization = "advprop"
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"
    min_scale: float = 0.7
    flip: bool = False

    def __post_init__(self) -> None:
        choices = {"normalization": tuple(_STATISTICS), "resize": ("crop", "squash"), "interpolation": tuple(_FILTERS)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}")
        if self.size < 1:
            raise UserError(f"image size {self.size} must be at least 1 pixel")
        if not 0 < self.min_scale <= 1:
            raise UserError(f"min_scale={self.min_scale} must be above 0 and at most 1")

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side needs so that the result stays sharp; for `open_image`."""
        return math.ceil(2 * self.size / math.sqrt(self.min_scale))

    @property
    def statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of each colour that the normalisation means, on the scale 0 to 1."""
        return _STATISTICS[self.normalization]

    def __call__(self, image: Image.Image) -> Tensor:
        """Resizes and normalises an image for evaluation.

        Args:
            image: RGB image of any size.

        Returns:
            `(3, size, size)`, float32.
        """
        width, height = image.size
        if self.resize == "squash":
            return self._finish(image, (0.0, 0.0, float(width), float(height)))
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return self._finish(image, (left, top, left + side, top + side))

    def augment(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Takes a random crop of nearly the image's proportions, mirrored or not, and normalises it.

        Everything random comes from `generator`, so equal seeds give equal tensors.

        Args:
            image: RGB image of any size.
            generator: source of randomness, on the CPU.

        Returns:
            `(3, size, size)`, float32.
        """
        share, tilt, across, down, mirror = torch.rand(5, generator=generator).tolist()
        width, height = image.size
        area = self.min_scale + (1 - self.min_scale) * share
        ratio = (10 / 9) ** (2 * tilt - 1)  # between 9:10 and 10:9 of the undistorted crop
        whole_width, whole_height = (width, height) if self.resize == "squash" else (min(image.size),) * 2
        crop_width = min(float(width), whole_width * math.sqrt(area * ratio))
        crop_height = min(float(height), whole_height * math.sqrt(area / ratio))
        left, top = across * (width - crop_width), down * (height - crop_height)
        # min: the sum may exceed the image by a rounding error, which Pillow refuses
        box = (left, top, min(left + crop_width, float(width)), min(top + crop_height, float(height)))
        tensor = self._finish(image, box)
        return tensor.flip(-1) if self.flip and mirror < 0.5 else tensor

    def denormalize(self, tensor: Tensor) -> Tensor:
        """Gives colours back.

        Args:
            tensor: normalised images, `(..., 3, H, W)`.

        Returns:
            The same shape, 0 to 1.
        """
        mean, std = (
            torch.tensor(values, device=tensor.device).view(3, 1, 1) for values in _STATISTICS[self.normalization]
        )
        return (tensor.float() * std + mean).clamp(0, 1)

    def spec(self) -> dict[str, str | int]:
        """What is needed to treat an image alike later, as plain JSON; augmentation is left out."""
        return {
            "size": self.size,
            "normalization": self.normalization,
            "resize": self.resize,
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "ImageTransform":
        """Makes the transform that `spec` described.

        Raises:
            UserError: the description lacks a key or has one that is not known.
        """
        keys = {"size", "normalization", "resize", "interpolation"}
        if set(spec) != keys:
            raise UserError(f"image transform {spec!r} must have exactly the keys {', '.join(sorted(keys))}")
        return cls(**spec)

    def _finish(self, image: Image.Image, box: tuple[float, float, float, float]) -> Tensor:
        """Scales a box of the image to the size and normalises: `(3, size, size)`, float32."""
        # scaling only the box costs less than scaling all and cropping, with the same pixels
        image = image.resize((self.size, self.size), _FILTERS[self.interpolation], box=box)
        tensor = (
            torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        )
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in _STATISTICS[self.normalization])
        return tensor.mul_(1 / (255 * std)).sub_(mean / std)
