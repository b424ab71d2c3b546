"""What every data module of captioned images has in common."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from core.cache import default_cache_dir
from core.collection import paused_collection
from core.errors import DataError, UserError
from core.seeds import global_seed
from core.spread import spread_places
from datamodules.audit.baselines import CaptionBaselines
from datamodules.loading.dataset import CaptionDataset, Collate, Item
from datamodules.loading.evaluation import EvaluationOptions
from datamodules.loading.label_facts import LabelFacts
from datamodules.loading.resume import LateLoader, training_position
from datamodules.loading.samplers import ChosenSampler, EpochSampler, IndexInEpoch
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer, build_tokenizer
from datamodules.loading.transfer import TransferredBatches
from datamodules.readers.bad_images import without_bad_images
from datamodules.readers.obtaining import Obtainable
from datamodules.readers.records import SPLITS, Example, Problem, Split, fail
from datamodules.readers.transforms import ImageTransform, Normalization
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.source import FeatureSource


class CaptionDataModule(LabelFacts, Obtainable, TransferredBatches, EvaluationOptions):
    """Loaders, tokenisation and facts; a subclass says where the examples come from (`load_examples`).

    Options that all data sets share are declared here; a subclass declares its own, and those for which it has another
    default, and forwards the rest.

    Args:
        root: folder of the data set.
        tokenizer: "word" for a vocabulary of the training captions; a hub id or local folder of a tokenizer; or a run
            folder or checkpoint, for the tokenizer of that run as it is.
        min_count: words that occur less often in training are unknown (word vocabulary only).
        max_tokens: longest caption in tokens with BOS and EOS; longer ones are cut.
        batch_size: images per batch and process.
        captions_per_image: captions of each training image, drawn anew every epoch; None: all. "average" merges all
            captions of an image, in every split, into one by averaging their token *ids*, which gives the ids of
            unrelated words: the published defect of emotion transfer, only to repeat the paper.
        num_workers: loader processes; 0: the main process.
        image_size: height and width of the images, pixels.
        normalization: colour scale, as the encoder's weights expect it.
        augment: random crops in training.
        on_bad_image: "error" stops at an image that cannot be decoded; "skip" decodes all images before training,
            skips the bad ones, counts and lists them.
        encoder: a frozen image encoder (see `networks.encoders.build.build_encoder`) whose features are computed once
            and replace the images in all batches; None: batches have the images.
        encoder_weights: weights of `encoder`, as `build_encoder` takes them.
        regions: region features from files in place of the images: a folder of .npz files, one for each image, or a
            TSV in the format of bottom-up attention (see `datamodules.stored_features.regions`).

    Raises:
        UserError: a number is out of range, `augment` with stored features, or both an encoder and region files.
    """

    has_images = True
    """False when batches have captions alone, although there are images."""
    shares_images = False
    """True when several examples may be of one image."""
    has_caption_baselines = False
    """True when `baselines` are computed from the captions of the training split."""

    def __init__(
        self,
        *,
        root: str = "",
        tokenizer: str = "word",
        min_count: int = 1,
        max_tokens: int = 36,
        batch_size: int = 8,
        captions_per_image: int | Literal["average"] | None = None,
        num_workers: int = 2,
        image_size: int = 224,
        normalization: Normalization = "imagenet",
        augment: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        encoder: str | None = None,
        encoder_weights: str | None = None,
        regions: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.average_token_ids = captions_per_image == "average"
        self.captions_per_image = captions_per_image if isinstance(captions_per_image, int) else None
        least = {"batch_size": (batch_size, 1), "min_count": (min_count, 1), "num_workers": (num_workers, 0)}
        for name, (value, limit) in {**least, "captions_per_image": (self.captions_per_image, 1)}.items():
            if value is not None and value < limit:
                raise UserError(f"{name} is {value}: expected at least {limit}")
        self.root = Path(root)
        self.tokenizer_name, self.min_count, self.max_tokens = tokenizer, min_count, max_tokens
        self.batch_size, self.num_workers = batch_size, num_workers
        self.transform = ImageTransform(size=image_size, normalization=normalization)
        self.augment, self.on_bad_image = augment, on_bad_image
        self.feature_source = FeatureSource(
            root=self.root, transform=self.transform, encoder=encoder, encoder_weights=encoder_weights, regions=regions
        )
        if augment:
            self.feature_source.refuse_augmentation()
        self._predicted: Callable[[], Collection[str]] | None = None
        self._problems: dict[Problem, None] | None = None
        self._stores: dict[Split, FeatureStore] = {}
        self._examples: dict[Split, Sequence[Example]] = {}
        self._tokenizer: WordTokenizer | BPETokenizer | None = None
        self._baselines = CaptionBaselines(self)

    # what a data set has to say

    @abstractmethod
    def load_examples(self, split: Split) -> Sequence[Example]:
        """Reads the annotations of one split.

        Raises:
            DataError: files are missing or broken.
        """

    def classes(self, split: Split) -> dict[str, str]:
        """Class of every image of a split, by image id as text; empty when the data set has no classes."""
        del split
        return {}

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """Rows that a score must be read against (baselines and upper bounds), name to metrics; empty: none known."""
        return self._baselines.scores(split) if self.has_caption_baselines else {}

    def baseline_captions(self, split: Split) -> dict[str, dict[str, str]]:
        """Captions behind those rows that have some: row to image id to caption, see `metrics.baselines.captions`."""
        return self._baselines.captions(split) if self.has_caption_baselines else {}

    def vocabulary_captions(self) -> list[str]:
        """Captions whose words make the vocabulary: those of the training split."""
        return [text for example in self.examples("train") for text in example.captions]

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """What else ``data check`` should say: problems and notes; by default, images without region features."""
        if self.feature_source.regions is None:
            return [], []
        examples = {str(example.image_id): example for split in SPLITS for example in self.examples(split)}
        return self.feature_source.check(list(examples.values()))

    # problems of the annotations

    def report(self, problem: Problem) -> None:
        """Handles a defect of a single record: raises it, or collects it inside of `collected_problems`.

        Raises:
            DataError: nobody collects.
        """
        if self._problems is None:
            fail(problem)
        else:
            self._problems.setdefault(problem)

    @contextmanager
    def collected_problems(self) -> Iterator[dict[Problem, None]]:
        """Inside, reading continues after a problem; gives the problems, each once, in the order they were found."""
        self._problems = {}
        try:
            yield self._problems
        finally:
            self._problems = None

    # facts

    def open_image(self, example: Example) -> Image.Image:
        """Reads the image of an example as RGB.

        Raises:
            DataError: it cannot be decoded, or there is none.
        """
        if example.image is None:
            raise DataError(f"{example.origin or example.image_id}: has captions alone and no image")
        return example.image.open(self.transform.min_side)

    def usable(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples whose image can be decoded, when bad ones are to be skipped; else all of them."""
        if self.on_bad_image == "error":
            return examples
        return without_bad_images(examples, self.open_image, default_cache_dir())

    def examples(self, split: Split) -> Sequence[Example]:
        """Examples of a split, read once.

        Raises:
            DataError: the split has no usable image.
        """
        if split not in self._examples:
            examples = self.usable(paused_collection()(self.load_examples)(split))
            if not examples:
                way_out = f"look at the data with python cli.py data check, with this root: {self.root}"
                raise DataError(f"{type(self).__name__} has no usable image in split '{split}'; {way_out}")
            self._examples[split] = examples
        return self._examples[split]

    def image(self, image_id: str) -> Image.Image:
        """The image of an id of any split that has been read.

        Raises:
            KeyError: no such id.
        """
        for examples in self._examples.values():
            for example in examples:
                if str(example.image_id) == image_id:
                    return self.open_image(example)
        raise KeyError(image_id)

    def references(self, split: Split) -> dict[str, list[str]]:
        """All captions of every image of a split, by image id as text, in file order."""
        return {str(example.image_id): list(example.captions) for example in self.examples(split)}

    def scenes(self, split: Split) -> dict[str, str]:
        """Descriptions of the synthetic scenes of a split by image id as text; empty for other images."""
        found = {str(example.image_id): example.image for example in self.examples(split)}
        return {name: ref.scene for name, ref in found.items() if ref is not None and ref.scene is not None}

    @property
    def tokenizer(self) -> WordTokenizer | BPETokenizer:
        """The caption tokenizer; a word vocabulary is built from the training captions on first access."""
        if self._tokenizer is None:
            cache = default_cache_dir() / "vocabularies"
            self._tokenizer = build_tokenizer(
                self.tokenizer_name, self.vocabulary_captions, self.min_count, self.max_tokens, cache
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
        """Padding after captions."""
        return self.tokenizer.pad_id

    def describe(self) -> dict[str, Any]:
        """Plain values that a checkpoint needs to serve an image: transform, tokenizer, frozen encoder, labels."""
        facts: dict[str, Any] = {"transform": self.transform.spec(), "tokenizer": self.tokenizer.spec()}
        facts |= self.feature_source.describe()
        names = {"label_names": list(self.label_names), "condition_names": list(self.condition_names)}
        return facts | {key: found for key, found in names.items() if found}

    def shared_options(self) -> dict[str, Any]:
        """Options for another data module that reads the same images and captions."""
        own = ("min_count", "max_tokens", "batch_size", "num_workers", "augment")
        return {
            "root": str(self.root),
            "tokenizer": self.tokenizer_name,
            "captions_per_image": "average" if self.average_token_ids else self.captions_per_image,
            "image_size": self.transform.size,
            "normalization": self.transform.normalization,
            **{name: getattr(self, name) for name in own},
            **{name: getattr(self.feature_source, name) for name in ("encoder", "encoder_weights", "regions")},
            **self.evaluation_options(),
        }

    # stored features

    @property
    def feature_dim(self) -> int | None:
        """Width of the features that batches carry; None when they carry images."""
        return self.feature_source.shape[0] if self.feature_source else None

    @property
    def feature_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the features' grid; None when batches carry images. Boxes make one row."""
        return self.feature_source.shape[1] if self.feature_source else None

    def features(self, split: Split) -> FeatureStore | None:
        """Features of a split's examples, in their order, computed now if they are not stored; None: images are read.

        Raises:
            UserError: no room on the disk, or the encoder cannot be built.
            DataError: an image cannot be decoded.
        """
        if self.feature_source and split not in self._stores:
            self._stores[split] = self.feature_source.store(self.examples(split), self.num_workers)
        return self._stores.get(split)

    def prepare_data(self) -> None:
        """Computes missing features of the splits that are going to be read, in the first process of a machine."""
        if not self.feature_source:
            return
        wanted: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        stage = self.trainer.state.fn.value if self.trainer and self.trainer.state.fn else "fit"
        for split in wanted.get(stage, ("test",)):
            self.features(split if split == "train" else self.evaluation_split(split))

    # loaders

    def train_dataloader(self) -> DataLoader[Item]:
        """Training images in an order given by (seed, epoch), beginning where an interrupted run stopped."""
        sampler = self._sampler("train", shuffle=True)
        trainer, batch_size, steps = self.trainer, self.batch_size, -(-len(sampler) // self.batch_size)

        def position() -> tuple[int, int]:
            epoch, batches = training_position(trainer, steps)
            return epoch, batches * batch_size

        sampler.position = position
        return self._loader("train", sampler, training=True)

    def plain_train_dataloader(self, limit: int | None = None) -> DataLoader[Item]:
        """Training images in file order, all captions, on every rank; nothing is drawn or augmented.

        Args:
            limit: most images, evenly spread; None: all.
        """
        places = spread_places(len(self.examples("train")), limit)
        return self._loader("train", ChosenSampler(places))

    def val_dataloader(self) -> DataLoader[Item]:
        """Validation images in file order, all captions."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """Test images in file order, all captions."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Images to be captioned or labelled: the test split unless `evaluate_on` says otherwise.

        Those that are predicted already are omitted, see `skip_predicted`.
        """
        if self._predicted is None:
            return self._evaluation_loader("test")
        split, done = self.evaluation_split("test"), self._predicted()
        rest = [place for place, example in enumerate(self.examples(split)) if str(example.image_id) not in done]
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        # a process without an image would wait for the others for ever, so it does the first one once more
        return self._loader(split, ChosenSampler(rest[rank::world_size] or rest[:1]))

    def skip_predicted(self, predicted: Callable[[], Collection[str]] | None) -> None:
        """Omits images from prediction.

        Args:
            predicted: gives the ids of the images that an interrupted prediction has completed; called when the
                prediction's loader is made, after the model was loaded. None: nothing is omitted.
        """
        self._predicted = predicted

    def _evaluation_loader(self, split: Split) -> DataLoader[Item]:
        split = self.evaluation_split(split)
        return self._loader(split, self._sampler(split, shuffle=False))

    def _sampler(self, split: Split, shuffle: bool) -> EpochSampler:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return EpochSampler(
            len(self.examples(split)), shuffle=shuffle, seed=global_seed(), rank=rank, world_size=world_size
        )

    def _loader(self, split: Split, sampler: Sampler[IndexInEpoch], *, training: bool = False) -> DataLoader[Item]:
        dataset = CaptionDataset(
            examples=self.examples(split),
            transform=self.transform,
            tokenizer=self.tokenizer,
            captions_per_image=self.captions_per_image if training else None,
            augment=self.augment and training,
            seed=global_seed(),
            features=self.features(split),
            images=self.has_images,
        )
        return LateLoader(
            dataset,
            batch_size=self.batch_size if training else self.eval_batch_size or self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Collate(pad_id=self.pad_id, average_token_ids=self.average_token_ids),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers get the module without its trainer, and without what the dataset holds itself."""
        return {**self.__dict__, "trainer": None, "_predicted": None, "_examples": {}, "_stores": {}}
