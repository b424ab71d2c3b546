"""Students lighter or heavier than the teacher: two towers, for words and for the picture, and a fusion of both.

Letters: B images, N captions, T tokens, C labels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import BertConfig

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.base import LabelOutput
from networks.emotion.base import (
    Block,
    EmotionNetwork,
    caption_rows,
    image_regions,
    length_mask,
    masked_mean,
    picture_of,
    present,
)
from networks.emotion.bert import build_bert
from networks.encoders.build import ImageEncoder
from networks.layers.checkpointing import runner


class LightStudent(EmotionNetwork):
    """BERT's word embeddings -> GRU, beside strided convolutions -> average pool; concatenated -> fc1, ReLU -> fc2.

    It gives logits; the published one ended in a sigmoid that its loss applied once more. Convolutions have BatchNorm
    and ReLU.

    Blocks, counted from the input, both towers at once: (1) word embeddings and first convolution; (2) GRU and second
    convolution; (3 ..) one further convolution each; (last) fc1. The head is fc2. With stored features in the place
    of pictures, or captions only: (1) word embeddings, (2) GRU, (3) fc1.

    Args:
        num_labels: C.
        vocab_size: tokens.
        pad_id: filling.
        word_dim: width of the word embeddings (BERT: 768).
        hidden_dim: width of the GRU (published: 256).
        convolutions: widths of the convolutions, 3 x 3 with stride 2, at least two.
        fusion_dim: outputs of fc1.
        dropout: of words, before fc1 and before fc2.
        use_image: look at the picture at all.
        feature_dim: width of stored features, which replace the convolutions; None: batches have pictures.
        gradient_checkpointing: recompute each convolution in the backward pass.

    Raises:
        UserError: fewer than two convolutions.
    """

    def __init__(
        self,
        num_labels: int,
        vocab_size: int,
        pad_id: int,
        word_dim: int = 768,
        hidden_dim: int = 256,
        convolutions: Sequence[int] = (32, 64, 128, 256),
        fusion_dim: int = 256,
        dropout: float = 0.1,
        use_image: bool = True,
        feature_dim: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(convolutions) < 2:
            raise UserError(f"convolutions is {list(convolutions)}: expected at least two widths")
        self.num_labels, self.use_image, self.reads_features = num_labels, use_image, feature_dim is not None
        self.words = nn.Embedding(vocab_size, word_dim, padding_idx=pad_id)
        self.gru = nn.GRU(word_dim, hidden_dim, batch_first=True)
        widths = [3, *convolutions] if use_image and feature_dim is None else []
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
            for before, after in pairwise(widths)
        )
        image_width = (feature_dim or convolutions[-1]) if use_image else 0
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(hidden_dim + image_width, fusion_dim)
        self.head = nn.Linear(fusion_dim, num_labels)
        self._run = runner(gradient_checkpointing)

    def _read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The GRU's state behind the last word: `(N, T)` to `(N, hidden_dim)`."""
        packed = pack_padded_sequence(self.dropout(self.words(ids)), lengths.cpu(), True, enforce_sorted=False)
        _, state = self.gru(packed)
        read: Tensor = state[-1]
        return read

    def _look(self, batch: Batch) -> Tensor:
        """One vector for each picture, `(B, image_width)`."""
        if self.reads_features:
            return masked_mean(*image_regions(batch, None))
        features = picture_of(batch).contiguous(memory_format=torch.channels_last)
        for layer in self.convolutions:
            features = self._run(layer, features)
        return F.adaptive_avg_pool2d(features, 1).flatten(1)

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption with its picture: M = N rows."""
        ids, lengths, index = caption_rows(batch)
        read = self._read(ids, lengths)
        both = torch.cat([read, self._look(batch).index_select(0, index)], 1) if self.use_image else read
        fused = F.relu(self.fc1(self.dropout(both)))
        return LabelOutput(self.head(self.dropout(fused)), index)

    def blocks(self) -> list[Block]:
        """Both towers at once; see the class."""
        texts: list[tuple[str, nn.Module]] = [("words", self.words), ("GRU", self.gru)]
        images = [(f"convolution {number}", layer) for number, layer in enumerate(self.convolutions, 1)]
        return [*_side_by_side(texts, images), ("fc1", [self.fc1])]

    def last_layers(self) -> list[nn.Linear]:
        """fc1 and fc2."""
        return [self.fc1, self.head]

    def pretrained_modules(self) -> list[nn.Module]:
        """The word embeddings."""
        return [self.words]


class BertResNetStudent(EmotionNetwork):
    """BERT for the caption, a CNN (published: ResNet-50) for the picture; concatenated -> fc1, ReLU -> fc2.

    Blocks, counted from the input: the encoder layers of BERT, the first with its embeddings, the last with its
    pooler; the CNN's children are spread evenly over them, in order; (last) fc1. The head is fc2.

    Args:
        config: sizes of BERT, see `networks.emotion.bert.bert_config`.
        num_labels: C.
        encoder: the CNN; None: the mean of the features that batches bring, or captions only.
        feature_dim: width of these features; None: captions only, unless there is a CNN.
        fusion_dim: outputs of fc1.
        dropout: before fc1 and before fc2.
        gradient_checkpointing: recompute BERT's layers in the backward pass (the CNN's: see its builder).
    """

    def __init__(
        self,
        config: BertConfig,
        num_labels: int,
        encoder: ImageEncoder | None = None,
        feature_dim: int | None = None,
        fusion_dim: int = 256,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.body = build_bert(config, gradient_checkpointing)
        self.encoder = encoder
        self.use_image = encoder is not None or feature_dim is not None
        image_width = encoder.vector_dim if encoder is not None else feature_dim or 0
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(config.hidden_size + image_width, fusion_dim)
        self.head = nn.Linear(fusion_dim, num_labels)

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption with its picture: M = N rows."""
        ids, lengths, index = caption_rows(batch)
        mask = length_mask(lengths, ids.shape[1]).long()
        both = self.body(input_ids=ids, attention_mask=mask).pooler_output
        if self.use_image:
            both = torch.cat([both, self._look(batch).index_select(0, index)], 1)
        fused = F.relu(self.fc1(self.dropout(both)))
        return LabelOutput(self.head(self.dropout(fused)), index)

    def _look(self, batch: Batch) -> Tensor:
        """One vector for each picture, `(B, image_width)`."""
        if self.encoder is not None:
            return self.encoder.vector(picture_of(batch))
        return masked_mean(*image_regions(batch, None))

    def blocks(self) -> list[Block]:
        """BERT's layers with the CNN's parts spread over them; see the class."""
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
    """The parts of a CNN in order: its children, lists taken apart, those without a state left out."""
    parts: list[nn.Module] = []
    for child in encoder.children():
        parts += list(child) if isinstance(child, (nn.ModuleList, nn.Sequential)) else [child]
    return [part for part in parts if part.state_dict()]


def _side_by_side(texts: list[tuple[str, nn.Module]], images: list[tuple[str, nn.Module]]) -> list[Block]:
    """Layers of two towers at the same depth make one block."""
    blocks: list[Block] = []
    for depth in range(max(len(texts), len(images))):
        both = [*texts[depth : depth + 1], *images[depth : depth + 1]]
        blocks.append((", ".join(name for name, _ in both), [layer for _, layer in both]))
    return blocks
