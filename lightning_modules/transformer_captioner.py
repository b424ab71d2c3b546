"""Transformer captioning: a Transformer decoder that attends to grid features or stored regions of an image.

The image encoder is frozen (features from the data module's store, or computed here), fine-tuned from an epoch on, or
trained from random weights.
"""

from typing import Any, ClassVar

from core.errors import UserError
from lightning_modules.captioning import CaptioningModule
from lightning_modules.parts.attention import AttendingModule
from lightning_modules.parts.bag_of_words import BagOfWordsOptions
from lightning_modules.parts.encoder import UnfreezingEncoder
from networks.captioners.transformer import TransformerCaptioner as TransformerNetwork
from networks.decoders.transformer import DecoderBlock
from networks.encoders.base import ImageEncoder
from networks.layers.attention import RegionProjection
from networks.layers.pooling import Pooling, RegionPooling


class TransformerCaptioner(UnfreezingEncoder, AttendingModule, BagOfWordsOptions, CaptioningModule):
    """A Transformer decoder with cross-attention to the regions of an image.

    Attention, in figures and metrics, is the cross-attention of the last layer, mean over the heads.

    Args:
        layers: blocks of self-attention, cross-attention and feed-forward network.
        heads: attention heads.
        hidden_dim: width of words and projected regions, a multiple of twice the heads.
        feedforward_dim: width of the feed-forward networks.
        dropout: share dropped from words, and from what each part of a block adds.
        region_dropout: share dropped from projected regions.
        positions: 2-D encoding of the regions' positions; the regions must form a square grid.
        pooled_side: average the grid to this many rows and columns; None: as the image encoder gives it.
        pooling: the regions pooled in this way, see `networks.layers.pooling`, are added to every word; None: the image
            is seen by cross-attention only.
        tied_embeddings: the vocabulary layer's weights are the embedding.
        lr: peak learning rate.
        lr_pretrained: peak learning rate of the image encoder, whatever its weights start from.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not match.
    """

    method: ClassVar[str] = "transformer_captioner"
    cnn: ClassVar[str | None] = "captioner.encoder."
    captioner: TransformerNetwork

    def __init__(
        self,
        *,
        layers: int = 3,
        heads: int = 8,
        hidden_dim: int = 512,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        region_dropout: float = 0.0,
        positions: bool = False,
        pooled_side: int | None = None,
        pooling: Pooling | None = None,
        tied_embeddings: bool = True,
        lr: float = 3e-4,
        lr_pretrained: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(lr=lr, lr_pretrained=lr_pretrained, **kwargs)
        if layers < 1:
            raise UserError(f"model.init_args.layers is {layers}: expected 1 or more")
        encoder = self.new_encoder(unfreeze_epoch=self.unfreeze_epoch is not None)
        feature_dim = encoder.grid_dim if encoder is not None else self.feature_dim or 0
        self.captioner = TransformerNetwork(
            regions=RegionProjection(
                feature_dim=feature_dim,
                region_dim=hidden_dim,
                pooled_side=pooled_side,
                dropout=region_dropout,
                positions=positions,
            ),
            blocks=[
                DecoderBlock(hidden_dim=hidden_dim, heads=heads, feedforward_dim=feedforward_dim, dropout=dropout)
                for _ in range(layers)
            ],
            encoder=encoder,
            pooling=None if pooling is None else RegionPooling(pooling=pooling, feature_dim=feature_dim),
            dropout=dropout,
            tied_embeddings=tied_embeddings,
            gradient_checkpointing=self.gradient_checkpointing,
            **self.token_ids,
        )
        self.choose_learning()
        self.let_encoder_learn(self.unfreeze_epoch == 0)
        self.complete_captioner()
        self.add_bag_of_words(hidden_dim)

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The captioner's CNN."""
        return self.captioner.encoder
