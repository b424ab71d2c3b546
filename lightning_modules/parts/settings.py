"""What settings must fulfil that several methods share."""

from collections.abc import Mapping
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


def scheduled_share(settings: Mapping[str, Any], epoch: int) -> float:
    """Share of the words that a decoder reads in an epoch that are its own (scheduled sampling, Bengio et al. 2015).

    Args:
        settings: hyper-parameters: `scheduled_sampling`, the final share; `scheduled_sampling_epochs`, in which it
            grows in equal steps, 0: it is whole at once; `scheduled_sampling_start`, the last epoch without.
        epoch: counted from 0.

    >>> settings = {"scheduled_sampling": 0.5, "scheduled_sampling_epochs": 2}
    >>> [scheduled_share(settings, epoch) for epoch in range(4)]
    [0.0, 0.25, 0.5, 0.5]
    """
    share, start = float(settings["scheduled_sampling"]), settings.get("scheduled_sampling_start", 0)
    epochs = settings["scheduled_sampling_epochs"]
    if epoch < start or not share:
        return 0.0
    return share if epochs <= 0 else share * min(1.0, (epoch - start) / epochs)
