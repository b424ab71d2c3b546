"""A batch with pictures, captions and features, and small networks of every architecture."""

import torch

from core.batch import Batch
from networks.emotion.base import EmotionNetwork
from networks.emotion.build import Architecture, build_emotion_network

SMALL = {
    "layers": 3,
    "heads": 2,
    "bert_dim": 16,
    "word_dim": 12,
    "hidden_dim": 8,
    "convolutions": [4, 8, 8],
    "fusion_dim": 10,
    "buckets": 128,
}
LABELS = 5


def make_batch(features: bool = False) -> Batch:
    """Three pictures, four captions."""
    generator = torch.Generator().manual_seed(0)
    batch: Batch = {
        "caption_ids": torch.tensor([[1, 5, 6, 2], [1, 5, 2, 0], [1, 7, 8, 2], [1, 4, 2, 0]]),
        "caption_lengths": torch.tensor([4, 3, 4, 3]),
        "image_index": torch.tensor([0, 0, 1, 2]),
        "image_id": ["a", "b", "c"],
        "references": [["a dog", "the dog"], ["cat"], ["red bird sits"]],
    }
    if features:
        batch["features"] = torch.randn(3, 6, 7, generator=generator)
        batch["feature_mask"] = torch.arange(6) < torch.tensor([[6], [4], [1]])
    else:
        batch["image"] = torch.randn(3, 3, 64, 64, generator=generator)
    return batch


def make_network(architecture: Architecture, **changes: object) -> EmotionNetwork:
    """A network that takes `make_batch`."""
    encoder = "small-conv" if architecture in ("visual_bert", "bert_resnet") else None
    if changes.get("feature_dim") or changes.get("use_image") is False:
        encoder = None
    settings = {**SMALL, "image_encoder": encoder, **changes}
    return build_emotion_network(architecture, num_labels=LABELS, vocab_size=20, pad_id=0, **settings)[0]  # type: ignore[arg-type]
