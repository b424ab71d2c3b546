"""VisualBERT with a linear head: words and image regions in one Transformer.

Letters: B images, N captions, T tokens, R regions, D width of a region, H hidden width, C labels.
"""

from typing import TYPE_CHECKING, cast

from torch import nn

from core.batch import Batch
from networks.classifiers.base import LabelOutput
from networks.emotion.base import Block, EmotionNetwork, caption_rows, present
from networks.emotion.bert import build_bert
from networks.encoders.base import ImageEncoder
from networks.encoders.freezing import train_only_map
from networks.encoders.source import all_real, image_regions
from networks.layers.sequences import length_mask

if TYPE_CHECKING:  # see networks.decoders.language
    from transformers import VisualBertConfig


class VisualBertClassifier(EmotionNetwork):
    """VisualBERT (Li et al. 2019) with a linear layer on its pooled output.

    An image is scored with each of its captions. Visual tokens have type 1, as in the authors' code. Without regions it
    is a plain BERT on the captions.

    Blocks, counted from the input: n encoder layers, the first with word, position and visual embeddings (and the
    image encoder, if the network has one), the last with the pooler.

    Args:
        config: sizes, see `networks.emotion.bert.bert_config`.
        num_labels: C.
        use_image: read regions besides the captions.
        encoder: computes the regions of images; None: batches bring features.
        dropout: dropout probability before the head.
        new_projection: the projection of regions does not come from published weights, and learns even where the rest
            is frozen.
        gradient_checkpointing: recompute each layer in the backward pass.
    """

    def __init__(
        self,
        *,
        config: "VisualBertConfig",
        num_labels: int,
        use_image: bool = True,
        encoder: ImageEncoder | None = None,
        dropout: float = 0.0,
        new_projection: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.body = build_bert(config, gradient_checkpointing=gradient_checkpointing)
        self.encoder = encoder if use_image else None
        self.use_image = use_image
        self.new_projection = new_projection and use_image
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size, num_labels)
        if self.encoder is not None:
            train_only_map(self.encoder)
        if not use_image:
            embeddings = self.body.embeddings
            for part in (embeddings.visual_projection, embeddings.visual_token_type_embeddings):
                part.requires_grad_(False)
            embeddings.visual_position_embeddings.requires_grad_(False)

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption with its image: M = N rows."""
        ids, lengths, index = caption_rows(batch)
        inputs = {"input_ids": ids, "attention_mask": length_mask(lengths, ids.shape[1]).long()}
        if self.use_image:
            regions, mask = image_regions(
                batch,
                self.encoder,
                feature_dim=self.body.config.visual_embedding_dim,
                dtype=self.head.weight.dtype,
            )
            mask = all_real(regions) if mask is None else mask
            inputs["visual_embeds"] = regions.index_select(0, index)
            inputs["visual_attention_mask"] = mask.index_select(0, index).long()
            inputs["visual_token_type_ids"] = inputs["visual_attention_mask"].new_ones(len(index), regions.shape[1])
        pooled = self.body(**inputs).pooler_output  # (N, H)
        return LabelOutput(self.head(self.dropout(pooled)), index)

    def blocks(self) -> list[Block]:
        """One block for each encoder layer; see the class."""
        layers = list(self.body.encoder.layer)
        blocks: list[Block] = [(f"layer {number}", [layer]) for number, layer in enumerate(layers, 1)]
        first = [self.body.embeddings, *present(self.encoder)]
        blocks[0] = (f"embeddings, {blocks[0][0]}", [*first, *blocks[0][1]])
        blocks[-1] = (f"{blocks[-1][0]}, pooler", [*blocks[-1][1], *present(self.body.pooler)])
        return blocks

    def pretrained_modules(self) -> list[nn.Module]:
        """The Transformer, and the image encoder if there is one."""
        return [self.body, *present(self.encoder)]

    def new_modules(self) -> list[nn.Module]:
        """The projection of regions, if it is new."""
        return [cast(nn.Module, self.body.embeddings.visual_projection)] if self.new_projection else []
