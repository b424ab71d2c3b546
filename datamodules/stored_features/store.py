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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.errors import DataError, UserError
from core.text import log_of
from datamodules.readers.image_refs import ImageRef
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features.files import FeatureStore, Half, write_store
from networks.encoders.base import ImageEncoder
from networks.encoders.build import build_encoder

Output = Literal["grid", "vector"]

_FORMAT = 1
_BATCH = 32
"""Images at once; divides `feature_files.FLUSH_ROWS`, so that a resumed build sees the same batches."""
_SEED = 0
_log = log_of(__name__)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A frozen image encoder by name.

    Attributes:
        name: as `networks.encoders.build.build_encoder` takes it.
        weights: the same; a file by its absolute path. None: random ones, always the same.
        digest: SHA-256 of the file, None when the weights are no file.
    """

    name: str
    weights: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, name: str, weights: str | None) -> "EncoderSpec":
        """Describes an encoder; reads the file of weights, if they are one, but builds nothing."""
        if weights is None or not Path(weights).is_file():
            return cls(name, weights)
        path = Path(weights).resolve()
        status = path.stat()
        return cls(name, str(path), _file_digest(str(path), status.st_size, status.st_mtime_ns))

    def build(self) -> ImageEncoder:
        """Builds the encoder: evaluation mode, no gradients, the random state untouched.

        Raises:
            UserError: unknown name or weights, or the file is no longer the one that was described.
        """
        if self.digest is not None:
            if not Path(str(self.weights)).is_file():
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
            encoder = build_encoder(self.name, self.weights)
        return encoder.eval().requires_grad_(False)

    def to_json(self) -> dict[str, str | None]:
        """The spec as plain values; ``EncoderSpec(**values)`` gives it back."""
        return {"name": self.name, "weights": self.weights, "digest": self.digest}


@dataclass(frozen=True, slots=True)
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
        library = {"timm": "timm", "torchvision": "torchvision"}.get(
            self.encoder.name.removeprefix("eight-views/").split("/")[0]
        )
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
            text = image.encode()
            digest.update(f"{len(text)}:".encode() + text)
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
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
        encoder = EncoderSpec(self.encoder.name).build()
        if self.output == "vector":
            return encoder.vector_dim, (1, 1)
        return encoder.grid_dim, encoder.grid_shape(self.transform.size)

    def store(self, examples: Sequence[Example]) -> FeatureStore:
        """Opens the store of some images; computes what is missing of it first.

        Several processes may ask at once: one computes, the others wait.

        Args:
            examples: N images, in the order of the rows.

        Raises:
            UserError: no room on the disk, or the encoder cannot be built.
            DataError: an image is missing, cannot be decoded, or was changed meanwhile.
        """
        spec = StoreSpec(
            self.encoder,
            {**self.transform.spec(), "min_side": self.transform.min_side},
            self.output,
            [_stamp(example) for example in examples],
        )
        folder = self.cache_dir / spec.key()
        if not folder.is_dir():
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():  # another process may have made it meanwhile
                    self._build(folder, spec, examples)
        return FeatureStore(folder)

    def _build(self, folder: Path, spec: StoreSpec, examples: Sequence[Example]) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = self.encoder.build().to(device)
        size = self.transform.size
        _, regions, width = _encode(encoder, torch.zeros(1, 3, size, size), self.output)[0].shape
        shape = (len(examples), regions, width)
        _log.info("feature store %s: %s of %d images", folder, self.encoder.name, len(examples))

        def batches(start: int) -> Iterator[Half]:
            items = _Images(examples, self.transform, start)
            loader = DataLoader(
                items, _BATCH, num_workers=self.num_workers, collate_fn=_collate, pin_memory=device.type == "cuda"
            )
            for images in _with_progress(loader, start, len(examples)):
                features, mask = _encode(encoder, images, self.output)
                half = _to_half(features, self.encoder.name)
                half[~mask.cpu().numpy()] = np.nan
                yield half
            changed = [image for example, image in zip(examples, spec.images, strict=True) if _stamp(example) != image]
            if changed:
                shutil.rmtree(folder.with_name(folder.name + ".partial"))
                name = changed[0].split("\t")[0]
                raise DataError(f"{name}: changed while its features were computed ({len(changed)} such); start again")

        write_store(folder, shape, {**spec.facts(), "images": list(spec.images)}, batches)


@dataclass
class _Images(Dataset[Tensor]):
    """Images behind a start, as tensors; those that fail as the message that says why."""

    examples: Sequence[Example]
    transform: ImageTransform
    start: int

    def __len__(self) -> int:
        return len(self.examples) - self.start

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(_image(self.examples[self.start + index]).open(self.transform.min_side))
        except DataError as error:  # raised in a worker it would lose its one-line message
            return str(error)


def _image(example: Example) -> ImageRef:
    """The image of an example.

    Raises:
        DataError: it has none.
    """
    if example.image is None:
        raise DataError(f"{example.origin}: has no image, so it has no features; set encoder to null")
    return example.image


def _stamp(example: Example) -> str:
    """Text that changes with the image.

    Raises:
        DataError: there is no such file.
    """
    try:
        return _image(example).stamp()
    except OSError as error:
        where = f" (for {example.origin})" if example.origin else ""
        raise DataError(
            f"{example.image_name}: no such image file{where}; put it there, or pass on_bad_image=skip"
        ) from error


def _collate(items: list[Tensor | str]) -> Tensor | str:
    """A batch `(B, 3, H, W)`, or the first message."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    return torch.stack(tensors) if len(tensors) == len(items) else next(i for i in items if isinstance(i, str))


def _with_progress(loader: Iterable[Tensor | str], start: int, total: int) -> Iterator[Tensor]:
    """The batches, with a bar on standard error."""
    from core.terminal import task_bar

    with task_bar(transient=True, count=True) as bar:
        task = bar.add_task("image features", total=total, completed=start)
        for images in loader:
            if isinstance(images, str):
                raise DataError(images)
            yield images
            bar.advance(task, len(images))


@torch.inference_mode()
def _encode(encoder: ImageEncoder, images: Tensor, output: Output) -> tuple[Tensor, Tensor]:
    """`(B, 3, H, W)` to `(B, R, C)`, or `(B, 1, D)` for vectors, and which regions are real, `(B, R)`."""
    device = next(iter(encoder.parameters())).device
    images = images.to(device, non_blocking=True)
    if output == "grid":
        return encoder.regions(images)
    return encoder.vector(images).unsqueeze(1), torch.ones(len(images), 1, dtype=torch.bool, device=device)


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
