"""How well captions that are known are written again: what an autoencoder of captions is scored by."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from metrics.caption_metrics import CaptionMetrics


class RewrittenCaptions(CaptionMetrics):
    """BLEU-4 and exact match of captions against the captions that they should be; others are passed over.

    Args:
        originals: name to caption.
        encode: text to tokens; captions match exactly when their tokens do.

    >>> metric = RewrittenCaptions({"1": "a dog runs", "2": "a cat"}, str.split)
    >>> metric.update(["1", "2", "3"], ["a dog runs", "a dog", "not scored"])
    >>> metric.compute()["exact"].item()
    0.5
    """

    matches: Tensor
    seen: Tensor

    def __init__(self, originals: Mapping[str, str], encode: Callable[[str], Sequence[object]]) -> None:
        super().__init__({name: [text] for name, text in originals.items()})
        self._originals = {name: encode(text) for name, text in originals.items()}
        self._encode = encode
        self.add_state("matches", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """Scores captions.

        Args:
            image_ids: their names.
            captions: as they were written.
        """
        own = [(name, text) for name, text in zip(image_ids, captions, strict=True) if name in self._originals]
        super().update([name for name, _ in own], [text for _, text in own])
        self.matches += sum(self._encode(text) == self._originals[name] for name, text in own)
        self.seen += len(own)

    def compute(self) -> dict[str, Tensor]:
        """``bleu4`` and ``exact`` in [0, 1]; the latter only when a caption was scored."""
        found = {"bleu4": super().compute()["bleu4"]}
        return {**found, "exact": self.matches / self.seen} if self.seen else found
