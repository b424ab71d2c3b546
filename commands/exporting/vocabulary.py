"""A tokenizer's way back from ids to text as one table, so that whoever decodes needs no tokenizer library."""

import json
import random
from typing import Any

from commands.exporting.standalone import text_of
from core.errors import UserError
from datamodules.loading.tokenization import CaptionTokenizer, WordTokenizer

_CHECKS, _LENGTH = 200, 12


def text_table(tokenizer: CaptionTokenizer) -> dict[str, Any]:
    """The text of every token.

    ``{"kind": "bytes", "tokens": [...]}``: a text is the bytes of its tokens one after the other, in UTF-8; each letter
    of the table is one byte, as Latin-1 has it. ``{"kind": "pieces", "first": [...], "later": [...]}``: the text of a
    token at the beginning, and behind others. Tokens without a text have an empty one.

    Raises:
        UserError: the tokenizer writes what follows from neither.
    """
    if isinstance(tokenizer, WordTokenizer):
        words = ["" if token in (tokenizer.pad_id, tokenizer.bos_id) else w for token, w in enumerate(tokenizer.words)]
        return {"kind": "pieces", "first": words, "later": [word and f" {word}" for word in words]}
    described = json.loads(tokenizer.spec()["tokenizer"])
    kind = (described.get("decoder") or {}).get("type")
    table = _bytes(described, tokenizer.vocab_size) if kind == "ByteLevel" else _pieces(tokenizer)
    _check(table, tokenizer)
    return table


def _check(table: dict[str, Any], tokenizer: CaptionTokenizer) -> None:
    """Compares the table with the tokenizer on random tokens."""
    draw = random.Random(0)
    ids = [token for token in range(tokenizer.vocab_size) if token != tokenizer.eos_id]
    for _ in range(_CHECKS):
        tokens = draw.choices(ids, k=_LENGTH)
        if text_of(table, tokens) != tokenizer.decode(tokens):
            raise UserError(
                "the tokenizer of this run writes texts that are no sequence of its tokens' texts, so that they cannot "
                "be written without it: leave out --format"
            )


def _bytes(described: dict[str, Any], size: int) -> dict[str, Any]:
    """Bytes of the tokens of a byte-level encoding, which writes each byte as a visible letter."""
    letters = {letter: byte for byte, letter in _letters().items()}
    tokens = [""] * size
    for token, number in described["model"]["vocab"].items():
        raw = [letters.get(letter) for letter in token]
        known = [byte for byte in raw if byte is not None]
        tokens[number] = bytes(known).decode("latin-1") if len(known) == len(raw) else _latin(token)
    for added in described.get("added_tokens", ()):
        tokens[added["id"]] = "" if added["special"] else _latin(added["content"])
    return {"kind": "bytes", "tokens": tokens}


def _latin(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def _letters() -> dict[int, str]:
    """The letter of each byte (Radford et al. 2019): itself if it is visible, else one from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def _pieces(tokenizer: CaptionTokenizer) -> dict[str, Any]:
    """Texts of tokens at the beginning and behind others, found by decoding each between two known ones."""
    anchor = next(
        (t for t in range(tokenizer.vocab_size) if t != tokenizer.eos_id and tokenizer.decode([t]).isalnum()), None
    )
    if anchor is None:
        raise UserError("no token of the tokenizer of this run is a word: leave out --format")
    begin = tokenizer.decode([anchor])
    end = tokenizer.decode([anchor, anchor])[len(begin) :]
    first, later = [], []
    for token in range(tokenizer.vocab_size):
        ends = token == tokenizer.eos_id
        first.append("" if ends else tokenizer.decode([token]))
        later.append("" if ends else tokenizer.decode([anchor, token, anchor])[len(begin) :].removesuffix(end))
    return {"kind": "pieces", "first": first, "later": later}
