"""What settings must fulfil that several methods share."""

from typing import Any

from core.errors import UserError


def check_one_encoder(encoder: str | None, feature_dim: int | None, needs_own: dict[str, bool]) -> None:
    """Makes sure that exactly one of data module and module has a CNN.

    Args:
        encoder: the module's, by name.
        feature_dim: width of the data module's features, None when it gives pictures.
        needs_own: settings that mean something only for the module's own encoder, and whether each is given.

    Raises:
        UserError: neither or both have one, or settings are for one that is not there.
    """
    if encoder is None and feature_dim is None:
        raise UserError(
            "there is no image encoder: name one in data.init_args.encoder (frozen, features computed once) or in "
            "model.init_args.image_encoder (frozen, fine-tuned or random)"
        )
    if encoder is not None and feature_dim is not None:
        raise UserError(
            f"image_encoder is '{encoder}', but the data module has an encoder, too, so it gives features: set "
            "data.init_args.encoder and encoder_weights, or image_encoder, to null"
        )
    for name in (name for name, given in needs_own.items() if given and encoder is None):
        raise UserError(
            f"{name} is given without an image_encoder: the data module's encoder is frozen, its features are stored; "
            "set data.init_args.encoder to null and image_encoder here"
        )


def words_of(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Id of each word of a vocabulary of words.

    Args:
        tokenizer: its spec.

    Raises:
        UserError: it is of word pieces.
    """
    from datamodules.loading.tokenization import WordTokenizer

    if tokenizer["kind"] != "word":
        raise UserError("word_vectors needs a vocabulary of whole words: set data.init_args.tokenizer to word")
    words = WordTokenizer(tokenizer["words"], tokenizer["max_tokens"])
    return {word: words.encode(word)[1] for word in tokenizer["words"]}


def share_of_own_words(share: float, epochs: int, epoch: int) -> float:
    """Probability that a decoder reads its own words in an epoch of training (scheduled sampling, Bengio et al. 2015).

    Args:
        share: its final value.
        epochs: in so many it grows from 0 in equal steps; 0: it is there from the beginning.
        epoch: counted from 0.

    >>> [share_of_own_words(0.5, 2, epoch) for epoch in range(4)]
    [0.0, 0.25, 0.5, 0.5]
    """
    return share if epochs <= 0 else share * min(1.0, epoch / epochs)
