"""A multi-label classifier of pictures: a CNN or its stored features, pooling, a small head.

Letters: B images, H x W pixels, R regions, D their width, P pooled width, C labels, K views of a picture.
"""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.base import Classifier, LabelOutput
from networks.encoders.build import ImageEncoder
from networks.layers.pooling import Pooling, RegionPooling

SYMMETRIES = 8
"""Quarter turns and their mirror images: all ways to lay down a square picture."""


class ImageClassifier(Classifier):
    """Pools the regions of a picture and classifies the result.

    Args:
        num_labels: C.
        encoder: CNN that makes regions of pictures; None: batches carry features.
        feature_dim: D of those features; not used with an encoder.
        hidden: widths of the head's hidden layers, each with ReLU and dropout.
        pooling: see `networks.layers.pooling.RegionPooling`.
        normalize: a LayerNorm without parameters in front of the head: features of frozen CNNs have any scale.
        dropout: share dropped in front of each layer of the head but the first, and before that `input_dropout`.
        input_dropout: share of the pooled features dropped.
        views: 8: in evaluation pictures are scored in all 8 symmetric positions (rows of `LabelOutput`, whose
            probabilities are their mean); 1: as they are. Needs an encoder.

    Raises:
        UserError: values do not fit together.
    """

    def __init__(
        self,
        num_labels: int,
        encoder: ImageEncoder | None,
        feature_dim: int,
        hidden: Sequence[int] = (1000, 100),
        pooling: Pooling = "mean",
        normalize: bool = False,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        views: int = 1,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise UserError(f"hidden is {list(hidden)}: expected widths of at least 1")
        if views not in (1, SYMMETRIES) or (views > 1 and encoder is None):
            raise UserError(f"views is {views}: expected 1, or 8 with an image encoder in the module")
        self.num_labels, self.views = num_labels, views
        self.encoder = encoder
        self.pooling = RegionPooling(pooling, feature_dim if encoder is None else encoder.grid_dim)
        self.norm = nn.LayerNorm(self.pooling.out_features, elementwise_affine=False) if normalize else nn.Identity()
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        widths = [self.pooling.out_features, *hidden]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], num_labels))

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores pictures `(B, 3, H, W)`, or features `(B, R, D)` with their mask: M = B rows, or 8 B views."""
        if self.encoder is None:
            regions = batch["features"]
            return self._output(self.classify(self.pooling(regions, batch.get("feature_mask"))), 1)
        image = batch["image"]
        views = 1 if self.training else self.views
        if views > 1:
            image = torch.cat([lay(image, position) for position in range(views)])
        return self._output(self.classify(self.pooling(self.encoder.grid(image))), views)

    def classify(self, pooled: Tensor) -> Tensor:
        """`(B, P)` to logits `(B, C)`."""
        return cast(Tensor, self.head(self.norm(pooled)))

    def _output(self, logits: Tensor, views: int) -> LabelOutput:
        images = torch.arange(len(logits) // views, device=logits.device)
        return LabelOutput(logits, images.repeat(views))


def lay(image: Tensor, position: int) -> Tensor:
    """Lays pictures `(..., H, W)` in one of 8 positions: ``position % 4`` quarter turns, mirrored from 4 on."""
    turned = torch.rot90(image, position % 4, (-2, -1))
    return turned.flip(-1) if position >= SYMMETRIES // 2 else turned


def random_dihedral(image: Tensor) -> Tensor:
    """Lays every picture of `(B, 3, S, S)` in a position of its own, drawn from torch's generator of the CPU."""
    positions = torch.randint(SYMMETRIES, (len(image),)).tolist()
    return torch.stack([lay(picture, position) for picture, position in zip(image, positions, strict=True)])
