"""The Hugging Face hub: whether it can be asked at all, and single files of it."""

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

from core.errors import UserError
from core.inputs import reason

WAYS_OUT = "go online once so that it is downloaded, give a local file or folder, or set weights to null (random)"
"""What a user can do when weights cannot be reached."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights of a repository or folder, the first that is there."""
_HUB = "https://huggingface.co"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@lru_cache(maxsize=1)
def only_local() -> bool:
    """True when the hub's name or port does not answer: its library would try every file six times, for minutes.

    With a proxy this machine need not see the hub itself, so the library is left to find out.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return True
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return False
    address = urlparse(os.environ.get("HF_ENDPOINT", _HUB))
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=10).close()
    except OSError:
        return True
    return False


def hub_page(repository: str) -> str:
    """Address of a repository, for messages."""
    return f"{os.environ.get('HF_ENDPOINT', _HUB)}/{repository}"


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns whatever a library raises about a download into one line.

    Args:
        what: what is asked for, for the message.

    Raises:
        UserError: it cannot be reached, its download broke off, or it is damaged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries and their clients of the network raise dozens of types
        raise UserError(f"{what} cannot be reached; {WAYS_OUT} ({reason(error)})") from error


def hub_file(repository: str, name: str) -> Path | None:
    """A file of a repository, from the cache or downloaded; its content is what the hub says.

    Args:
        repository: "owner/name", or "name" alone.
        name: name of the file.

    Returns:
        Its path; None where the repository has no such file, or, without the hub, the cache has none.

    Raises:
        UserError: there is no such repository, the download broke off, or the file is damaged.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline = only_local()
    with asking(f"'{name}' of '{repository}'"):
        try:
            path = Path(hf_hub_download(repository, name, local_files_only=offline))
        except LocalEntryNotFoundError:
            if not offline:
                raise
            return None
        except EntryNotFoundError:
            return None
    _check_digest(path)
    return path


def hub_weights(repository: str) -> Path | None:
    """The weights of a repository, safetensors before pickles; None where they are in several files, or not there.

    Raises:
        UserError: as `hub_file`.
    """
    return next((path for name in WEIGHT_FILES if (path := hub_file(repository, name)) is not None), None)


def hub_folder(repository: str) -> str:
    """A folder of the cache with the ``config.json`` and the weights of a repository.

    Returns:
        Its path; the repository as it is named where its weights are in several files, or not there.

    Raises:
        UserError: as `hub_file`.
    """
    config = hub_file(repository, "config.json")
    weights = None if config is None else hub_weights(repository)
    return str(config.parent) if config is not None and weights is not None else repository


def cached_file(repository: str, name: str) -> Path | None:
    """A file of a repository that is in the cache; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, name)
    except HFValidationError:  # not the name of a repository
        return None
    return Path(found) if isinstance(found, str) else None


def _check_digest(path: Path) -> None:
    """Compares a file of the cache with its digest: large files are called by their SHA-256 there.

    Raises:
        UserError: it is another file, or damaged.
    """
    stored = path.resolve()
    if not _DIGEST.fullmatch(stored.name):
        return
    with stored.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != stored.name:
        raise UserError(
            f"'{stored}' is damaged: its SHA-256 begins with {digest[:12]}, the hub says {stored.name[:12]}; remove it "
            "and start again, so that it is downloaded anew"
        )
