"""A loss on the words of an image's captions, whatever their order (bag of words).

Predicting the words directly uses all captions of an image at once. Fang et al. 2015 ("From captions to visual concepts
and back") and Wu et al. 2016 ("What value do explicit high level concepts have in vision to language problems?") detect
such words in a first stage.

Letters: B images, N captions, T tokens of the longest one, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch


def word_shares(batch: Batch, images: int, vocab_size: int) -> Tensor:
    """Share of an image's captions in the batch that contain each word.

    Args:
        batch: with captions; EOS counts, BOS and padding do not.
        images: B.
        vocab_size: V.

    Returns:
        `(B, V)`, float32 in [0, 1]; a row of zeros where an image has no caption.
    """
    ids, lengths, index = batch["caption_ids"], batch["caption_lengths"], batch["image_index"]
    real = torch.arange(1, ids.shape[1], device=ids.device) < lengths.unsqueeze(1)  # (N, T - 1)
    present = torch.zeros(len(ids), vocab_size, device=ids.device)
    present.scatter_reduce_(1, ids[:, 1:], real.to(present.dtype), reduce="amax")
    total = torch.zeros(images, vocab_size, device=ids.device).index_add_(0, index, present)
    counts = torch.zeros(images, device=ids.device).index_add_(0, index, torch.ones_like(index, dtype=torch.float32))
    return total / counts.clamp_min(1).unsqueeze(1)


def word_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy of every word, summed over the words and averaged over the images; a scalar.

    Args:
        logits: `(B, V)`.
        shares: `(B, V)` in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(logits.float(), shares, reduction="sum") / max(1, len(shares))
