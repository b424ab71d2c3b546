"""Pretrained word vectors from text files in the formats of GloVe and word2vec.

Letters: F words found, W width of a vector.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from core.errors import DataError, UserError
from core.inputs import open_regular

_LONGEST = 1 << 20
"""Characters of a line that are read."""


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """Vectors of the words of a vocabulary that occur in a file.

    Attributes:
        ids: ids of the words, `(F,)`, long.
        vectors: as in the file, `(F, W)`, float.
        share: F divided by the number of words asked for, in [0, 1].
    """

    ids: Tensor
    vectors: Tensor
    share: float


def read_word_vectors(path: str, words: Mapping[str, int], width: int) -> WordVectors:
    """Reads the vectors of some words; the other lines are skipped without being parsed, so memory stays small.

    A line is a word and W numbers separated by blanks (a word may itself contain blanks, as in GloVe's 840B file). A
    first line of two integers is word2vec's header. A word is found as it is written, or else by the first line that
    equals it except for capitals. If several lines have the same word, the first counts, being the most frequent.

    Args:
        path: the text file, UTF-8.
        words: id of each word.
        width: expected W.

    Raises:
        DataError: the line of a requested word is not a word and W finite numbers, or the file is not a text file; the
            message names file and line.
        UserError: the file does not exist, or its vectors have another width.
    """
    if not Path(path).exists():
        raise UserError(f"file of word vectors {path!r} does not exist; give one in GloVe's or word2vec's text format")
    exact: dict[str, Tensor] = {}
    folded: dict[str, Tensor] = {}
    try:
        with (
            open_regular(path, "a text file of word vectors", UserError) as binary,
            io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape", newline="\n") as file,
        ):
            for number, word, line in _lines(file, path, width):
                lower = word.lower()
                if (word in words and word not in exact) or (lower in words and lower not in folded):
                    vector = _numbers(path, number, word, line, width)
                    if vector is None:  # the word continues after its first blank, so it is another one
                        continue
                    if word in words:
                        exact.setdefault(word, vector)
                    folded.setdefault(lower, vector)
    except OSError as error:
        raise UserError(f"file of word vectors {path!r} cannot be read ({error.strerror}); check the path") from error
    found = {word: vector for word in words if (vector := exact.get(word, folded.get(word))) is not None}
    ids = torch.tensor([words[word] for word in found], dtype=torch.long)
    vectors = torch.stack(list(found.values())) if found else torch.empty(0, width)
    return WordVectors(ids=ids, vectors=vectors, share=len(found) / max(len(words), 1))


def _lines(file: TextIO, path: str, width: int) -> Iterator[tuple[int, str, str]]:
    """Line number from 1, first word and text of every line with a vector; the first one is checked.

    Raises:
        DataError: the first line is not a vector.
        UserError: the file has another width.
    """
    checked = False
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), start=1):
        if len(line) == _LONGEST:
            raise DataError(f"{path}, line {number}: has {_LONGEST} characters or more; is it a text file?")
        word = line.partition(" ")[0]
        if checked:
            yield number, word, line
            continue
        fields = line.split()
        if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
            _check_width(path, int(fields[1]), width)
            continue
        try:
            [float(field) for field in fields[1:]]
        except ValueError:
            fields = []
        if len(fields) < 2:
            raise DataError(
                f"{path}, line {number}: not a word and its numbers; give a text file in GloVe's or word2vec's format, "
                "unpacked (binary files have to be converted)"
            )
        _check_width(path, len(fields) - 1, width)
        checked = True
        yield number, word, line


def _check_width(path: str, found: int, width: int) -> None:
    if found != width:
        raise UserError(f"{path} has {found} numbers for each word, but word_dim={width}; set it to {found}")


def _numbers(path: str, number: int, word: str, line: str, width: int) -> Tensor | None:
    """The vector of a line, or None if its word contains blanks.

    Raises:
        DataError: there are not W finite numbers.
    """
    fields = line.split()
    try:
        vector = [float(field) for field in fields[-width:]]
    except ValueError:
        vector = []
    good = len(vector) == width and len(fields) > width and all(abs(value) < float("inf") for value in vector)
    if not good:
        raise DataError(
            f"{path}, line {number}: the word {word!r} is not followed by {width} finite numbers; fix or remove it"
        )
    return torch.tensor(vector) if len(fields) == width + 1 else None
