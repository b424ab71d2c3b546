"""What every data module of captioned pictures has in common."""

import os
from abc import abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from core.errors import DataError, UserError
from core.seeds import global_seed
from datamodules.loading.dataset import CaptionDataset, Collate, Example, Item
from datamodules.loading.resume import LateLoader, training_position
from datamodules.loading.samplers import ChosenSampler, EpochSampler, IndexInEpoch
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer, build_tokenizer
from datamodules.readers.images import ImageTransform, Normalization, open_image
from datamodules.readers.records import Problem
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.regions import RegionFiles, open_regions
from datamodules.stored_features.store import EncoderSpec, FrozenFeatures, image_stamp

Split = Literal["train", "val", "test"]


def default_cache_dir() -> Path:
    """Folder of files that can be made again: $CAPTION_CACHE, else ``captioners`` in the user's cache folder."""
    if "CAPTION_CACHE" in os.environ:
        return Path(os.environ["CAPTION_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "captioners"


class CaptionDataModule(LightningDataModule):
    """Loaders, tokenisation and facts; a subclass says where the examples come from (`load_examples`).

    Args:
        root: folder of the data set.
        tokenizer: "word" for a vocabulary of the training captions; a hub id or local folder of a tokeniser; or a run
            folder or checkpoint, for the tokeniser of that run as it is.
        min_count: words seen less often in training are unknown (word vocabulary only).
        max_tokens: longest caption in tokens with BOS and EOS; longer ones are cut.
        batch_size: images per batch and process.
        captions_per_image: captions of each training image that come along, drawn anew every epoch; None = all.
        num_workers: loader processes; 0 = the main process.
        image_size: height and width of the pictures, pixels.
        normalization: colour scale, as the image tower's weights expect it.
        augment: random crops in training.
        on_bad_image: "error" stops at a picture that does not decode; "skip" looks at all pictures first, leaves
            the bad ones out, counts and lists them.
        evaluate_on: split that validate, test and predict read instead of their own.
        encoder: a frozen image tower (see `networks.encoders.build.build_encoder`) whose features are computed once
            and take the place of the pictures in all batches; None: batches have the pictures.
        encoder_weights: its weights, as `build_encoder` takes them.
        regions: region features from files in place of the pictures: a folder of .npz, one a picture, or a TSV as
            bottom-up attention writes it (see `datamodules.stored_features.regions`).
        average_token_ids: the published defect of emotion transfer: the captions of an image are merged into one by
            averaging their token *ids*, which gives the ids of unrelated words. Only to repeat the paper.

    Raises:
        UserError: a number is out of range, `augment` with a frozen encoder, whose features are computed once, or
            both an encoder and region files.
    """

    has_scenes = False
    """True when the pictures are synthetic scenes, whose description goes into the batch."""
    has_pictures = True
    """False when batches have captions alone, although there are pictures."""
    predicted: Callable[[], Collection[str]] | None = None
    """Gives the ids of images that an interrupted prediction has done; asked when the model is loaded."""

    def __init__(
        self,
        root: str = "",
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 36,
        batch_size: int = 8,
        captions_per_image: int | None = None,
        num_workers: int = 2,
        image_size: int = 224,
        normalization: Normalization = "imagenet",
        augment: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        evaluate_on: Split | None = None,
        encoder: str | None = None,
        encoder_weights: str | None = None,
        regions: str | None = None,
        average_token_ids: bool = False,
    ) -> None:
        super().__init__()
        least = {"batch_size": (batch_size, 1), "min_count": (min_count, 1), "num_workers": (num_workers, 0)}
        for name, (value, limit) in {**least, "captions_per_image": (captions_per_image, 1)}.items():
            if value is not None and value < limit:
                raise UserError(f"{name} is {value}: expected at least {limit}")
        self.root = Path(root)
        self.tokenizer_name, self.min_count, self.max_tokens = tokenizer, min_count, max_tokens
        self.batch_size, self.captions_per_image, self.num_workers = batch_size, captions_per_image, num_workers
        self.transform = ImageTransform(image_size, normalization)
        self.augment = augment
        self.on_bad_image = on_bad_image
        self.evaluate_on = evaluate_on
        if encoder is None and encoder_weights is not None:
            raise UserError(f"encoder_weights is {encoder_weights!r} without an encoder: name the encoder too")
        if encoder is not None and augment:
            raise UserError("augment is true with an encoder: its features are computed once; set one of the two off")
        if regions is not None and (encoder is not None or augment):
            other = "augment is true" if encoder is None else f"encoder is {encoder!r}"
            raise UserError(f"regions is {regions!r} and {other}: region features replace the pictures; set one off")
        self.encoder_name, self.encoder_weights, self.regions = encoder, encoder_weights, regions
        self.average_token_ids = average_token_ids
        self._stores: dict[Split, FeatureStore] = {}
        self._feature_shape: tuple[int, tuple[int, int]] | None = None
        self._examples: dict[Split, list[Example]] = {}
        self._tokenizer: WordTokenizer | BPETokenizer | None = None

    # what a data set has to say

    @abstractmethod
    def load_examples(self, split: Split) -> list[Example]:
        """Reads the annotations of one split.

        Raises:
            DataError: files are missing or broken.
        """

    def open_image(self, example: Example) -> Image.Image:
        """Reads the picture of an example as RGB."""
        return open_image(example.image, min_side=self.transform.min_side)

    def image_stamp(self, example: Example) -> str:
        """Text that changes whenever the picture of an example does; stored features hold as long as it stays.

        Raises:
            DataError: there is no such file.
        """
        return example.image if self.has_scenes else image_stamp(example)

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """Rows that a score must be read against (floors and ceilings), name to metrics; empty when none are known."""
        del split
        return {}

    def floor_captions(self, split: Split) -> dict[str, dict[str, str]]:
        """Captions behind the rows that have some: row to image id to caption, see `metrics.baselines.captions`."""
        del split
        return {}

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """What else ``data check`` should say: problems and notes; by default, images without region features."""
        if self.regions is None:
            return [], []
        splits: tuple[Split, ...] = ("train", "val", "test")
        examples = {str(example.image_id): example for split in splits for example in self.examples(split)}
        missing = self._region_files().missing(list(examples.values()))
        return missing, [f"regions: width {self.feature_dim}, {len(examples) - len(missing)} of {len(examples)} images"]

    # facts

    def examples(self, split: Split) -> list[Example]:
        """Examples of a split, read once.

        Raises:
            DataError: the split has no usable picture.
        """
        if split not in self._examples:
            examples = self.load_examples(split)
            if self.on_bad_image == "skip":
                from datamodules.audit.checks import leave_out_bad_images

                examples = leave_out_bad_images(examples, self.open_image, default_cache_dir())
            if not examples:
                way_out = f"look at the data with python cli.py data check, with this root: {self.root}"
                raise DataError(f"{type(self).__name__} has no usable picture in split '{split}'; {way_out}")
            self._examples[split] = examples
        return self._examples[split]

    def picture(self, image_id: str) -> Image.Image:
        """The picture of an image id of any split that has been read.

        Raises:
            KeyError: no such id.
        """
        for examples in self._examples.values():
            for example in examples:
                if str(example.image_id) == image_id:
                    return self.open_image(example)
        raise KeyError(image_id)

    def evaluation_split(self, split: Split) -> Split:
        """The split that is read where `split` is asked for: `evaluate_on` replaces val and test."""
        return self.evaluate_on or split

    def references(self, split: Split) -> dict[str, list[str]]:
        """All captions of every image of a split, by image id as text, in file order."""
        return {str(example.image_id): list(example.captions) for example in self.examples(split)}

    @property
    def tokenizer(self) -> WordTokenizer | BPETokenizer:
        """The caption tokeniser; a word vocabulary is built from the training captions on first access."""
        if self._tokenizer is None:
            word = self.tokenizer_name == "word"
            captions = [text for example in self.examples("train") for text in example.captions] if word else []
            self._tokenizer = build_tokenizer(
                self.tokenizer_name, captions, self.min_count, self.max_tokens, default_cache_dir() / "vocabularies"
            )
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocab_size

    @property
    def bos_id(self) -> int:
        """Token before the first word."""
        return self.tokenizer.bos_id

    @property
    def eos_id(self) -> int:
        """Token after the last word."""
        return self.tokenizer.eos_id

    @property
    def pad_id(self) -> int:
        """Filling behind captions."""
        return self.tokenizer.pad_id

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve a picture: image transform, tokeniser, frozen encoder."""
        facts: dict[str, Any] = {"transform": self.transform.spec(), "tokenizer": self.tokenizer.spec()}
        if (frozen := self._frozen()) is not None:
            facts["encoder"] = frozen.encoder.to_json()
        if self.regions is not None:
            facts["regions"] = {"files": self.regions, "width": self._shape_of_features()[0]}
        return facts

    # features of a frozen encoder

    @property
    def feature_dim(self) -> int | None:
        """Width of the features that batches carry; None when they carry pictures."""
        return self._shape_of_features()[0] if self._has_features else None

    @property
    def feature_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the features' grid; None when batches carry pictures. Boxes make one row."""
        return self._shape_of_features()[1] if self._has_features else None

    @property
    def _has_features(self) -> bool:
        return self.encoder_name is not None or self.regions is not None

    def features(self, split: Split) -> FeatureStore | None:
        """Features of a split's examples, in their order, made now if they were not before; None: pictures are read.

        Raises:
            UserError: no room on the disk, or the encoder cannot be built.
            DataError: a picture cannot be decoded.
        """
        frozen = self._frozen()
        if split in self._stores or not self._has_features:
            return self._stores.get(split)
        examples = self.examples(split)
        if frozen is not None:
            self._stores[split] = frozen.store(examples, self.open_image, self.image_stamp)
        else:
            self._stores[split] = self._region_files().store(examples, default_cache_dir() / "features")
        return self._stores[split]

    def prepare_data(self) -> None:
        """Computes missing features of the splits that are going to be read; the first process of a machine does."""
        if not self._has_features:
            return
        wanted: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        stage = self.trainer.state.fn.value if self.trainer and self.trainer.state.fn else "fit"
        for split in wanted.get(stage, ("test",)):
            self.features(split if split == "train" else self.evaluation_split(split))

    def _frozen(self) -> FrozenFeatures | None:
        if self.encoder_name is None:
            return None
        encoder = EncoderSpec.of(self.encoder_name, self.encoder_weights)
        return FrozenFeatures(encoder, self.transform, "grid", default_cache_dir() / "features", self.num_workers)

    def _region_files(self) -> RegionFiles:
        assert self.regions is not None
        return open_regions(self.regions, self.root, default_cache_dir())

    def _shape_of_features(self) -> tuple[int, tuple[int, int]]:
        if self._feature_shape is None:
            frozen = self._frozen()
            self._feature_shape = self._region_files().shape() if frozen is None else frozen.shape()
        return self._feature_shape

    # loaders

    def train_dataloader(self) -> DataLoader[Item]:
        """Training images in an order given by (seed, epoch), beginning where an interrupted run stopped."""
        sampler = self._sampler("train", shuffle=True)
        trainer, batch_size, steps = self.trainer, self.batch_size, -(-len(sampler) // self.batch_size)

        def position() -> tuple[int, int]:
            epoch, batches = training_position(trainer, steps)
            return epoch, batches * batch_size

        sampler.position = position
        return self._loader("train", sampler, self.captions_per_image, self.augment)

    def plain_train_dataloader(self, limit: int | None = None) -> DataLoader[Item]:
        """Training images in file order, all captions, on every rank; nothing is drawn or augmented.

        Args:
            limit: so many images at most, evenly spread; None: all.
        """
        images = len(self.examples("train"))
        count = images if limit is None else min(limit, images)
        return self._loader("train", ChosenSampler([i * images // count for i in range(count)]), None, augment=False)

    def val_dataloader(self) -> DataLoader[Item]:
        """Validation images in file order, all captions."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """Test images in file order, all captions."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Images to be captioned or labelled: the test split unless `evaluate_on` says otherwise.

        Images that `predicted` names are left out.
        """
        if self.predicted is None:
            return self._evaluation_loader("test")
        split, done = self.evaluation_split("test"), self.predicted()
        rest = [place for place, example in enumerate(self.examples(split)) if str(example.image_id) not in done]
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        # a process without an image would wait for the others for ever, so it does the first one once more
        return self._loader(split, ChosenSampler(rest[rank::world_size] or rest[:1]), None, augment=False)

    def _evaluation_loader(self, split: Split) -> DataLoader[Item]:
        split = self.evaluation_split(split)
        return self._loader(split, self._sampler(split, shuffle=False), None, augment=False)

    def _sampler(self, split: Split, shuffle: bool) -> EpochSampler:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return EpochSampler(len(self.examples(split)), shuffle, global_seed(), rank, world_size)

    def _loader(
        self, split: Split, sampler: Sampler[IndexInEpoch], captions_per_image: int | None, augment: bool
    ) -> DataLoader[Item]:
        dataset = CaptionDataset(
            self.examples(split),
            self.open_image,
            self.transform,
            self.tokenizer,
            captions_per_image,
            augment,
            global_seed(),
            self.has_scenes,
            self.features(split),
            self.has_pictures,
        )
        return LateLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Collate(self.pad_id, self.average_token_ids),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers get the module without its trainer, and without what the data set holds itself."""
        return {**self.__dict__, "trainer": None, "predicted": None, "_examples": {}, "_stores": {}}
