"""Attention of captioners: options of the attention networks, losses on the weights, figures on what is attended to.

Letters: B images, N captions, T tokens of the longest one, R regions.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import MeanMetric, Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.readers.records import Split
from datamodules.scenes.pointing import Places, named_places, normalised_entropy, pointing_credit
from lightning_modules.base import Stage
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.parts.mixin import Mixin
from networks.layers.attention import Attention, AttentionName, build_attention
from networks.layers.sequences import CaptionOutput, Memory, target_mask
from networks.losses.attention import doubly_stochastic_penalty, supervision_loss

if TYPE_CHECKING:
    CaptioningMixin = CaptioningModule
else:
    CaptioningMixin = object  # see `lightning_modules.parts.mixin`


class AttendingModule(CaptioningMixin):
    """A captioner that attends to regions of an image at every word.

    Logged besides what all captioners log, both on the references under teacher forcing:

    * ``val/attention_entropy``: entropy of the attention divided by that of uniform attention, mean over all steps.
    * ``val/pointing``, on the synthetic scenes with a word vocabulary: pointing-game accuracy while objects are named,
      see `datamodules.scenes.pointing`; for uniform attention it is the expected area of a hit.
    * ``val/pointing_noun``: the same at the head nouns alone; the words before them say which object is meant.

    Attention with several heads counts with the mean over its heads.

    Args:
        doubly_stochastic: weight of the penalty on attention that a caption spreads unevenly over the regions (Xu et
            al. 2015).
        attention_supervision: weight of the loss that draws attention to the objects named; synthetic scenes only.
        feature_grid: rows and columns of the data module's features; None when it gives images.
    """

    def __init__(
        self,
        *,
        doubly_stochastic: float = 0.0,
        attention_supervision: float = 0.0,
        feature_grid: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.doubly_stochastic, self.attention_supervision = doubly_stochastic, attention_supervision
        self.feature_grid = feature_grid

    def training_loss(self, batch: Batch, memory: Memory, output: CaptionOutput) -> Tensor:
        """Adds the penalty and the supervision of the attention to the loss, where they are wanted.

        Raises:
            UserError: supervision without known positions.
        """
        loss = super().training_loss(batch, memory, output)
        assert output.attention is not None
        if weight := self.doubly_stochastic:
            loss = loss + weight * doubly_stochastic_penalty(output.attention, batch["caption_lengths"])
        if weight := self.attention_supervision:
            places = self._places(batch, output.attention)
            if places is None:
                raise UserError(
                    f"attention_supervision is {weight}, but nothing is known of where objects are: it needs "
                    "datamodules.scenes.SceneCaptions with tokenizer: word; set it to 0"
                )
            loss = loss + weight * supervision_loss(output.attention[places.caption, places.step], places.inside)
        return loss

    def grid(self, regions: int) -> tuple[int, int]:
        """Rows and columns of so many regions."""
        known = self.feature_grid
        if known is not None and known[0] * known[1] == regions:
            return int(known[0]), int(known[1])
        return super().grid(regions)

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Also entropy and pointing-game accuracy."""
        own = {name: MeanMetric() for name in ("attention_entropy", "pointing", "pointing_noun")}
        return {**super().evaluation_metrics(stage, split), **own}

    def update_metrics(self, batch: Batch, memory: Memory, output: CaptionOutput | None, written: Generated) -> None:
        """Entropy of the attention, and the pointing game where it can be played."""
        super().update_metrics(batch, memory, output, written)
        if output is None or output.attention is None:
            return
        attention = output.attention
        mask = target_mask(batch["caption_lengths"], batch["caption_ids"].shape[1])
        regions = batch["feature_mask"].sum(1)[batch["image_index"]] if "feature_mask" in batch else None
        counts = None if regions is None else regions.unsqueeze(1).expand_as(mask)[mask]
        self.metrics["attention_entropy"].update(normalised_entropy(attention[mask], counts))
        places = self._places(batch, attention)
        if places is not None and len(places.step):
            credit = pointing_credit(attention[places.caption, places.step], places.hit)
            self.metrics["pointing"].update(credit)
            self.metrics["pointing_noun"].update(credit[places.noun])

    def _places(self, batch: Batch, attention: Tensor) -> Places | None:
        """Where captions name objects; None where that is not known."""
        if "scene" not in batch or self.tokenizer is None or self.inference["tokenizer"]["kind"] != "word":
            return None
        texts = [self.tokenizer.decode(ids) for ids in batch["caption_ids"][:, 1:].tolist()]
        grid = self.grid(attention.shape[2])
        return named_places(batch["scene"], batch["image_index"].tolist(), texts, grid, attention.device)


class AttentionOptions(Mixin):
    """A module with one of the four attention networks, see `networks.layers.attention`.

    Args:
        attention: ``uniform``, ``bahdanau``, ``dot`` (the three published) or ``multi_head``.
        attention_dim: width in which state and regions are compared.
        heads: attention heads of ``multi_head`` attention.
        dot_bias: the query of ``dot`` has a bias, as in the published sample code; the text has none.
        dot_scaled: ``dot`` is divided by the root of its width.
        region_dim: width that regions are projected to (published: 256).
        region_dropout: share dropped from projected regions.
        pooled_side: average the grid into this many rows and columns; None: as the image encoder gives it.
    """

    def __init__(
        self,
        *,
        attention: AttentionName = "bahdanau",
        attention_dim: int = 256,
        heads: int = 4,
        dot_bias: bool = False,
        dot_scaled: bool = False,
        region_dim: int = 256,
        region_dropout: float = 0.0,
        pooled_side: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention, self.attention_dim, self.heads = attention, attention_dim, heads
        self.dot_bias, self.dot_scaled = dot_bias, dot_scaled
        self.region_dim, self.region_dropout, self.pooled_side = region_dim, region_dropout, pooled_side

    def new_attention(self, hidden_dim: int) -> Attention:
        """The chosen attention for a decoder state of this width.

        Raises:
            UserError: values do not match.
        """
        return build_attention(
            self.attention,
            region_dim=self.region_dim,
            hidden_dim=hidden_dim,
            attention_dim=self.attention_dim,
            heads=self.heads,
            bias=self.dot_bias,
            scaled=self.dot_scaled,
        )
