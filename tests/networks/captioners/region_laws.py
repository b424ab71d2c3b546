"""Laws of every captioner that attends to regions, and the tiny batches that they are checked on."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch
from networks.captioners.base import Captioner

BOS, EOS, PAD, V, C, R = 0, 1, 2, 23, 10, 9
LENGTHS = [4, 7, 2, 7, 3]
IMAGES = torch.tensor([2, 0, 0, 1, 2])


def features(images: int = 3, masked: bool = False) -> Batch:
    """Random regions, (B, R, C); with a mask, every image keeps at least one."""
    batch: Batch = {"features": torch.randn(images, R, C)}
    if masked:
        batch["feature_mask"] = torch.rand(images, R) < 0.5
        batch["feature_mask"][:, 4] = True
    return batch


def captions(lengths: list[int] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random captions with BOS, EOS and PAD, and their lengths."""
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(ids, lengths, strict=True):
        row[: length - 1] = torch.randint(3, V, (length - 1,))
        row[0], row[length - 1] = BOS, EOS
    return ids, torch.tensor(lengths)


def check_attention_sums_to_one(captioner: Captioner) -> None:
    """Over the real regions, in every step until the caption ends; zero afterwards and on masked regions."""
    batch = features(masked=True)
    memory = captioner.encode(batch)
    ids, lengths = captions()
    attention = captioner(memory, ids, lengths, IMAGES).attention
    assert attention.shape == (5, 6, R)
    real = torch.arange(6) < (lengths - 1).unsqueeze(1)
    torch.testing.assert_close(attention.sum(2), real.float())
    assert (attention.transpose(1, 2)[~batch["feature_mask"][IMAGES]] == 0).all()
    maps = captioner.attention_maps(memory, ids, lengths, IMAGES)
    assert torch.equal(maps, attention)
    assert not maps.requires_grad


def check_padding_does_not_matter(captioner: Captioner, **tolerance: float) -> None:
    """Neither what stands behind a caption's end nor what a masked region holds, NaN included, changes a number."""
    batch = features(masked=True)
    ids, lengths = captions()
    expected = captioner(captioner.encode(batch), ids, lengths, IMAGES)
    wider = F.pad(ids, (0, 3), value=PAD)
    wider[torch.arange(wider.shape[1]) >= lengths.unsqueeze(1)] = 7
    batch["features"] = batch["features"].masked_fill(~batch["feature_mask"].unsqueeze(2), math.nan)
    output = captioner(captioner.encode(batch), wider, lengths, IMAGES)
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(output.logits, expected.logits, **tolerance)
    assert torch.equal(output.targets, expected.targets)
    torch.testing.assert_close(output.attention[:, :6], expected.attention, **tolerance)
    assert (output.attention[:, 6:] == 0).all()
