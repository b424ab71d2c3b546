"""The light network: a GRU for the caption and a small CNN for the image.

Letters: B images, N captions, T tokens, C labels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from networks.classifiers.base import LabelOutput
from networks.emotion.base import Block, EmotionNetwork, caption_rows
from networks.encoders.source import images_of, mean_region
from networks.layers.checkpointing import Runner
from networks.layers.recurrent import packed, run_layers
from networks.layers.sequences import on_host


class LightStudent(EmotionNetwork):
    """BERT's word embeddings -> GRU, beside strided convolutions -> average pool; concatenated -> fc1, ReLU -> fc2.

    The outputs are logits; the published network ended in a sigmoid, which its loss applied a second time.
    Convolutions have BatchNorm and ReLU.

    Blocks, counted from the input, each with layers for text and image: (1) word embeddings and first convolution; (2)
    GRU and second convolution; (3 ..) one further convolution each; (last) fc1. The head is fc2. With stored features
    instead of images, or captions only: (1) word embeddings, (2) GRU, (3) fc1.

    Args:
        num_labels: C.
        vocab_size: tokens.
        pad_id: padding token.
        word_dim: width of the word embeddings (BERT: 768).
        hidden_dim: width of the GRU (published: 256).
        convolutions: widths of the convolutions, 3 x 3 with stride 2, at least two.
        fusion_dim: outputs of fc1.
        dropout: dropout probability of words, before fc1 and before fc2.
        use_image: read images or features; False: captions only.
        feature_dim: width of stored features, which replace the convolutions; None: batches have images.
        gradient_checkpointing: recompute the GRU and each convolution in the backward pass.

    Raises:
        UserError: fewer than two convolutions.
    """

    def __init__(
        self,
        *,
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
        self.num_labels, self.use_image, self.feature_dim = num_labels, use_image, feature_dim
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
        self._run = Runner(gradient_checkpointing)

    def _read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The GRU's state after the last word: `(N, T)` to `(N, hidden_dim)`."""
        _, (state,) = run_layers(self.gru, packed(self.dropout(self.words(ids)), on_host(lengths)))
        return state[-1]

    def _image_vector(self, batch: Batch) -> Tensor:
        """One vector for each image, `(B, image_width)`."""
        if self.feature_dim is not None:
            return mean_region(batch, feature_dim=self.feature_dim, dtype=self.fc1.weight.dtype)
        features = images_of(batch).contiguous(memory_format=torch.channels_last)
        for layer in self.convolutions:
            features = self._run(layer, features)
        return F.adaptive_avg_pool2d(features, 1).flatten(1)

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption with its image: M = N rows."""
        ids, lengths, index = caption_rows(batch)
        read = self._run(self._read, ids, lengths)
        both = torch.cat([read, self._image_vector(batch).index_select(0, index)], 1) if self.use_image else read
        fused = F.relu(self.fc1(self.dropout(both)))
        return LabelOutput(self.head(self.dropout(fused)), index)

    def blocks(self) -> list[Block]:
        """Layers of text and image side by side; see the class."""
        texts: list[tuple[str, nn.Module]] = [("words", self.words), ("GRU", self.gru)]
        images = [(f"convolution {number}", layer) for number, layer in enumerate(self.convolutions, 1)]
        return [*_paired(texts, images), ("fc1", [self.fc1])]

    def last_layers(self) -> list[nn.Linear]:
        """fc1 and fc2."""
        return [self.fc1, self.head]

    def pretrained_modules(self) -> list[nn.Module]:
        """The word embeddings."""
        return [self.words]


def _paired(texts: list[tuple[str, nn.Module]], images: list[tuple[str, nn.Module]]) -> list[Block]:
    """Blocks of the layers at the same depth in two lists."""
    blocks: list[Block] = []
    for depth in range(max(len(texts), len(images))):
        both = [*texts[depth : depth + 1], *images[depth : depth + 1]]
        blocks.append((", ".join(name for name, _ in both), [layer for _, layer in both]))
    return blocks
