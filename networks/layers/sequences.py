"""Types and helpers for captions as sequences of tokens, shared by decoders, generation and captioners.

Letters: B rows (images, or images times beams), N captions, T tokens of the longest caption, M scored target tokens,
V vocabulary, R image regions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Memory = dict[str, Tensor]
"""What a decoder reads of the images; every tensor has B rows first."""

State = dict[str, Tensor]
"""What a decoder carries from token to token (recurrent state, key-value cache); every tensor has B rows first."""


@dataclass
class CaptionOutput:
    """Result of a teacher-forced pass over N captions.

    Attributes:
        logits: scores of the next token at every scored position, `(M, V)`, in row-major order of the captions.
        targets: the tokens to be predicted there, `(M,)`, long.
        attention: weights over the regions at every time step, `(N, T - 1, R)`, zero after a caption's end, or None
            when the model does not attend to regions.
    """

    logits: Tensor
    targets: Tensor
    attention: Tensor | None = None


def select_rows(tensors: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """Picks rows of every tensor of a memory or state: row i of the result is row ``index[i]``."""
    return {name: tensor.index_select(0, index) for name, tensor in tensors.items()}


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """True where a token is real: lengths `(N,)` to `(N, width)`, bool.

    >>> length_mask(torch.tensor([2, 3]), 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def target_mask(caption_lengths: Tensor, max_length: int) -> Tensor:
    """Marks the positions with a real target.

    Args:
        caption_lengths: tokens with BOS and EOS, `(N,)`.
        max_length: T, tokens of the longest caption.

    Returns:
        `(N, T - 1)` bool: position t is True when token t + 1 is a word or EOS of the caption.

    >>> target_mask(torch.tensor([2, 3]), 3).tolist()
    [[True, False], [True, True]]
    """
    return length_mask(caption_lengths - 1, max_length - 1)


def targets_of(caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
    """The real targets of captions `(N, T)` in row-major order, `(M,)`, long.

    >>> targets_of(torch.tensor([[0, 5, 1], [0, 1, 2]]), torch.tensor([3, 2])).tolist()
    [5, 1, 1]
    """
    return caption_ids[:, 1:][target_mask(caption_lengths, caption_ids.shape[1])]
