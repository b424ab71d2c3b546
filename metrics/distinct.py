"""How many different captions a captioner writes."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class DistinctCaptions(Metric):
    """Number of different captions among those given, as written; processes are joined.

    >>> metric = DistinctCaptions()
    >>> metric.update(["a dog", "a dog", "two cats"])
    >>> int(metric.compute())
    2
    """

    is_differentiable = False
    full_state_update = False
    keys: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("keys", [], dist_reduce_fx="cat")

    def update(self, captions: Sequence[str]) -> None:
        """Takes captions."""
        if captions and isinstance(self.keys, list):
            digests = [hashlib.blake2b(text.encode(), digest_size=7).digest() for text in captions]
            self.keys.append(torch.tensor([int.from_bytes(digest) for digest in digests], device=self.device))

    def compute(self) -> Tensor:
        """The number, float32."""
        keys = torch.cat(self.keys) if isinstance(self.keys, list) and self.keys else self.keys
        return torch.tensor(float(len(torch.unique(keys))) if isinstance(keys, Tensor) else 0.0, device=self.device)
