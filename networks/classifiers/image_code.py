"""Codes of pictures: what a captioner's decoder starts from, and the labels that may be learnt along with them.

Letters: B images, H x W pixels, R regions, F their width, C labels, D code width.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.image import ImageClassifier
from networks.encoders.build import ImageEncoder
from networks.layers.pooling import Pooling


class ImageCoder(nn.Module):
    """A picture's code: the head of a classifier of pictures with a linear layer in the place of its last one.

    The classifier's own last layer stays beside it, so that labels can go on being learnt.

    Args:
        code_dim: D.
        num_labels: C; 0: there are no labels.
        encoder: CNN that makes regions of pictures; None: batches carry features.
        feature_dim: F of those features.
        hidden: widths of the hidden layers; none: the code is linear in the pooled features (published).
        pooling: see `networks.layers.pooling.RegionPooling`.
        normalize: LayerNorm in front of the head.
        dropout: share dropped behind every hidden layer.
        input_dropout: share of the pooled features dropped.
    """

    def __init__(
        self,
        code_dim: int,
        num_labels: int,
        encoder: ImageEncoder | None,
        feature_dim: int,
        hidden: Sequence[int] = (512,),
        pooling: Pooling = "mean_max",
        normalize: bool = True,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.classifier = ImageClassifier(
            max(1, num_labels), encoder, feature_dim, hidden, pooling, normalize, dropout, input_dropout
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
        """Region features `(B, R, F)` and their mask `(B, R)`: stored ones, or computed now."""
        if self.encoder is not None:
            return self.encoder.grid(batch["image"]), None
        if "features" not in batch:
            raise UserError("the batch has no features and the module no image encoder: give one of the two")
        return batch["features"].to(self.project.weight.dtype), batch.get("feature_mask")

    def hidden(self, regions: Tensor, mask: Tensor | None) -> Tensor:
        """What the last layers read, `(B, width)`."""
        pooled = self.classifier.norm(self.classifier.pooling(regions, mask))
        return cast(Tensor, self.classifier.head[:-1](pooled))

    def codes(self, hidden: Tensor) -> Tensor:
        """`(B, width)` to codes `(B, D)`, not bounded."""
        return cast(Tensor, self.project(hidden))

    def labels(self, hidden: Tensor) -> Tensor:
        """`(B, width)` to logits of the labels `(B, C)`."""
        return cast(Tensor, self.classifier.head[-1](hidden))

    def forward(self, batch: Batch) -> Tensor:
        """Codes of the pictures of a batch, `(B, D)`."""
        return self.codes(self.hidden(*self.regions(batch)))

    def load_classifier(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Takes over a classifier that was trained before: its CNN, and its head where there is one here.

        Args:
            weights: its state dict, names without the module's prefix.
            source: where they come from, for messages.

        Raises:
            UserError: they do not fit.
        """
        own = self.classifier.state_dict()
        head = {name for name in own if name.startswith("head.")}
        last = {name for name in head if name.startswith(f"head.{len(self.classifier.head) - 1}.")}
        wanted = set(own)
        if self.num_labels == 0:
            wanted -= last  # there are no labels here that they would score
        elif head == last and not self._fits(own, weights, last):
            wanted -= last  # a linear code has no layer that the classifier's hidden ones could fill
        wrong = sorted(name for name in wanted if not self._fits(own, weights, {name}))
        if wrong and set(wrong) <= last and wrong[0] in weights:
            raise UserError(
                f"image_from '{source}' has {len(weights[wrong[0]])} labels, this data {self.num_labels}: give data "
                "with the same labels, or an earlier stage trained on these"
            )
        if wrong:
            raise UserError(
                f"image_from '{source}' does not fit: {len(wrong)} tensors differ, first '{wrong[0]}'; give the image "
                "encoder, hidden, pooling and normalize of that run"
            )
        self.classifier.load_state_dict({name: weights[name] for name in wanted}, strict=False)

    @staticmethod
    def _fits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: set[str]) -> bool:
        """Whether there are such tensors, of the same shapes."""
        return all(name in weights and weights[name].shape == own[name].shape for name in names)


def pulled_together(image: Tensor, text: Tensor, kind: str, normalized: bool, temperature: float = 1.0) -> Tensor:
    """Distance of image codes from sentence codes, mean over pairs.

    Args:
        image: codes of the image of each sentence, `(N, D)`.
        text: codes of the sentences, `(N, D)`.
        kind: ``mse``: squared distance, summed over D if `normalized` (it is 2 - 2 cosine then) and averaged if not;
            ``cosine``: 1 - cosine; ``kl``: Kullback-Leibler divergence of softmax(image) from softmax(text).
        normalized: both have length 1 first. `cosine` is the same either way.
        temperature: divides both before the softmax of ``kl``.

    Returns:
        A scalar; 0 if there are no pairs.

    Raises:
        UserError: unknown kind.
    """
    if kind not in ("mse", "cosine", "kl"):
        raise UserError(f"distance is {kind!r}: expected mse, cosine or kl")
    if len(image) == 0:
        return image.sum() + text.sum()
    image, text = image.float(), text.float()
    if normalized:
        image, text = nn.functional.normalize(image, dim=1), nn.functional.normalize(text, dim=1)
    if kind == "mse":
        squares = (image - text).square()
        return squares.sum(dim=1).mean() if normalized else squares.mean()
    if kind == "cosine":
        return (1 - nn.functional.cosine_similarity(image, text, dim=1)).mean()
    return nn.functional.kl_div(
        (image / temperature).log_softmax(dim=1),
        (text / temperature).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
