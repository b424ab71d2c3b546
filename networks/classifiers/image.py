"""A multi-label classifier of images: a CNN or its stored features, pooling, a small head.

Letters: B images, H x W pixels, R regions, D their width, P pooled width, C labels.
"""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.base import Classifier, LabelOutput
from networks.encoders.base import ImageEncoder
from networks.encoders.source import image_regions, images_of
from networks.layers.checkpointing import Runner, stage
from networks.layers.dihedral import NUM_DIHEDRAL, dihedral
from networks.layers.pooling import Pooling, RegionPooling


class ImageClassifier(Classifier):
    """Pools the regions of an image and classifies the result.

    Args:
        num_labels: C.
        encoder: CNN that computes the regions of an image; None: batches bring features.
        feature_dim: D of those features; ignored with an encoder.
        hidden_dims: widths of the head's hidden layers, each with ReLU and dropout.
        pooling: see `networks.layers.pooling.RegionPooling`.
        normalize: put a LayerNorm without parameters in front of the head, because the scale of features differs
            between frozen CNNs.
        dropout: dropout probability in front of each layer of the head but the first.
        input_dropout: dropout probability of the pooled features, in front of the first layer.
        views: 8: in evaluation images are scored in all 8 dihedral transforms (rows of `LabelOutput`, whose
            probabilities are their mean); 1: as they are. 8 needs an encoder.
        gradient_checkpointing: recompute the head in the backward pass; the encoder has its own setting.

    Raises:
        UserError: a value is out of range, or values contradict each other.
    """

    def __init__(
        self,
        *,
        num_labels: int,
        encoder: ImageEncoder | None,
        feature_dim: int,
        hidden_dims: Sequence[int] = (1000, 100),
        pooling: Pooling = "mean",
        normalize: bool = False,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        views: int = 1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden_dims):
            raise UserError(f"hidden_dims is {list(hidden_dims)}: expected widths of at least 1")
        if views not in (1, NUM_DIHEDRAL) or (views > 1 and encoder is None):
            raise UserError(f"views is {views}: expected 1, or 8 with an image encoder in the module")
        self.num_labels, self.views = num_labels, views
        self.encoder = encoder
        self.feature_dim = feature_dim if encoder is None else encoder.grid_dim
        self.pooling = RegionPooling(pooling=pooling, feature_dim=self.feature_dim)
        self.norm = nn.LayerNorm(self.pooling.out_features, elementwise_affine=False) if normalize else nn.Identity()
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        widths = [self.pooling.out_features, *hidden_dims]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], num_labels))
        # of a single layer without dropout everything is kept for the layers around it
        self._run = Runner(gradient_checkpointing and (len(hidden_dims) > 1 or (len(hidden_dims) == 1 and dropout > 0)))

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores images `(B, 3, H, W)`, or features `(B, R, D)` with their mask: M = B rows, or 8 B with views."""
        views = 1 if self.training or "features" in batch else self.views
        if views > 1:
            image = images_of(batch)
            batch = {"image": torch.cat([dihedral(image, index) for index in range(views)])}
        return self._output(self.classify(self.pooling(*self.regions(batch))), views)

    def regions(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Region features `(B, R, D)` and their mask `(B, R)`, see `image_regions`."""
        dtype = cast(Tensor, self.head[-1].weight).dtype
        return image_regions(batch, self.encoder, feature_dim=self.feature_dim, dtype=dtype)

    def classify(self, pooled: Tensor) -> Tensor:
        """`(B, P)` to logits `(B, C)`."""
        return cast(Tensor, self.head[-1](self.hidden(pooled)))

    def hidden(self, pooled: Tensor) -> Tensor:
        """Output of the last hidden layer: `(B, P)` to `(B, width)`."""
        return cast(Tensor, self._run(stage(self.norm, *self.head[:-1]), pooled))

    def _output(self, logits: Tensor, views: int) -> LabelOutput:
        images = torch.arange(len(logits) // views, device=logits.device)
        return LabelOutput(logits, images.repeat(views))
