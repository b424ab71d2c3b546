"""Codes of images: the vectors that a captioner's decoder starts from, and labels learnt along with them.

Letters: B images, H x W pixels, R regions, F their width, C labels, D code width.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.image import ImageClassifier
from networks.encoders.base import ImageEncoder
from networks.layers.pooling import Pooling


class ImageCoder(nn.Module):
    """The code of an image: the head of an image classifier with another linear layer instead of its last one.

    The classifier's own last layer is kept as well, so that labels can still be learnt.

    Args:
        code_dim: D.
        num_labels: C; 0: there are no labels.
        encoder: CNN that computes the regions of an image; None: batches bring features.
        feature_dim: F of those features; ignored with an encoder.
        hidden_dims: widths of the hidden layers; none: the code is linear in the pooled features (published).
        pooling: see `networks.layers.pooling.RegionPooling`.
        normalize: put a LayerNorm in front of the head.
        dropout: dropout probability after every hidden layer.
        input_dropout: dropout probability of the pooled features.
        gradient_checkpointing: recompute the head in the backward pass; the encoder has its own setting.
    """

    def __init__(
        self,
        *,
        code_dim: int,
        num_labels: int,
        encoder: ImageEncoder | None,
        feature_dim: int,
        hidden_dims: Sequence[int] = (512,),
        pooling: Pooling = "mean_max",
        normalize: bool = True,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.classifier = ImageClassifier(
            num_labels=max(1, num_labels),
            encoder=encoder,
            feature_dim=feature_dim,
            hidden_dims=hidden_dims,
            pooling=pooling,
            normalize=normalize,
            dropout=dropout,
            input_dropout=input_dropout,
            gradient_checkpointing=gradient_checkpointing,
        )
        last = self.classifier.head[-1]
        assert isinstance(last, nn.Linear)
        self.project = nn.Linear(last.in_features, code_dim)
        if num_labels == 0:
            last.requires_grad_(False)

    @property
    def encoder(self) -> ImageEncoder | None:
        """The CNN, if there is one."""
        return self.classifier.encoder

    def regions(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Region features `(B, R, F)` and their mask `(B, R)`, see `networks.encoders.source.image_regions`."""
        return self.classifier.regions(batch)

    def hidden(self, regions: Tensor, mask: Tensor | None) -> Tensor:
        """Output of the last hidden layer, `(B, width)`."""
        return self.classifier.hidden(self.classifier.pooling(regions, mask))

    def codes(self, hidden: Tensor) -> Tensor:
        """`(B, width)` to codes `(B, D)`, unbounded."""
        return cast(Tensor, self.project(hidden))

    def labels(self, hidden: Tensor) -> Tensor:
        """`(B, width)` to logits of the labels `(B, C)`."""
        return cast(Tensor, self.classifier.head[-1](hidden))

    def forward(self, batch: Batch) -> Tensor:
        """Codes of the images of a batch, `(B, D)`."""
        return self.codes(self.hidden(*self.regions(batch)))

    def load_classifier(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Loads a classifier trained before: its CNN, and its head where this one has a head of the same shape.

        Args:
            weights: its state dict, without the prefix of the module.
            source: where the weights come from, for messages.

        Raises:
            UserError: they do not match.
        """
        own = self.classifier.state_dict()
        head = {name for name in own if name.startswith("head.")}
        last = {name for name in head if name.startswith(f"head.{len(self.classifier.head) - 1}.")}
        wanted = set(own)
        if self.num_labels == 0:
            wanted -= last  # there are no labels to score
        elif head == last and not self._matches(own, weights, last):
            wanted -= last  # a linear code has no hidden layers to load
        wrong = sorted(name for name in wanted if not self._matches(own, weights, {name}))
        if wrong and set(wrong) <= last and wrong[0] in weights:
            raise UserError(
                f"image_from '{source}' has {len(weights[wrong[0]])} labels, this data set {self.num_labels}: use "
                "data with the same labels, or an earlier stage trained on this data set"
            )
        if wrong:
            raise UserError(
                f"image_from '{source}' does not match: {len(wrong)} tensors differ, first '{wrong[0]}'; set "
                "image_encoder, hidden_dims, pooling and normalize as in that run"
            )
        self.classifier.load_state_dict({name: weights[name] for name in wanted}, strict=False)

    @staticmethod
    def _matches(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: set[str]) -> bool:
        """Whether all these tensors exist with the same shapes."""
        return all(name in weights and weights[name].shape == own[name].shape for name in names)
