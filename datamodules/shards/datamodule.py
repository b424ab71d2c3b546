"""Data module that trains from shards."""

from collections.abc import Sequence
from typing import Any

from core.errors import DataError, UserError
from datamodules.base import CaptionDataModule
from datamodules.loading.samplers import EpochSampler, StreamSampler
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer
from datamodules.readers.records import SPLITS, Example, Problem, Split
from datamodules.shards.index import WAY_OUT, ShardIndex, read_index, read_words, shard_digest
from datamodules.shards.reading import ShardExamples


class ShardedCaptions(CaptionDataModule):
    """Images, captions and labels of any data set in tar archives, as ``data shard`` writes them.

    Nothing in memory grows with the number of images: annotations are read with their images, places are mapped from a
    file, and the order is computed piece by piece. It is the stream of the archives, shuffled anew every epoch, of
    which each process takes an equal piece; inside its piece, images are shuffled within `shuffle_buffer`. The order is
    a function of seed, epoch and position, and does not depend on `num_workers`.

    No library does this on the layout of WebDataset: `datasets` fills its shuffle buffer anew after a resume, so the
    order is another one, webdataset has no exact resume and unpickles some members, litdata has its own format.

    Args:
        root: folder of the shards.
        shuffle_buffer: images that are shuffled together in training, of successive archives; None: all, in the order
            of other data modules. Their images are not in memory, but close to one another on the disk.

    Raises:
        UserError: a number is out of range, or bad images are to be skipped.
    """

    def __init__(self, *, root: str = "", shuffle_buffer: int | None = 10000, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        if shuffle_buffer is not None and shuffle_buffer < 1:
            raise UserError(f"shuffle_buffer is {shuffle_buffer}: expected at least 1, or null for all images")
        if self.on_bad_image == "skip":
            raise UserError("on_bad_image is skip, but shards have their images: give it to data shard instead")
        self.shuffle_buffer = shuffle_buffer
        self._index: ShardIndex | None = None

    @property
    def shard_index(self) -> ShardIndex:
        """What is in the folder, read once.

        Raises:
            DataError: there is no index, or it is damaged.
        """
        if self._index is None:
            self._index = read_index(self.root)
        return self._index

    def load_examples(self, split: Split) -> ShardExamples:
        """Opens the archives of a split.

        Raises:
            DataError: one is missing or damaged.
        """
        if split not in self.shard_index.splits:
            there = ", ".join(self.shard_index.splits)
            raise DataError(
                f"{self.root}: no shards of split '{split}' (there are: {there}); make them with data shard"
            )
        files, labels = self.shard_index.splits[split], len(self.shard_index.label_names)
        return ShardExamples(self.root, split, files=files, labels=labels)

    def usable(self, examples: Sequence[Example]) -> Sequence[Example]:
        """All of them: bad images are left out when shards are made."""
        return examples

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, as the converted data had them."""
        return self.shard_index.label_names

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the labels of captions."""
        return self.shard_index.condition_names

    def classes(self, split: Split) -> dict[str, str]:
        """Class of every image of a split; reads all annotations."""
        return self.load_examples(split).classes()

    @property
    def tokenizer(self) -> WordTokenizer | BPETokenizer:
        """The caption tokenizer; a word vocabulary has the ids that the converted data module gives."""
        if self._tokenizer is None and self.tokenizer_name == "word":
            self._tokenizer = WordTokenizer.of_counts(read_words(self.root), self.min_count, self.max_tokens)
        return super().tokenizer

    def check_facts(self) -> tuple[list[Problem], list[str]]:
        """Archives whose bytes are others than the index says."""
        problems, notes = super().check_facts()
        files = [file for split in SPLITS for file in self.shard_index.splits.get(split, ())]
        wrong = [file.file for file in files if shard_digest(self.root / file.file) != file.blake2b]
        changed = "was changed since the index was written; remove it, and"
        problems += [Problem("file", f"{self.root / name}: {changed} {WAY_OUT}") for name in wrong]
        return problems, [*notes, f"{len(files)} shards made from {self.shard_index.made_from}"]

    def _sampler(self, split: Split, shuffle: bool) -> EpochSampler:
        plain, examples = super()._sampler(split, shuffle), self.examples(split)
        if not shuffle or self.shuffle_buffer is None:
            return plain
        assert isinstance(examples, ShardExamples), "load_examples gives them"
        return StreamSampler(
            examples.sizes,
            buffer=self.shuffle_buffer,
            seed=plain.seed,
            rank=plain.rank,
            world_size=plain.world_size,
        )
