"""What replaces the images of a data set in its batches: features of a frozen encoder, or region files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.cache import default_cache_dir
from core.errors import UserError
from datamodules.readers.records import Example, Problem
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.regions import RegionFiles, open_regions
from datamodules.stored_features.store import EncoderSpec, FrozenFeatures


@dataclass(kw_only=True)
class FeatureSource:
    """Features in place of images; none when neither an encoder nor region files are given.

    Attributes:
        root: folder of the data set.
        transform: image to tensor.
        encoder: name of a frozen encoder.
        encoder_weights: its weights.
        regions: region files, a folder or a TSV.

    Raises:
        UserError: both are given, or weights without an encoder.
    """

    root: Path
    transform: ImageTransform
    encoder: str | None = None
    encoder_weights: str | None = None
    regions: str | None = None

    def __post_init__(self) -> None:
        if self.encoder is None and self.encoder_weights is not None:
            raise UserError(f"encoder_weights is {self.encoder_weights!r} without an encoder: name the encoder too")
        if self.encoder is not None and self.regions is not None:
            raise UserError(
                f"regions is {self.regions!r} and encoder is {self.encoder!r}: region features replace the images; "
                "set one of the two to null"
            )

    def __bool__(self) -> bool:
        return self.encoder is not None or self.regions is not None

    def refuse_augmentation(self) -> None:
        """Stops a data module that augments images whose features are computed once.

        Raises:
            UserError: there are features.
        """
        if self.encoder is not None:
            raise UserError("augment is true with an encoder: its features are computed once; set one of the two off")
        if self.regions is not None:
            raise UserError(
                f"regions is {self.regions!r} and augment is true: region features replace the images; set one off"
            )

    @cached_property
    def shape(self) -> tuple[int, tuple[int, int]]:
        """Width of the features, and rows and columns of their grid; boxes make one row."""
        frozen = self.frozen()
        return self.region_files().shape() if frozen is None else frozen.shape()

    def store(self, examples: Sequence[Example], num_workers: int) -> FeatureStore:
        """Opens the features of some images, in their order; computes them first if they are not stored.

        Raises:
            UserError: no room on the disk, or the encoder cannot be built.
            DataError: an image cannot be decoded, or has no regions.
        """
        frozen = self.frozen(num_workers)
        if frozen is not None:
            return frozen.store(examples)
        return self.region_files().store(examples, default_cache_dir() / "features")

    def frozen(self, num_workers: int = 0) -> FrozenFeatures | None:
        """The frozen encoder; None when there is none."""
        if self.encoder is None:
            return None
        encoder = EncoderSpec.of(self.encoder, self.encoder_weights)
        return FrozenFeatures(
            encoder=encoder,
            transform=self.transform,
            output="grid",
            cache_dir=default_cache_dir() / "features",
            num_workers=num_workers,
        )

    def region_files(self) -> RegionFiles:
        """The region files, which must be given."""
        assert self.regions is not None
        return open_regions(self.regions, self.root, default_cache_dir())

    def check(self, examples: Sequence[Example]) -> tuple[list[Problem], list[str]]:
        """Problems and notes for ``data check``: images without region features."""
        if self.regions is None:
            return [], []
        missing = self.region_files().missing(examples)
        return missing, [f"regions: width {self.shape[0]}, {len(examples) - len(missing)} of {len(examples)} images"]

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs: the encoder, or what the regions were."""
        frozen = self.frozen()
        facts: dict[str, Any] = {}
        if frozen is not None:
            facts["encoder"] = frozen.encoder.to_json()
        if self.regions is not None:
            facts["regions"] = {"files": self.regions, "width": self.shape[0]}
        return facts
