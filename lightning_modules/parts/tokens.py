"""What modules share that read and write captions: special tokens, longest caption, the run's tokenizer."""

from typing import Any

from core.errors import UserError
from datamodules.loading.tokenization import CaptionTokenizer, WordTokenizer, tokenizer_from_spec
from lightning_modules.parts.mixin import Mixin
from networks.captioners.base import TokenIds


class TokenOptions(Mixin):
    """A module that writes captions token by token.

    Args:
        label_smoothing: share of the target probability that is spread over all tokens.
        max_tokens: longest generated caption in tokens, EOS included.
        vocab_size: tokens of the data module's tokenizer.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling behind captions.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        max_tokens: int = 36,
        vocab_size: int = 10_000,
        bos_id: int = 1,
        eos_id: int = 2,
        pad_id: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.label_smoothing, self.max_tokens = label_smoothing, max_tokens
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = vocab_size, bos_id, eos_id, pad_id
        self.tokenizer: CaptionTokenizer | None = None

    @property
    def token_ids(self) -> TokenIds:
        """What a network must know of the vocabulary."""
        return TokenIds(vocab_size=self.vocab_size, bos_id=self.bos_id, eos_id=self.eos_id, pad_id=self.pad_id)

    def setup(self, stage: str) -> None:
        """Prepares the tokenizer; see `BaseModule.setup` for the rest."""
        super().setup(stage)
        if self.inference:
            self.use_tokenizer(tokenizer_from_spec(self.inference["tokenizer"]))

    def use_tokenizer(self, tokenizer: CaptionTokenizer) -> None:
        """Takes the tokenizer that captions are read and written with."""
        self.tokenizer = tokenizer

    def check_settings(self) -> None:
        """Also checks the label smoothing."""
        super().check_settings()
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"model.init_args.label_smoothing is {self.label_smoothing}: expected 0 to 1")

    def decoded(self, token_ids: list[list[int]]) -> list[str]:
        """Texts of captions that were written."""
        assert self.tokenizer is not None, "setup() comes first"
        return [self.tokenizer.decode(ids) for ids in token_ids]


def words_of(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Id of each word of a vocabulary of words.

    Args:
        tokenizer: its spec.

    Raises:
        UserError: it is of word pieces.
    """
    if tokenizer["kind"] != "word":
        raise UserError("word_vectors needs a vocabulary of whole words: set data.init_args.tokenizer to word")
    words = WordTokenizer(tokenizer["words"], max_tokens=tokenizer["max_tokens"])
    return {word: words.encode(word)[1] for word in tokenizer["words"]}
