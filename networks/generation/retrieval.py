"""Captions of similar training pictures, as evidence for choosing among the captions that a search has found.

Consensus re-ranking (Devlin et al. 2015, "Exploring nearest neighbor approaches for image captioning"): pictures that
the captioner begins on in a similar state were described in a similar way.

Letters: N training images, S width of a state, K captions of each at most, L tokens of the longest, B images, I
neighbours of each.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TEMPERATURE = 0.1
"""Of the softmax over cosines; neighbours within a tenth count nearly alike."""
_BUFFERS = ("states", "token_ids", "centre", "scale")


class RetrievedCaptions(NamedTuple):
    """What others said of similar pictures.

    Attributes:
        token_ids: captions without BOS and EOS, then PAD, `(B, I, K, L)`, long; of I pictures for each of the B.
        lengths: tokens of each, `(B, I, K)`, long; 0 where there is none.
        share: weight of each picture, `(B, I)`, sums to one over the I.
    """

    token_ids: Tensor
    lengths: Tensor
    share: Tensor


class RetrievalIndex(nn.Module):
    """The training captions with a state for each image, kept in the checkpoint.

    Its size belongs to the data, so it is empty until `fill` or `resize_buffers`.
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
        """Takes the training images.

        Args:
            states: `(N, S)`, float.
            captions: tokens of the captions of each, without BOS and EOS.
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
        """Gives the buffers the size that they have in a state dict, so that it can be loaded.

        Args:
            weights: the state dict.
            prefix: of this module's names in it.
        """
        for name in _BUFFERS:
            if (saved := weights.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(saved, device=self.states.device))

    def nearest(self, states: Tensor, count: int) -> RetrievedCaptions:
        """Captions of the most similar training images, weighted by their similarity.

        Args:
            states: `(B, S)`.
            count: training images for each.
        """
        own = F.normalize((states.float() - self.centre) / self.scale, dim=1)
        cosine, index = (own @ self.states.float().T).topk(min(count, len(self.states)), dim=1)
        captions = self.token_ids[index].long()  # (B, count, K, L)
        share = (cosine / _TEMPERATURE).softmax(1) * (captions[..., 0] >= 0).any(2)
        total = share.sum(1, keepdim=True).clamp_min(1e-12)
        return RetrievedCaptions(captions.clamp_min(0), (captions >= 0).sum(3), share / total)
