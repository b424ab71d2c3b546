"""Retrieval of the captions of similar training images, which reranking compares a search's captions with.

Nearest-neighbour consensus reranking (Devlin et al. 2015, "Exploring nearest neighbor approaches for image
captioning"): images for which the captioner starts in a similar state were described in a similar way.

Letters: N training images, S width of a state, K most captions of an image, L tokens of the longest one, B images, I
nearest neighbours of each.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TEMPERATURE = 0.1
"""Of the softmax over cosine similarities; differences well below it hardly matter."""
_BUFFERS = ("states", "token_ids", "centre", "scale")


class RetrievedCaptions(NamedTuple):
    """Captions of similar training images.

    Attributes:
        token_ids: captions without BOS and EOS, padded, `(B, I, K, L)`, long.
        lengths: tokens of each, `(B, I, K)`, long; 0 where there is none.
        share: weight of each training image, `(B, I)`, sums to one over I.
    """

    token_ids: Tensor
    lengths: Tensor
    share: Tensor


class RetrievalIndex(nn.Module):
    """The training captions with a state of each image, part of the checkpoint.

    Its size depends on the data, so it is empty until `fill` or `resize_buffers`.
    """

    states: Tensor
    token_ids: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("states", torch.zeros(0, 0, dtype=torch.float16))
        self.register_buffer("token_ids", torch.full((0, 0, 0), -1, dtype=torch.int32))
        self.register_buffer("centre", torch.zeros(0))
        self.register_buffer("scale", torch.ones(0))

    def fill(self, states: Tensor, captions: Sequence[Sequence[Sequence[int]]]) -> None:
        """Stores the training images.

        Args:
            states: `(N, S)`, float.
            captions: tokens of the captions of each image, without BOS and EOS.
        """
        most = max(len(rows) for rows in captions)
        longest = max(len(tokens) for rows in captions for tokens in rows)
        table = torch.full((len(captions), most, longest), -1, dtype=torch.int32)
        for image, rows in enumerate(captions):
            for number, tokens in enumerate(rows):
                table[image, number, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        self.centre, self.scale = states.mean(0), states.std(0, correction=0).clamp_min(1e-6)
        self.states = F.normalize((states - self.centre) / self.scale, dim=1).half()
        self.token_ids = table.to(states.device)

    def resize_buffers(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        """Gives the buffers the sizes of those in a state dict, so that it can be loaded.

        Args:
            weights: the state dict.
            prefix: prefix of this module's names in it.
        """
        for name in _BUFFERS:
            if (saved := weights.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(saved, device=self.states.device))

    def nearest(self, states: Tensor, count: int) -> RetrievedCaptions:
        """Captions of the most similar training images, weighted by their similarity.

        Args:
            states: `(B, S)`.
            count: training images for each image.
        """
        own = F.normalize((states.float() - self.centre) / self.scale, dim=1)
        cosine, index = (own @ self.states.float().T).topk(min(count, len(self.states)), dim=1)
        captions = self.token_ids[index].long()  # (B, count, K, L)
        share = (cosine / _TEMPERATURE).softmax(1) * (captions[..., 0] >= 0).any(2)
        total = share.sum(1, keepdim=True).clamp_min(1e-12)
        return RetrievedCaptions(captions.clamp_min(0), (captions >= 0).sum(3), share / total)
