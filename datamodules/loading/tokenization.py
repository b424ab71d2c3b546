"""Caption tokenizers. Both kinds keep BOS, EOS and PAD apart and travel inside a checkpoint as plain JSON.

Letters: V vocabulary, T tokens of a caption with BOS and EOS.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from core.checkpoints import read_checkpoint
from core.errors import UserError
from core.files import write_cache
from core.hub import hub_page, only_local
from core.inputs import check_folder, damage, parse_json, read_text, shown

Spec = dict[str, Any]
_WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")  # \u2019: the typographic apostrophe
_LARGEST_FILE = 1 << 28
"""Bytes of a file in a folder of a tokenizer."""
_WAYS_OUT = (
    "give a local folder with tokenizer.json, vocab.json and merges.txt, or vocab.txt, go online once so that the hub "
    "can send it, or use tokenizer: word"
)
_NO_CODE: dict[str, Any] = {"trust_remote_code": False}  # else a folder that brings code is asked about on the terminal
_SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")


class CaptionTokenizer(Protocol):
    """Turns captions into token ids and back.

    Attributes:
        vocab_size: number of ids V, special ones included.
        bos_id: first token of every caption.
        eos_id: last token of every caption.
        pad_id: padding after a caption, never inside one.
        max_tokens: longest caption in tokens with BOS and EOS; longer ones are cut.
        unk_id: token of unknown words, which a caption never contains when it is written; None: there are none.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    max_tokens: int

    @property
    def unk_id(self) -> int | None:
        """See above; read only."""

    def encode(self, text: str) -> list[int]:
        """Returns BOS, the caption's tokens (cut to `max_tokens` in all) and EOS."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of token ids up to the first EOS, special tokens omitted."""

    def spec(self) -> Spec:
        """Describes the tokenizer as plain JSON; `tokenizer_from_spec` builds it again."""


def split_words(text: str) -> list[str]:
    """Splits a caption into lower-case words; punctuation goes, inner hyphens and apostrophes stay.

    >>> split_words("Two T-shirts, a dog's bowl.")
    ['two', 't-shirts', 'a', "dog's", 'bowl']
    """
    return _WORD.findall(text.lower())


class WordTokenizer:
    """A vocabulary of whole words.

    Args:
        words: the vocabulary without special tokens, in the order of their ids.
        max_tokens: longest caption in tokens with BOS and EOS.

    >>> tokenizer = WordTokenizer(["dog", "a"], max_tokens=5)
    >>> tokenizer.encode("A dog runs"), tokenizer.decode([1, 5, 4, 2, 0])
    ([1, 5, 4, 3, 2], 'a dog')
    """

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __init__(self, words: Sequence[str], *, max_tokens: int = 36) -> None:
        self.words = [*_SPECIAL_WORDS, *words]
        self.max_tokens = _checked_length(max_tokens)
        self.vocab_size = len(self.words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int, max_tokens: int) -> "WordTokenizer":
        """Makes the vocabulary of all words that occur at least `min_count` times, most frequent first."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        return cls.of_counts(counts, min_count, max_tokens)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], min_count: int, max_tokens: int) -> "WordTokenizer":
        """Makes the vocabulary of how often each word occurs, as `build` does."""
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise UserError(
                f"no word occurs {min_count} times in the training captions ({len(counts)} different words): "
                "lower min_count or check the captions"
            )
        return cls(kept, max_tokens=max_tokens)

    def encode(self, text: str) -> list[int]:
        """Returns BOS, word ids (unknown words as `<unk>`), EOS."""
        ids = [self._ids.get(word, self.unk_id) for word in split_words(text)[: self.max_tokens - 2]]
        return [self.bos_id, *ids, self.eos_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the words up to the first EOS with blanks."""
        words = []
        for token in ids:
            if token == self.eos_id:
                break
            if token not in (self.pad_id, self.bos_id):
                words.append(self.words[token])
        return " ".join(words)

    def spec(self) -> Spec:
        """Describes the vocabulary as plain JSON."""
        return {"kind": "word", "words": self.words[len(_SPECIAL_WORDS) :], "max_tokens": self.max_tokens}


class BPETokenizer:
    """A byte-pair encoding, BERT's word pieces, or any other of the `tokenizers` library, with PAD and BOS of its own.

    GPT-2 has one special token, `<|endoftext|>`, which marks both ends in its pretraining. Here it stays the end;
    `<|bos|>` and `<|pad|>` are added behind the vocabulary where the tokenizer has none, so that no id has two
    meanings. The embedding grows by as many rows. BERT has all three: captions are ``[CLS] ... [SEP]``, filled with
    ``[PAD]``, and its vocabulary stays as it is.

    Args:
        tokenizer_json: content of a `tokenizer.json` file.
        eos: the token that ends a text.
        max_tokens: longest caption in tokens with BOS and EOS.
        bos: the token that begins a text, when it is a real one and not the same as `eos`.
        pad: the filling token, when there is one and not the same as `eos`.
    """

    unk_id: int | None = None  # every text has pieces

    def __init__(
        self, tokenizer_json: str, *, eos: str, max_tokens: int = 36, bos: str | None = None, pad: str | None = None
    ) -> None:
        from tokenizers import AddedToken, Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # "<|endoftext|>" inside a caption is text like any other
        self.max_tokens = _checked_length(max_tokens)
        self._eos = eos
        self._bos = bos if bos and bos != eos else "<|bos|>"
        self._pad = pad if pad and pad != eos else "<|pad|>"
        new = [token for token in (self._bos, self._pad) if self._tokenizer.token_to_id(token) is None]
        self._tokenizer.add_special_tokens([AddedToken(token, special=True) for token in new])
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.eos_id, self.bos_id, self.pad_id = (self._id(token) for token in (self._eos, self._bos, self._pad))

    @classmethod
    def load(cls, source: str, max_tokens: int) -> "BPETokenizer":
        """Reads a tokenizer from a local folder or from the hub.

        Raises:
            UserError: neither a readable folder nor a hub name that can be reached.
        """
        if Path(source).is_dir():
            check_folder(source, _LARGEST_FILE, "files of a tokenizer")
        with damage(f"tokenizer '{source}'", "a tokenizer", _WAYS_OUT):
            try:
                loaded = _loaded(source)
            except OSError as error:
                if Path(source).exists() or not only_local():
                    raise
                where = f"is no folder and was not downloaded before, and its hub ({hub_page(source)}) does not answer"
                raise UserError(f"tokenizer '{source}' {where}; {_WAYS_OUT}") from error
            described = loaded.backend_tokenizer.to_str()
            loaded.backend_tokenizer.encode("\u2603")  # fails now when it has no piece for what it does not know
        # BERT's texts stand between [CLS] and [SEP], which is what it calls them
        bos, eos = loaded.bos_token or loaded.cls_token, loaded.eos_token or loaded.sep_token
        if len(loaded) <= len(loaded.all_special_tokens) or eos is None:
            raise UserError(f"tokenizer '{source}' has no vocabulary or no end-of-text token: choose another one")
        return cls(described, eos=eos, max_tokens=max_tokens, bos=bos, pad=loaded.pad_token)

    def _id(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise UserError(f"the tokenizer has no token '{token}'")
        return int(index)

    def encode(self, text: str) -> list[int]:
        """Returns BOS, the pieces, EOS."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[: self.max_tokens - 2]
        return [self.bos_id, *ids, self.eos_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the pieces up to the first EOS."""
        kept = []
        for token in ids:
            if token == self.eos_id:
                break
            if token not in (self.pad_id, self.bos_id):
                kept.append(int(token))
        return str(self._tokenizer.decode(kept)).strip()

    def spec(self) -> Spec:
        """Describes the tokenizer as plain JSON; the whole encoding is in it (about 3 MB for GPT-2)."""
        return {
            "kind": "bpe",
            "tokenizer": self._tokenizer.to_str(),
            "eos": self._eos,
            "bos": self._bos,
            "pad": self._pad,
            "max_tokens": self.max_tokens,
        }


def tokenizer_from_spec(spec: Spec) -> WordTokenizer | BPETokenizer:
    """Builds the tokenizer that `spec` describes.

    Raises:
        UserError: the description is of no known kind.
    """
    match spec.get("kind"):
        case "word":
            return WordTokenizer([str(word) for word in spec["words"]], max_tokens=spec["max_tokens"])
        case "bpe":
            return BPETokenizer(
                spec["tokenizer"], eos=spec["eos"], max_tokens=spec["max_tokens"], bos=spec["bos"], pad=spec["pad"]
            )
        case other:
            raise UserError(f"unknown tokenizer kind {shown(other)}: expected 'word' or 'bpe'")


def build_tokenizer(
    name: Literal["word"] | str,
    read_captions: Callable[[], Sequence[str]],
    min_count: int,
    max_tokens: int,
    cache_dir: Path,
) -> WordTokenizer | BPETokenizer:
    """Makes the tokenizer of a data module.

    A word vocabulary is kept in a file named by what it was made from, so that it can be looked at and every run on
    the same captions has the same ids.

    Args:
        name: "word" for a vocabulary of the training captions; a run folder or checkpoint, to have exactly that run's
            tokenizer, `max_tokens` included; else a hub id or local folder of a tokenizer.
        read_captions: gives the training captions; called for a word vocabulary only.
        min_count: words seen less often are unknown (word vocabulary only).
        max_tokens: longest caption in tokens with BOS and EOS.
        cache_dir: folder for vocabulary files.
    """
    if Path(name).suffix == ".ckpt" or (Path(name) / "checkpoints").is_dir():
        with damage(name, "a checkpoint with a tokenizer", "give another run"):
            return tokenizer_from_spec(read_checkpoint(name)["inference"]["tokenizer"])
    if name != "word":
        return BPETokenizer.load(name, max_tokens)
    captions = read_captions()
    digest = hashlib.blake2b(json.dumps([min_count, captions]).encode(), digest_size=8).hexdigest()
    path = cache_dir / f"vocabulary-{digest}.json"
    if path.is_file():
        with contextlib.suppress(UserError):  # cut off by a full disk: it is made again
            words = parse_json(read_text(path), path)
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                return WordTokenizer(words, max_tokens=max_tokens)
    tokenizer = WordTokenizer.build(captions, min_count, max_tokens)
    write_cache(path, json.dumps(tokenizer.spec()["words"], ensure_ascii=False, indent=0))
    return tokenizer


def _loaded(source: str) -> Any:
    """The tokenizer of a folder or hub id as transformers has it.

    Raises:
        OSError: it is not there.
        ValueError: it is broken.
    """
    from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer

    folder = Path(source)
    local = folder.is_dir() or only_local()
    # a folder of nothing but the vocabulary names no class, so AutoTokenizer cannot choose one
    if not (folder / "tokenizer.json").is_file() and (folder / "merges.txt").is_file():
        return GPT2Tokenizer.from_pretrained(source, local_files_only=local, **_NO_CODE)
    if (folder / "vocab.txt").is_file() and not list(folder.glob("tokenizer*.json")):
        # nothing says whether capitals count: they do when words with capitals are in it (others have a handful)
        words = read_text(folder / "vocab.txt").splitlines()
        cased = sum(word.istitle() for word in words) > len(words) / 100
        return BertTokenizer.from_pretrained(source, local_files_only=local, **_NO_CODE, do_lower_case=not cased)
    return AutoTokenizer.from_pretrained(source, local_files_only=local, **_NO_CODE)


def _checked_length(max_tokens: int) -> int:
    if max_tokens < 3:
        raise UserError(f"max_tokens is {max_tokens}: expected at least 3, for BOS, one word and EOS")
    return max_tokens
