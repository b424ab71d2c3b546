"""Retrieval of captions by images: how often a caption of the image is among the nearest.

Letters: n images, m different captions, D code width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

KS = (1, 5, 10)


def recall_at(similarity: Tensor, relevant: Tensor, ks: Sequence[int] = KS) -> dict[int, float]:
    """Share of images that have one of their captions among the k most similar.

    Of equally similar captions the image's own count as the last: codes that have all become the same find nothing.

    Args:
        similarity: similarity of images and captions, `(n, m)`.
        relevant: True where the caption belongs to the image, `(n, m)`; images without any are ignored.
        ks: ranks.

    Returns:
        k to a share in [0, 1]; NaN without images.

    >>> recall_at(torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.4, 0.4]]), torch.eye(2, 3).bool(), (1, 2))
    {1: 0.5, 2: 1.0}
    """
    known = relevant.any(dim=1)
    similarity, relevant = similarity[known], relevant[known]
    best = similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True) if len(similarity) else similarity
    before = ((similarity >= best) & ~relevant).sum(dim=1)
    return {k: (before < k).float().mean().item() for k in ks}


class CodeRetrieval(Metric):
    """Collects codes of images and captions of a split and tells how well one finds the other, by cosine.

    Captions that stand verbatim under several images are one caption, which belongs to all of them. The state has a
    row for every image and caption, so that under distributed training nothing counts twice.

    Args:
        captions: image id to the ids of its captions, all tokens that a model sees.
        code_dim: D.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    images: Tensor
    sentences: Tensor

    def __init__(self, captions: dict[str, list[tuple[int, ...]]], code_dim: int) -> None:
        super().__init__()
        self._image_rows = {name: row for row, name in enumerate(captions)}
        texts = dict.fromkeys(text for own in captions.values() for text in own)
        self._text_rows = {text: row for row, text in enumerate(texts)}
        self._pairs = [
            (self._image_rows[name], self._text_rows[text]) for name, own in captions.items() for text in own
        ]
        # reduced by the maximum: what a process has not seen is minus infinity
        for name, size in (("images", len(captions)), ("sentences", len(texts))):
            self.add_state(name, torch.full((size, code_dim), -torch.inf), dist_reduce_fx="max")

    def update(
        self, image_ids: Sequence[str], image_codes: Tensor, captions: Sequence[tuple[int, ...]], codes: Tensor
    ) -> None:
        """Takes codes of B images `(B, D)` and N captions `(N, D)`."""
        if image_ids:
            rows = torch.tensor([self._image_rows[name] for name in image_ids], device=self.images.device)
            self.images[rows] = image_codes.detach().float()
        if captions:
            rows = torch.tensor([self._text_rows[text] for text in captions], device=self.images.device)
            self.sentences[rows] = codes.detach().float()

    def nearest(self, image_ids: Sequence[str], count: int) -> list[list[tuple[tuple[int, ...], bool]]]:
        """The captions whose codes are nearest to those of some images, by cosine.

        Args:
            image_ids: images whose codes were seen.
            count: captions per image.

        Returns:
            For each image, captions as token ids with whether they are its own, the nearest first.
        """
        rows = torch.tensor([self._image_rows[name] for name in image_ids], device=self.images.device)
        known = self.sentences[:, 0] > -torch.inf
        sentences = F.normalize(self.sentences.masked_fill(~known.unsqueeze(1), 0.0), dim=1)
        cosines = (F.normalize(self.images[rows], dim=1) @ sentences.t()).masked_fill(~known, -torch.inf)
        texts, pairs = list(self._text_rows), set(self._pairs)
        best = cosines.topk(min(count, int(known.sum())), dim=1).indices
        return [
            [(texts[text], (row, text) in pairs) for text in own]
            for row, own in zip(rows.tolist(), best.tolist(), strict=True)
        ]

    def codes(self) -> tuple[list[str], Tensor, Tensor]:
        """Ids of the images seen, their codes, and the codes of the captions seen."""
        seen, told = (rows[:, 0] > -torch.inf for rows in (self.images, self.sentences))
        names = [name for name, there in zip(self._image_rows, seen.tolist(), strict=True) if there]
        return names, self.images[seen], self.sentences[told]

    def compute(self) -> dict[str, Tensor]:
        """`recall_at_1`, `recall_at_5` and `recall_at_10`: image to caption, in [0, 1]."""
        relevant = torch.zeros(len(self.images), len(self.sentences), dtype=torch.bool)
        if self._pairs:
            relevant[tuple(torch.tensor(self._pairs).t())] = True
        seen, told = (rows[:, 0].cpu() > -torch.inf for rows in (self.images, self.sentences))
        images, sentences = (F.normalize(codes, dim=1) for codes in self.codes()[1:])
        found = recall_at((images @ sentences.t()).cpu(), relevant[seen][:, told])
        return {f"recall_at_{k}": torch.tensor(value) for k, value in found.items()}
