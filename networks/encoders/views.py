"""One feature map from the eight ways to turn and mirror a picture, for pictures that have no up: from the air."""

from torch import Tensor

from core.errors import UserError
from networks.encoders.build import ImageEncoder

VIEWS = tuple(
    (across, down, swapped) for swapped in (False, True) for down in (False, True) for across in (False, True)
)
"""The dihedral of a square: mirrored left to right, mirrored top to bottom, rows and columns swapped."""


def turned(image: Tensor, view: tuple[bool, bool, bool]) -> Tensor:
    """A picture or feature map `(..., H, W)` in another view; swapping makes it `(..., W, H)`."""
    across, down, swapped = view
    sides = [side for side, wanted in ((-1, across), (-2, down)) if wanted]
    image = image.flip(sides) if sides else image
    return image.transpose(-1, -2) if swapped else image


def turned_back(features: Tensor, view: tuple[bool, bool, bool]) -> Tensor:
    """Undoes `turned`."""
    across, down, swapped = view
    features = features.transpose(-1, -2) if swapped else features
    sides = [side for side, wanted in ((-1, across), (-2, down)) if wanted]
    return features.flip(sides) if sides else features


class EightViews(ImageEncoder):
    """Averages the maps of another tower over the eight views of a picture, each turned back before.

    Regions stay where they are in the picture; what depends on the direction of view averages out (test-time
    augmentation, Krizhevsky et al. 2012, over the dihedral of the square). Eight times the work: meant for a frozen
    tower, whose features are computed once.

    Args:
        encoder: a convolutional tower.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.grid_dim, self.vector_dim = encoder.grid_dim, encoder.vector_dim

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, h, w)`.

        Raises:
            UserError: the tower gives no map of square pictures' regions.
        """
        total: Tensor | None = None
        for view in VIEWS:
            features = self.encoder.feature_map(turned(image, view))
            if features.ndim != 4 or features.shape[1] != self.grid_dim:
                raise UserError(
                    "eight-views/ needs a convolutional image encoder with channels before rows and columns; leave the "
                    "prefix out, or take another encoder"
                )
            features = turned_back(features, view)
            total = features if total is None else total + features
        assert total is not None
        return total / len(VIEWS)

    def pool(self, features: Tensor) -> Tensor:
        """The tower's own: `(B, C, h, w)` to `(B, D)`."""
        return self.encoder.pool(features)
