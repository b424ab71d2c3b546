"""Checkpoints in parts: a folder that every process of a sharded run writes its part into (FSDP).

PyTorch lists the parts in a pickled file, ``.metadata``, and reads that without a guard. Here only the few names that
such a list needs are known, and all of them stand for plain values, so nothing in it is executed.
"""

import hashlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import write_json
from core.inputs import damage, open_regular, read_bytes, read_object

LIST, FACTS, NOTE = ".metadata", "meta.pt", "list.json"
"""Which tensor lies where, everything that is no tensor, and the digest of the list, which PyTorch does not write."""
_MODULE = ("model.", "state_dict.")
"""What stands before the names of the weights: FSDP's word and that of the strategy after it."""
_MOST_LIST = 1 << 28
"""Bytes of a list; a tensor takes about a thousand in each part."""
_SLACK = 1 << 16
"""Bytes by which a tensor may exceed those of its file."""
_AGAIN = "copy the folder whole, with all of its parts"
_VALUES = frozenset(
    {
        *(
            ("torch.distributed.checkpoint.metadata", name)
            for name in (
                "BytesStorageMetadata",
                "ChunkStorageMetadata",
                "Metadata",
                "MetadataIndex",
                "StorageMeta",
                "TensorProperties",
                "TensorStorageMetadata",
                "_MEM_FORMAT_ENCODING",
            )
        ),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
        ("pathlib._local", "PosixPath"),
        ("pathlib._local", "WindowsPath"),
    }
)
"""Classes and functions in a list; each stands for its plain values."""


def is_sharded(path: str | Path) -> bool:
    """Whether a path is the folder of a checkpoint in parts, whole or not."""
    folder = Path(path)
    return folder.is_dir() and ((folder / FACTS).is_file() or (folder / LIST).is_file())


def note_list(folder: Path) -> None:
    """Notes the digest of the list of a checkpoint that is complete: it has no checksum of its own, as parts have.

    Raises:
        OSError: it cannot be written.
    """
    write_json(folder / NOTE, {"blake2b": _digest((folder / LIST).read_bytes())})


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_parts(folder: Path) -> dict[str, Any]:
    """The weights of a checkpoint in parts, put together, by their names in the module.

    Every part is compared with its checksum. What an optimiser noted is not read.

    Raises:
        UserError: a part is missing or damaged.
        Exception: of a dozen types, when the list is damaged.
    """
    listed = _read_list(folder)
    files, places = _Files(folder), list(_places(listed))
    for _, _, info in places:
        files.path(info)
    prefix = next((one for one in _MODULE if any(name.startswith(one) for name, *_ in places)), None)
    if prefix is None:
        raise UserError(f"its list '{LIST}' has no weights")
    entries = listed.state_dict_metadata.items()
    own = {name: entry for name, entry in entries if name.startswith(prefix) and hasattr(entry, "chunks")}
    weights: dict[str, Any] = {}
    boxes: dict[str, list[tuple[Sequence[int], Sequence[int]]]] = {name: [] for name in own}
    for name, offsets, info in places:
        if name in own:
            piece = files.tensor(info)
            if name not in weights:
                weights[name] = files.empty(name, tuple(map(int, own[name].size)), piece.dtype)
            place = weights[name]
            for dimension, offset in enumerate(offsets):
                place = place.narrow(dimension, offset, piece.shape[dimension])
            place.copy_(piece)
            boxes[name].append((offsets, piece.shape))
    for name, found in boxes.items():
        if not _is_tiled(found, own[name].size):
            raise UserError(f"its weights '{name}' are not complete; {_AGAIN}")
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _is_tiled(boxes: Sequence[tuple[Sequence[int], Sequence[int]]], size: Sequence[int]) -> bool:
    """Whether boxes inside a tensor, with their first corner and lengths, cover it without an overlap.

    >>> _is_tiled([((0, 0), (1, 2)), ((1, 0), (1, 2))], (2, 2)), _is_tiled([((0,), (2,)), ((0,), (2,))], (4,))
    (True, False)
    """
    if sum(math.prod(lengths) for _, lengths in boxes) != math.prod(map(int, size)):
        return False
    return all(
        any(a + n <= b or b + m <= a for a, n, b, m in zip(*one, *other, strict=False))
        for one, other in combinations([box for box in boxes if math.prod(box[1])], 2)
    )


def pieces(folder: Path) -> dict[tuple[str, tuple[int, ...]], Any]:
    """Every piece of a checkpoint in parts, what optimisers noted included, by its name and place in its tensor.

    Raises:
        UserError: something which PyTorch would read is missing, damaged, or more than plain values.
        Exception: of a dozen types, when the list is damaged.
    """
    files = _Files(folder)
    return {(name, tuple(offsets)): files.value(info) for name, offsets, info in _places(_read_list(folder))}


def _read_list(folder: Path) -> Any:
    """What PyTorch notes of the parts, as plain values.

    Raises:
        UserError: it is missing or damaged.
    """
    for name in (LIST, FACTS):
        if not (folder / name).is_file():
            raise UserError(f"its part '{name}' is missing; {_AGAIN}")
    content = read_bytes(folder / LIST, _MOST_LIST, "the list of a checkpoint's parts", UserError)
    if (folder / NOTE).is_file() and read_object(folder / NOTE, _AGAIN).get("blake2b") != _digest(content):
        raise UserError(f"its part '{LIST}' is not what was written; {_AGAIN}")
    with damage(folder / LIST, "the list of a checkpoint's parts", _AGAIN):
        listed = _PlainValues(io.BytesIO(content)).load()
        if not isinstance(listed.state_dict_metadata, dict) or not isinstance(listed.storage_data, dict):
            raise TypeError("it lists nothing")
    return listed


def _places(listed: Any) -> Iterator[tuple[str, Sequence[int], Any]]:
    """Name of each piece of a tensor or value, where it begins in its tensor, and where it lies."""
    for index, info in listed.storage_data.items():
        yield str(index.fqn), tuple(map(int, getattr(index, "offset", None) or ())), info


class _PlainValues(pickle.Unpickler):
    """Reads a list of parts: the objects in it become records of their values, and any other name is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        # of this list alone: what a stranger's list does to it ends with it
        self._record = type("Record", (_Record,), {})

    def find_class(self, module: str, name: str) -> Any:
        """The few names that such a list has."""
        if (module, name) in _VALUES:
            return self._record
        if module == "torch":
            import torch

            if name == "Size":
                return tuple
            if isinstance(kind := getattr(torch, name, None), torch.dtype):
                return kind
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:160])


class _Record:
    """What stands for an object in a list of parts."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update(state)
        else:
            self.values = state


class _Files:
    """The files of the parts.

    Args:
        folder: of the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())

    def path(self, info: Any) -> Path:
        """The file of a piece.

        Raises:
            UserError: it is missing.
        """
        name = str(info.relative_path)
        if Path(name).name != name or not (self.folder / name).is_file():
            raise UserError(f"its part '{name}' is missing; {_AGAIN}")
        return self.folder / name

    def empty(self, name: str, size: Sequence[int], dtype: Any) -> Any:
        """Room for a tensor.

        Raises:
            UserError: it would have more bytes than all parts.
        """
        import torch

        if min(size, default=1) < 0 or math.prod(size) * dtype.itemsize > self.bytes + _SLACK:
            raise UserError(f"its weights '{name}' claim more bytes than its parts have")
        return torch.empty(tuple(size), dtype=dtype)

    def tensor(self, info: Any) -> Any:
        """A piece of a tensor.

        Raises:
            UserError: its part is missing or damaged.
        """
        import torch

        found = self.value(info)
        if not isinstance(found, torch.Tensor):
            raise UserError(f"its part '{info.relative_path}' has something else than weights; {_AGAIN}")
        return found

    def value(self, info: Any) -> Any:
        """A piece: a tensor or a plain value.

        Raises:
            UserError: its part is missing or damaged.
        """
        import torch

        path, offset, length = self.path(info), int(info.offset), int(info.length)
        if getattr(info, "transform_descriptors", None):
            raise UserError(f"its part '{path.name}' is packed in a way that is not read here")
        with open_regular(path, "a part of a checkpoint", UserError) as file:
            file.seek(offset)
            content = file.read(length) if 0 < length <= self.bytes else b""
        if len(content) != length or not length:
            raise UserError(f"its part '{path.name}' is cut off; {_AGAIN}")
        with damage(path, "a part of a checkpoint", _AGAIN):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(member.file_size for member in archive.infolist()) > length + _SLACK:
                    raise ValueError("it unpacks to more than it has")
                if archive.testzip() is not None:
                    raise ValueError("it is not what was written")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
