"""Networks for emotions by name."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from transformers import VisualBertConfig

from core.errors import UserError
from networks.emotion.base import EmotionNetwork
from networks.emotion.bert import bert_config, load_bert, load_word_embeddings
from networks.emotion.students import BertResNetStudent, LightStudent
from networks.emotion.tfidf import TextClassifier
from networks.emotion.visual_bert import VisualBertLabeller
from networks.encoders.build import ImageEncoder, build_encoder

Architecture = Literal["visual_bert", "light", "bert_resnet", "text"]


def build_emotion_network(
    architecture: Architecture,
    num_labels: int,
    vocab_size: int,
    pad_id: int,
    *,
    weights: str | None = None,
    layers: int | None = None,
    heads: int | None = None,
    bert_dim: int | None = None,
    dropout: float = 0.1,
    word_dim: int = 768,
    hidden_dim: int = 256,
    convolutions: Sequence[int] = (32, 64, 128, 256),
    fusion_dim: int = 256,
    buckets: int = 1 << 16,
    use_image: bool = True,
    image_encoder: str | None = None,
    feature_dim: int | None = None,
    bert_sizes: Mapping[str, Any] | None = None,
    gradient_checkpointing: bool = False,
) -> tuple[EmotionNetwork, dict[str, Any] | None]:
    """Builds a network with random weights; nothing is looked up on the network.

    Args:
        architecture: see the classes for what each argument does.
        num_labels: C.
        vocab_size: tokens.
        pad_id: filling.
        weights: BERT or VisualBERT weights, of which only a local folder's sizes are read here.
        layers: of BERT or VisualBERT; so are `heads`, `bert_dim`.
        heads: attention heads.
        bert_dim: hidden width.
        dropout: everywhere.
        word_dim: light.
        hidden_dim: light.
        convolutions: light.
        fusion_dim: light and bert_resnet.
        buckets: text.
        use_image: look at pictures or their features.
        image_encoder: visual_bert, bert_resnet: the CNN.
        feature_dim: width of the features that batches bring in the place of pictures.
        bert_sizes: as returned here, from a checkpoint.
        gradient_checkpointing: where there are blocks to recompute.

    Returns:
        The network, and BERT's sizes as plain values, None where there is no BERT.

    Raises:
        UserError: values do not fit together.
    """
    if use_image and image_encoder is not None and feature_dim is not None:
        raise UserError(
            f"image_encoder is '{image_encoder}', but the data module has an encoder, too, so it gives features: set "
            "data.init_args.encoder or model.init_args.image_encoder to null"
        )
    if architecture == "text":
        return TextClassifier(num_labels, buckets), None
    feature_dim = feature_dim if use_image else None
    if architecture == "light":
        towers = (word_dim, hidden_dim, convolutions, fusion_dim, dropout)
        return LightStudent(
            num_labels, vocab_size, pad_id, *towers, use_image, feature_dim, gradient_checkpointing
        ), None
    encoder = _encoder(image_encoder if use_image else None, gradient_checkpointing)
    if use_image and encoder is None and feature_dim is None:
        raise UserError(
            "there is nothing to look at: set model.init_args.image_encoder, data.init_args.encoder, or use_image to "
            "false to work with captions only"
        )
    config = bert_config(
        "visual_bert" if architecture == "visual_bert" else "bert",
        weights,
        vocab_size=vocab_size,
        pad_id=pad_id,
        layers=layers,
        heads=heads,
        width=bert_dim,
        dropout=dropout,
        visual_dim=encoder.grid_dim if encoder is not None else feature_dim,
        saved=bert_sizes,
    )
    sizes: dict[str, Any] = {name: value for name, value in config.to_diff_dict().items() if _plain(value)}
    if isinstance(config, VisualBertConfig):
        return VisualBertLabeller(config, num_labels, use_image, encoder, dropout, gradient_checkpointing), sizes
    towers_of_two = (encoder, feature_dim, fusion_dim, dropout, gradient_checkpointing)
    return BertResNetStudent(config, num_labels, *towers_of_two), sizes


def load_published(network: EmotionNetwork, weights: str | None) -> list[str]:
    """Loads published weights of BERT or VisualBERT into the part of a network that has them.

    Args:
        network: from `build_emotion_network`.
        weights: a hub id or local folder; None: nothing is loaded.

    Returns:
        Names of tensors of the body that keep their random start.

    Raises:
        UserError: weights cannot be reached or do not match.
    """
    if weights is None:
        return []
    if isinstance(network, LightStudent):
        load_word_embeddings(network.words, weights)
        return []
    if isinstance(network, (VisualBertLabeller, BertResNetStudent)):
        return load_bert(network.body, weights)
    raise UserError(f"weights is '{weights}', but this architecture has no published weights: set it to null")


def _encoder(name: str | None, gradient_checkpointing: bool) -> ImageEncoder | None:
    return None if name is None else build_encoder(name, None, gradient_checkpointing=gradient_checkpointing)


def _plain(value: object) -> bool:
    """Whether a checkpoint may hold the value."""
    return value is None or isinstance(value, (bool, int, float, str))
