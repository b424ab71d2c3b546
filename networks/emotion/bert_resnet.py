"""BERT for the caption beside a CNN for the image.

Letters: B images, N captions, T tokens, C labels.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from networks.classifiers.base import LabelOutput
from networks.emotion.base import Block, EmotionNetwork, caption_rows, present
from networks.emotion.bert import build_bert
from networks.encoders.base import ImageEncoder
from networks.encoders.source import images_of, mean_region
from networks.layers.sequences import length_mask

if TYPE_CHECKING:  # see networks.decoders.language
    from transformers import BertConfig


class BertResNetStudent(EmotionNetwork):
    """BERT for the caption, a CNN (published: ResNet-50) for the image; concatenated -> fc1, ReLU -> fc2.

    Blocks, counted from the input: the encoder layers of BERT, the first with its embeddings, the last with its
    pooler; the CNN's children are distributed evenly over them, in order; (last) fc1. The head is fc2.

    Args:
        config: sizes of BERT, see `networks.emotion.bert.bert_config`.
        num_labels: C.
        encoder: the CNN; None: the mean of the features that batches bring, or captions only.
        feature_dim: width of these features; None: captions only, unless there is a CNN.
        fusion_dim: outputs of fc1.
        dropout: dropout probability before fc1 and before fc2.
        gradient_checkpointing: recompute BERT's layers in the backward pass; the CNN has its own setting.
    """

    def __init__(
        self,
        *,
        config: "BertConfig",
        num_labels: int,
        encoder: ImageEncoder | None = None,
        feature_dim: int | None = None,
        fusion_dim: int = 256,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_labels, self.feature_dim = num_labels, feature_dim
        self.body = build_bert(config, gradient_checkpointing=gradient_checkpointing)
        self.encoder = encoder
        self.use_image = encoder is not None or feature_dim is not None
        image_width = encoder.vector_dim if encoder is not None else feature_dim or 0
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(config.hidden_size + image_width, fusion_dim)
        self.head = nn.Linear(fusion_dim, num_labels)

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption with its image: M = N rows."""
        ids, lengths, index = caption_rows(batch)
        mask = length_mask(lengths, ids.shape[1]).long()
        both = self.body(input_ids=ids, attention_mask=mask).pooler_output
        if self.use_image:
            both = torch.cat([both, self._image_vector(batch).index_select(0, index)], 1)
        fused = F.relu(self.fc1(self.dropout(both)))
        return LabelOutput(self.head(self.dropout(fused)), index)

    def _image_vector(self, batch: Batch) -> Tensor:
        """One vector for each image, `(B, image_width)`."""
        if self.encoder is not None:
            return self.encoder.vector(images_of(batch))
        assert self.feature_dim is not None  # otherwise the network reads captions only
        return mean_region(batch, feature_dim=self.feature_dim, dtype=self.fc1.weight.dtype)

    def blocks(self) -> list[Block]:
        """BERT's layers with the CNN's parts distributed over them; see the class."""
        layers = list(self.body.encoder.layer)
        texts = [(f"layer {number}", layer) for number, layer in enumerate(layers, 1)]
        parts = [] if self.encoder is None else _parts(self.encoder)
        blocks: list[Block] = []
        for place, (name, layer) in enumerate(texts):
            share = parts[place * len(parts) // len(texts) : (place + 1) * len(parts) // len(texts)]
            blocks.append((name, [layer, *share]))
        blocks[0] = (f"embeddings, {blocks[0][0]}", [self.body.embeddings, *blocks[0][1]])
        blocks[-1] = (f"{blocks[-1][0]}, pooler", [*blocks[-1][1], *present(self.body.pooler)])
        return [*blocks, ("fc1", [self.fc1])]

    def last_layers(self) -> list[nn.Linear]:
        """fc1 and fc2."""
        return [self.fc1, self.head]

    def pretrained_modules(self) -> list[nn.Module]:
        """BERT and the CNN."""
        return [self.body, *present(self.encoder)]


def _parts(encoder: ImageEncoder) -> list[nn.Module]:
    """The parts of a CNN in order: its children, with lists flattened, without those that have no state."""
    parts: list[nn.Module] = []
    for child in encoder.children():
        parts += list(child) if isinstance(child, (nn.ModuleList, nn.Sequential)) else [child]
    return [part for part in parts if part.state_dict()]
