"""What encoders whose regions are boxes have in common.

Letters: B images, H x W pixels, R boxes, C width of a box's features.
"""

from abc import abstractmethod

from torch import Tensor

from networks.encoders.base import ImageEncoder


class RowOfBoxes(ImageEncoder):
    """An encoder whose regions are boxes: a feature map of one row of R.

    Attributes:
        boxes: R.
    """

    boxes: int

    @abstractmethod
    def located(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the boxes of images `(B, 3, H, W)`, best first, and where the boxes are.

        Returns:
            features `(B, R, C)`, zero where a box is absent; the mask of the real boxes, `(B, R)`, bool; and left, top,
            right and bottom of each as shares of the image, `(B, R, 4)`, zero where one is absent.
        """

    def regions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features and mask alone, see `located`."""
        features, mask, _ = self.located(image)
        return features, mask

    def feature_map(self, image: Tensor) -> Tensor:
        """The boxes as a map of one row: `(B, 3, H, W)` to `(B, C, 1, R)`; absent boxes are zero."""
        return self.regions(image)[0].transpose(1, 2).unsqueeze(2)

    def pool(self, features: Tensor) -> Tensor:
        """Mean over the real boxes: `(B, C, 1, R)` to `(B, C)`."""
        real = features.ne(0).any(dim=1, keepdim=True)
        return (features * real).sum(dim=(2, 3)) / real.sum(dim=(2, 3)).clamp(min=1)

    def grid_shape(self, image_size: int) -> tuple[int, int]:
        """One row of R boxes, whatever the size of the image."""
        del image_size
        return 1, self.boxes
