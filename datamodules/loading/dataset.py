"""From examples to batches: reading, tokenising, collating.

Letters: B images, N captions, T tokens of the longest caption, C labels, R image regions, D their width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from core.batch import Batch
from core.seeds import derive_seed
from datamodules.loading.samplers import IndexInEpoch
from datamodules.loading.tokenization import CaptionTokenizer
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.files import FeatureStore


class Item(TypedDict, total=False):
    """One image before it is collated."""

    image: Tensor
    features: Tensor
    caption_ids: list[list[int]]
    conditions: list[int]
    references: list[str]
    image_id: str
    labels: Tensor
    scene: str


@dataclass(kw_only=True)
class CaptionDataset(Dataset[Item]):
    """Images with their captions; a pure function of (seed, epoch, index).

    Attributes:
        examples: the images of one split.
        transform: image to tensor.
        tokenizer: None when the task reads no captions.
        captions_per_image: captions drawn for each image; None = all.
        augment: random crops, seeded by (seed, epoch, index).
        seed: seed of draws and augmentation.
        features: what replaces the images, row by row; None: the images are read.
        images: False omits them, for models that read captions alone.
    """

    examples: Sequence[Example]
    transform: ImageTransform
    tokenizer: CaptionTokenizer | None = None
    captions_per_image: int | None = None
    augment: bool = False
    seed: int = 0
    features: FeatureStore | None = None
    images: bool = True

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: int | IndexInEpoch) -> Item:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        example = self.examples[index]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, index))
        item: Item = {"references": list(example.captions), "image_id": str(example.image_id)}
        if self.features is not None:
            item["features"] = self.features.regions(index)
        elif example.image is not None and self.images:
            image = example.image.open(self.transform.min_side)
            item["image"] = self.transform.augment(image, generator) if self.augment else self.transform(image)
        if self.tokenizer is not None:
            chosen = self._draw(len(example.captions), generator)
            item["caption_ids"] = [self.tokenizer.encode(example.captions[place]) for place in chosen]
            if example.conditions:
                item["conditions"] = [example.conditions[place] for place in chosen]
        if example.labels:
            item["labels"] = torch.tensor(example.labels)
        if example.image is not None and example.image.scene is not None:
            item["scene"] = example.image.scene
        return item

    def _draw(self, captions: int, generator: torch.Generator) -> Sequence[int]:
        """Draws the places of `captions_per_image` different captions; all of them when there are not more."""
        if self.captions_per_image is None or captions <= self.captions_per_image:
            return range(captions)
        places: list[int] = torch.randperm(captions, generator=generator)[: self.captions_per_image].tolist()
        return places


@dataclass(kw_only=True)
class Collate:
    """Makes a batch of items: captions flat, padded to the longest caption of the batch.

    Attributes:
        pad_id: padding after captions; None when there are no captions.
        average_token_ids: merges the captions of an image into one by averaging token ids, as published code did (a
            defect: the mean of two ids is the id of an unrelated word).
    """

    pad_id: int | None = field(default=None)
    average_token_ids: bool = False

    def __call__(self, items: list[Item]) -> Batch:
        """Collates B items."""
        batch: Batch = {
            "references": [item["references"] for item in items],
            "image_id": [item["image_id"] for item in items],
        }
        if "image" in items[0]:
            batch["image"] = torch.stack([item["image"] for item in items])
        if "features" in items[0]:
            rows = [item["features"] for item in items]
            batch["features"] = stack_features(rows)
            counts = torch.tensor([len(row) for row in rows])
            batch["feature_mask"] = torch.arange(batch["features"].shape[1]) < counts.unsqueeze(1)
        if "labels" in items[0]:
            batch["labels"] = torch.stack([item["labels"] for item in items])
        if "scene" in items[0]:
            batch["scene"] = [item["scene"] for item in items]
        if self.pad_id is not None:
            texts = [item["caption_ids"] for item in items]
            if self.average_token_ids:
                texts = [[averaged_ids(ids)] if ids else [] for ids in texts]
            if any("conditions" in item for item in items) and not self.average_token_ids:
                found = [item.get("conditions") or [-1] * len(item["caption_ids"]) for item in items]
                batch["condition"] = torch.tensor([label for labels in found for label in labels], dtype=torch.long)
            captions = [torch.tensor(ids) for ids_of_item in texts for ids in ids_of_item]
            counts = torch.tensor([len(ids_of_item) for ids_of_item in texts])
            batch["image_index"] = torch.repeat_interleave(torch.arange(len(items)), counts)
            batch["caption_lengths"] = torch.tensor([len(ids) for ids in captions], dtype=torch.long)
            batch["caption_ids"] = (
                pad_sequence(captions, batch_first=True, padding_value=self.pad_id)
                if captions
                else torch.zeros(0, 2, dtype=torch.long)  # images without captions, to be captioned
            )
        return batch


def stack_features(rows: list[Tensor]) -> Tensor:
    """Rows `(r, D)` of half precision as `(B, R, D)` float32, R the longest; what is missing is zero."""
    most = max(len(row) for row in rows)
    same = all(len(row) == most for row in rows)
    features = (torch.empty if same else torch.zeros)(len(rows), most, *rows[0].shape[1:])
    for place, row in zip(features, rows, strict=True):
        place[: len(row)].copy_(row)
    return features


def averaged_ids(captions: Sequence[Sequence[int]]) -> list[int]:
    """One caption of the mean token ids of several, rounded down, as long as the shortest.

    The published code also averaged the masks of the padded captions and rounded them down, so that only places where
    all captions have a token count; these are the ones that are kept here.

    >>> averaged_ids([[101, 10, 20, 102], [101, 13, 102]])
    [101, 11, 61]
    """
    return [sum(ids) // len(ids) for ids in zip(*captions, strict=False)]
