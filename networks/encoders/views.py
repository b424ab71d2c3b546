"""The mean feature map over the eight dihedral transforms of an image, for images without an upright orientation."""

from torch import Tensor

from core.errors import UserError
from networks.encoders.base import ImageEncoder
from networks.layers.dihedral import dihedral, inverse_dihedral

_ORDER = (0, 4, 6, 2, 7, 1, 3, 5)
"""Order of summation. Another order would change the last bits of stored features."""


class EightViews(ImageEncoder):
    """Averages the feature maps of an encoder over the eight dihedral transforms of an image.

    Each map is transformed back first, so regions keep their place in the image, and what depends on the orientation
    averages out (test-time augmentation, Krizhevsky et al. 2012, over the dihedral group of the square). It costs eight
    forward passes, so it is meant for a frozen encoder whose features are computed once.

    Args:
        encoder: a convolutional encoder.
    """

    def __init__(self, *, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.grid_dim, self.vector_dim = encoder.grid_dim, encoder.vector_dim

    def feature_map(self, image: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, C, h, w)`.

        Raises:
            UserError: the encoder has no feature map with rows and columns.
        """
        total: Tensor | None = None
        for index in _ORDER:
            features = self.encoder.feature_map(dihedral(image, index))
            if features.ndim != 4 or features.shape[1] != self.grid_dim:
                raise UserError(
                    "eight-views/ needs a convolutional image encoder with channels before rows and columns; leave the "
                    "prefix out, or choose another encoder"
                )
            features = inverse_dihedral(features, index)
            total = features if total is None else total + features
        assert total is not None
        return total / len(_ORDER)

    def pool(self, features: Tensor) -> Tensor:
        """Pooling of the encoder: `(B, C, h, w)` to `(B, D)`."""
        return self.encoder.pool(features)
