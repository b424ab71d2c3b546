"""Types and helpers for captions as sequences of tokens, shared by decoders, generation and captioners.

Letters: B rows (images, or images times beams), N captions, T tokens of the longest caption, M scored target tokens,
V vocabulary, R image regions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Memory = dict[str, Tensor]
"""What a decoder reads of the images; every tensor has B rows first."""

State = dict[str, Tensor]
"""What a decoder carries from token to token (recurrent state, key-value cache); every tensor has B rows first."""


def on_host(tensor: Tensor) -> list[Any]:
    """The values of a tensor as plain lists; those of a GPU are copied once, since every copy waits for it."""
    if tensor.device.type == "cpu":
        return list(tensor.tolist())
    version = None if tensor.is_inference() else tensor._version
    known: tuple[int | None, list[Any]] | None = getattr(tensor, "_on_host", None)
    if known is None or known[0] != version:
        return list(known_on_host(tensor, tensor.tolist())._on_host[1])  # type: ignore[attr-defined]  # set there
    return known[1]


def known_on_host(tensor: Tensor, values: list[Any]) -> Tensor:
    """Notes the values of a tensor for `on_host`, so that nothing has to be copied from a GPU; returns the tensor."""
    version = None if tensor.is_inference() else tensor._version
    tensor._on_host = (version, values)  # type: ignore[attr-defined]  # goes with the tensor
    return tensor


def on_device(values: list[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of plain values on a device, for which the host does not wait."""
    return known_on_host(torch.tensor(values, dtype=dtype).to(device, non_blocking=True), values)


def steps_of(caption_lengths: Tensor) -> Tensor:
    """Time steps of captions, one less than their tokens: the last one, EOS, is a target but never read; `(N,)`."""
    return known_on_host(caption_lengths - 1, [length - 1 for length in on_host(caption_lengths)])


@dataclass(kw_only=True)
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


def target_places(caption_lengths: Tensor, max_length: int) -> Tensor:
    """Where `target_mask` is True, counted through its rows: `(M,)` long, in order.

    >>> target_places(torch.tensor([2, 3]), 3).tolist()
    [0, 2, 3]
    """
    return true_places(target_mask(caption_lengths, max_length), sum(on_host(caption_lengths)) - len(caption_lengths))


def true_places(mask: Tensor, count: int) -> Tensor:
    """Where a mask is True, counted through its rows: `(count,)` long, in order; the host does not wait for a GPU.

    Args:
        mask: `(N, S)`, bool.
        count: how many are.
    """
    return torch.nonzero_static(mask.flatten(), size=count).squeeze(1)


def targets_of(caption_ids: Tensor, caption_lengths: Tensor) -> Tensor:
    """The real targets of captions `(N, T)` in row-major order, `(M,)`, long.

    >>> targets_of(torch.tensor([[0, 5, 1], [0, 1, 2]]), torch.tensor([3, 2])).tolist()
    [5, 1, 1]
    """
    return caption_ids[:, 1:].flatten().index_select(0, target_places(caption_lengths, caption_ids.shape[1]))
