"""What all sources of pictures have in common: they know how many there are and read any rows of them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A picture that is not decoded yet.

    Attributes:
        name: what it is called in the source, in valid UTF-8.
        content: path of its file, its address (http, https), or its bytes; None: the source has nothing there.
    """

    name: str
    content: str | bytes | None


class PictureSource(ABC):
    """Pictures in a fixed order, of which any rows can be read, by any process.

    A source is small: at most 300 bytes for each picture, and it travels to loader processes.

    Attributes:
        kind: what it is, in one word.
    """

    kind: str

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures there are."""

    @abstractmethod
    def digest(self) -> str:
        """Text that is the same as long as the source holds the same pictures under the same names.

        Their content is not looked at; for shards it is the names and sizes of the files.
        """

    @abstractmethod
    def read(self, rows: range) -> Iterator[RawPicture]:
        """Reads rows one after the other.

        Args:
            rows: with step 1, all of them in the source.

        Raises:
            DataError: a whole file of the source cannot be read.
        """


def digest_of(words: Iterable[str]) -> str:
    """A digest of texts in their order.

    >>> digest_of(["a", "b"]) == digest_of(["ab"])
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for word in words:
        digest.update(word.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def valid_text(name: str) -> str:
    r"""A name without halves of characters, which file names that are not UTF-8 have and no table can hold.

    >>> print(valid_text("caf\udce9.jpg"))
    caf\udce9.jpg
    """
    return name.encode("utf-8", "backslashreplace").decode()
