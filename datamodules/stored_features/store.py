"""Features of a frozen image encoder, computed once and kept on disk.

A store is a folder with ``features.npy`` (half precision, one row for each image) and ``index.json`` (what was
computed from what). Its name is a digest of everything the features depend on, so a store is never used for anything
else: a replaced image, other weights or another transform make a new one. While it is built, the folder is called
``KEY.partial``; rows that were flushed survive a kill, and the next attempt continues after them. Stores can be deleted
at any time.

Detectors give some images fewer regions than others; those that an image does not have are NaN, behind the others.

Letters: N images, B images of a batch, R regions, C width of a region.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader

from core.errors import DataError, UserError
from core.shards import Shard
from core.text import log_of
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.files import FeatureStore, Half, write_store
from datamodules.stored_features.pictures import (
    Pictures,
    preparation,
    regions_of,
    stack_pictures,
)
from datamodules.stored_features.reading import Images, collate, stamp_of, with_progress
from datamodules.stored_features.shards import Piece, finished_shards, pieces, shard_folder
from networks.encoders.base import ImageEncoder
from networks.encoders.build import build_encoder, local_files, picture_shape, reads_whole_pictures
from networks.encoders.pictures import PictureEncoder

Output = Literal["grid", "vector"]

_FORMAT = 1
_BATCH = 32
"""Images at once; divides `feature_files.FLUSH_ROWS`, so that a resumed build sees the same batches."""
_PICTURES = 8
"""The same for whole pictures, up to 13 MB each as tensors; divides `_BATCH`."""
_SEED = 0
_log = log_of(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """A frozen image encoder by name.

    Attributes:
        name: as `networks.encoders.build.build_encoder` takes it.
        weights: the same; a file by its absolute path. None: random ones, always the same.
        digest: SHA-256 of the file, or of the digests of a folder's files; None when the weights are known by name.
    """

    name: str
    weights: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, name: str, weights: str | None) -> "EncoderSpec":
        """Describes an encoder; reads the files of weights, if they are some, but builds nothing."""
        files = [] if weights is None else local_files(name, weights)
        if weights is None or not files:
            return cls(name=name, weights=weights)
        digests = []
        for path in files:
            status = path.stat()
            digests.append(_file_digest(str(path.resolve()), status.st_size, status.st_mtime_ns))
        digest = digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return cls(name=name, weights=str(Path(weights).resolve()), digest=digest)

    def build(self) -> ImageEncoder:
        """Builds the encoder: evaluation mode, no gradients, the random state untouched.

        Raises:
            UserError: unknown name or weights, or the file is no longer the one that was described.
        """
        if self.digest is not None:
            if not Path(str(self.weights)).exists():
                raise UserError(
                    f"encoder weights {self.weights!r} do not exist any more; put the file with SHA-256 "
                    f"{self.digest[:12]}... there"
                )
            if EncoderSpec.of(self.name, self.weights).digest != self.digest:
                raise UserError(
                    f"encoder weights {self.weights!r} have changed since training; put the file with SHA-256 "
                    f"{self.digest[:12]}... there"
                )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            encoder = build_encoder(self.name, self.weights, whole_pictures=True)
        return encoder.eval().requires_grad_(False)

    def to_json(self) -> dict[str, str | None]:
        """The spec as plain values; ``EncoderSpec(**values)`` gives it back."""
        return {"name": self.name, "weights": self.weights, "digest": self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Everything that features depend on.

    Attributes:
        encoder: the image encoder.
        transform: image to tensor, from `ImageTransform.spec`.
        output: ``grid`` for `(R, C)` per image, ``vector`` for `(1, D)`.
        images: one text for each image that changes with it, in the order of the rows.
    """

    encoder: EncoderSpec
    transform: Mapping[str, str | int]
    output: Output
    images: Sequence[str]

    def facts(self) -> dict[str, Any]:
        """All but the images, as plain values."""
        library = next((part for part in self.encoder.name.split("/") if part in ("timm", "torchvision")), None)
        return {
            "format": _FORMAT,
            # by digest where there is one: the same file elsewhere gives the same features
            "encoder": {"name": self.encoder.name, "weights": self.encoder.digest or self.encoder.weights},
            # weights by name, random ones and the network itself belong to a version of the library
            "library": f"{library} {version(library)}" if library else None,
            "torch": version("torch") if self.encoder.weights is None else None,
            "transform": dict(self.transform),
            "output": self.output,
            "dtype": "float16",
        }

    def key(self) -> str:
        """32 hexadecimal digits that change with anything the features depend on."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode())
        for image in self.images:  # lengths in between, so that no two lists read alike
            text = image.encode("utf-8", "surrogateescape")  # a file's name may be any bytes
            digest.update(f"{len(text)}:".encode() + text)
        return digest.hexdigest()[:32]


@lru_cache
def _encoder_shape(name: str, image_size: int) -> tuple[int, int, tuple[int, int]]:
    """Width of an encoder's vector and of its map, and rows and columns of the map; no data is computed."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        encoder = build_encoder(name, None, whole_pictures=True).eval()
    return encoder.vector_dim, encoder.grid_dim, encoder.grid_shape(image_size)


@dataclass(frozen=True, kw_only=True)
class FrozenFeatures:
    """Computes and opens the stores of one frozen image encoder.

    Attributes:
        encoder: the encoder.
        transform: image to tensor.
        output: grids or vectors.
        cache_dir: folder of the stores.
        num_workers: processes that decode images.
    """

    encoder: EncoderSpec
    transform: ImageTransform
    output: Output
    cache_dir: Path
    num_workers: int = 0

    def shape(self) -> tuple[int, tuple[int, int]]:
        """C, and rows and columns of the grid; the weights are neither read nor fetched."""
        if reads_whole_pictures(self.encoder.name):
            width, boxes = picture_shape(self.encoder.name, self.encoder.weights)
            return width, (1, 1 if self.output == "vector" else boxes)
        vector_dim, grid_dim, grid = _encoder_shape(self.encoder.name, self.transform.size)
        return (vector_dim, (1, 1)) if self.output == "vector" else (grid_dim, grid)

    def store(self, examples: Sequence[Example]) -> FeatureStore:
        """Opens the store of some images; computes what is missing of it first.

        Several processes may ask at once: one computes, the others wait.

        Args:
            examples: N images, in the order of the rows.

        Raises:
            UserError: no room on the disk, or the encoder cannot be built.
            DataError: an image is missing, cannot be decoded, or was changed meanwhile.
        """
        spec = self._spec(examples)
        folder = self.cache_dir / spec.key()
        whole = len(examples)

        def build() -> None:
            parts = pieces(folder, whole, _BATCH)
            self._build(folder, spec, examples, parts)
            for part in finished_shards(folder, whole, _BATCH).values():
                shutil.rmtree(part)

        return self._once(folder, build)

    def shard(self, examples: Sequence[Example], shard: Shard) -> FeatureStore:
        """Opens one part of the store of some images; computes what is missing of it first.

        `store` puts the parts that are there together. Where the whole store is there already, it is returned.

        Args:
            examples: all N images of the whole store.
            shard: which part.

        Raises:
            UserError: as `store`.
            DataError: as `store`.
        """
        spec = self._spec(examples)
        whole = self.cache_dir / spec.key()
        if whole.is_dir():
            return FeatureStore(whole)
        rows = shard.rows(len(examples), _BATCH)
        if not rows:
            raise UserError(
                f"shard {shard}: {len(examples)} images make {len(examples) // _BATCH} batches of {_BATCH}: expected "
                "at most as many shards"
            )
        folder = shard_folder(whole, shard)
        return self._once(folder, lambda: self._build(folder, spec, examples, [Piece(rows, None)]))

    def _spec(self, examples: Sequence[Example]) -> StoreSpec:
        """What the store of some images depends on."""
        transform = {**self.transform.spec(), "min_side": self.transform.min_side}
        if reads_whole_pictures(self.encoder.name):
            transform = {"picture": "in proportion"}  # its scale is part of its weights
        return StoreSpec(
            encoder=self.encoder,
            transform=transform,
            output=self.output,
            images=[stamp_of(example) for example in examples],
        )

    def _once(self, folder: Path, build: Callable[[], None]) -> FeatureStore:
        """Opens a store; of several processes that ask at the same time, one builds it first."""
        if not folder.is_dir():
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():  # another process may have made it meanwhile
                    build()
        return FeatureStore(folder)

    def _build(self, folder: Path, spec: StoreSpec, examples: Sequence[Example], parts: Sequence[Piece]) -> None:
        """Writes rows one after the other, from parts of the store that are there, or computed."""
        first, last = parts[0].rows.start, parts[-1].rows.stop
        finished = [part.folder for part in parts if part.folder is not None]
        encoder = None if len(finished) == len(parts) else self._encoder()
        row = FeatureStore(finished[0]).shape[1:] if encoder is None else self._row_shape(encoder)
        _log.info("feature store %s: %s of %d images", folder, self.encoder.name, last - first)

        def batches(start: int) -> Iterator[Half]:
            for part in parts:
                rows = range(max(part.rows.start, first + start), part.rows.stop)
                if part.folder is not None:
                    yield from part.read(rows.start, _BATCH)
                elif rows:
                    assert encoder is not None
                    yield from self._computed(encoder, examples, rows)
            if encoder is not None:
                _check_unchanged(folder, spec, examples, range(first, last))

        facts = {**spec.facts(), "first": first, "images": list(spec.images[first:last])}
        write_store(folder, (last - first, *row), facts, batches)

    def _encoder(self) -> ImageEncoder:
        """The encoder, on the GPU if there is one."""
        return self.encoder.build().to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def _row_shape(self, encoder: ImageEncoder) -> tuple[int, int]:
        """R and C of a row."""
        if isinstance(encoder, PictureEncoder):
            return (1 if self.output == "vector" else encoder.boxes), encoder.grid_dim
        size = self.transform.size
        features, _ = _encode(encoder, stack_pictures([torch.zeros(3, size, size)]), self.output)
        return features.shape[1], features.shape[2]

    def _computed(self, encoder: ImageEncoder, examples: Sequence[Example], rows: range) -> Iterator[Half]:
        """Features of some images, in batches `(B, R, C)`; absent regions are NaN."""
        whole = isinstance(encoder, PictureEncoder)
        loader = DataLoader(
            Images(examples[rows.start : rows.stop], preparation(encoder, self.transform)),
            _PICTURES if whole else _BATCH,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )
        for pictures in with_progress(loader, rows.start, rows.stop):
            features, mask = _encode(encoder, pictures, self.output)
            half = _to_half(features, self.encoder.name)
            half[~mask.cpu().numpy()] = np.nan
            yield half


def _check_unchanged(folder: Path, spec: StoreSpec, examples: Sequence[Example], rows: range) -> None:
    """Makes sure that images are what they were when the store was begun; else what was computed of it goes.

    Raises:
        DataError: one of them is another one.
    """
    changed = [spec.images[place] for place in rows if stamp_of(examples[place]) != spec.images[place]]
    if changed:
        shutil.rmtree(folder.with_name(folder.name + ".partial"))
        name = changed[0].split("\t")[0]
        raise DataError(f"{name}: changed while its features were computed ({len(changed)} such); start again")


@torch.inference_mode()
def _encode(encoder: ImageEncoder, pictures: Pictures, output: Output) -> tuple[Tensor, Tensor]:
    """B images to `(B, R, C)`, or `(B, 1, D)` for vectors, and which regions are real, `(B, R)`."""
    if output == "grid":
        return regions_of(encoder, pictures)
    if isinstance(encoder, PictureEncoder):
        features, _ = regions_of(encoder, pictures)
        vectors = encoder.pool(features.transpose(1, 2).unsqueeze(2))
    else:
        vectors = encoder.vector(pictures.pixels.to(next(encoder.parameters()).device, non_blocking=True))
    return vectors.unsqueeze(1), torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)


def _to_half(features: Tensor, name: str) -> Half:
    """Half precision, on the CPU.

    Raises:
        UserError: a value is too large for it.
    """
    half: Half = features.to(torch.float16).cpu().numpy()
    if not np.isfinite(half).all():
        largest = features.abs().max().item()
        limit = np.finfo(np.float16).max
        raise UserError(
            f"encoder {name!r} gives values up to {largest:g}, beyond half precision ({limit:g}); train it without a "
            "feature store (encoder: null)"
        )
    return half


@lru_cache(maxsize=8)
def _file_digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file; size and time only tell the cache that it is another one."""
    del size, modified
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
