"""Writing the examples of a data module into tar archives, in the layout of WebDataset.

An image and its JSON have the same name: ``000000012.jpg``, ``000000012.json``. Archives appear whole and are the same
bytes whenever they are written, so a conversion that was killed goes on by writing what is missing.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.files import replacing, write_json
from datamodules.base import CaptionDataModule
from datamodules.loading.tokenization import split_words
from datamodules.readers.records import Example, Split
from datamodules.shards.index import FORMAT, WORDS, ShardFile, ShardIndex, places_path, scan, shard_digest


def write_shards(
    data: CaptionDataModule, folder: Path, splits: Sequence[Split], images_per_shard: int
) -> Iterator[tuple[str, bool]]:
    """Converts a data module, archive after archive; the index comes last.

    Args:
        data: what is converted: its images as they are in their files, scenes as PNG; its captions and labels.
        folder: for the archives.
        splits: which.
        images_per_shard: images in an archive; the last of a split has fewer.

    Yields:
        File of each archive, and whether it was there.

    Raises:
        UserError: the folder holds shards of other data.
        DataError: an image cannot be read.
    """
    found: dict[Split, list[ShardFile]] = {}
    for split in splits:
        source = _Source(data.examples(split), classes=data.classes(split), images_per_shard=images_per_shard)
        found[split], places = [], []
        for number, rows in enumerate(source.shards()):
            path = folder / f"{split}-{number:06d}.tar"
            there = path.exists()
            if not there:
                source.write(path, number, rows)
            noted, members = scan(path)
            if noted != source.note(number) or len(members) != len(rows):
                raise UserError(f"{path}: is no shard of this data; choose another --out, or remove the folder")
            places.append(members)
            size = path.stat().st_size
            found[split].append(ShardFile(file=path.name, images=len(rows), bytes=size, blake2b=shard_digest(path)))
            yield path.name, there
        with replacing(places_path(folder, split)) as file:
            np.save(file, np.concatenate(places), allow_pickle=False)
    _write_words(folder, data.vocabulary_captions())
    names = {"label_names": tuple(data.label_names), "condition_names": tuple(data.condition_names)}
    ShardIndex(made_from=type(data).__name__, splits=found, **names).write(folder)
    for left in folder.glob("*.tmp*"):  # of processes that were killed
        left.unlink(missing_ok=True)


class _Source:
    """The examples of a split as they are written.

    Args:
        examples: examples of the split.
        classes: class of each image that has one, by its id as text.
        images_per_shard: images in an archive.
    """

    def __init__(self, examples: Sequence[Example], *, classes: Mapping[str, str], images_per_shard: int) -> None:
        self.examples, self.classes, self.images_per_shard = examples, classes, images_per_shard
        digest = hashlib.blake2b(f"{FORMAT} {images_per_shard}".encode(), digest_size=16)
        for row in range(len(examples)):
            digest.update(self.record(row) + b"\n")
        self.digest = digest.hexdigest()
        """Of all that the archives hold besides images."""

    def note(self, number: int) -> str:
        """What an archive says of itself."""
        return f"{self.digest} {number}"

    def shards(self) -> Iterator[range]:
        """Rows of each archive."""
        for start in range(0, len(self.examples), self.images_per_shard):
            yield range(start, min(start + self.images_per_shard, len(self.examples)))

    def record(self, row: int) -> bytes:
        """What is known of an image, as JSON; what is empty is left out."""
        example = self.examples[row]
        values: dict[str, Any] = {"image_id": example.image_id, "captions": example.captions}
        optional = {name: getattr(example, name) for name in ("caption_labels", "conditions", "labels")}
        optional["scene"] = None if example.image is None else example.image.scene
        optional["class"] = self.classes.get(str(example.image_id))
        values |= {name: value for name, value in optional.items() if value}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")

    def write(self, path: Path, number: int, rows: range) -> None:
        """Writes an archive whole; nothing in it depends on the clock or the user."""
        noted = {"comment": self.note(number)}
        with (
            replacing(path, durable=True) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=noted) as archive,
        ):
            for row in rows:
                if (image := self.examples[row].image) is not None:
                    content, ending = image.encoded()
                    _add(archive, f"{row:09d}{ending}", content)
                _add(archive, f"{row:09d}.json", self.record(row))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _write_words(folder: Path, captions: Iterable[str]) -> None:
    """Writes how often each word occurs, the most frequent first."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    write_json(folder / WORDS, dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))))
