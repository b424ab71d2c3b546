"""Emotion networks by name."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

from core.errors import UserError
from networks.emotion.base import EmotionNetwork
from networks.emotion.bert import bert_config, check_width, load_bert, load_word_embeddings, region_width
from networks.emotion.bert_resnet import BertResNetStudent
from networks.emotion.light import LightStudent
from networks.emotion.tfidf import TextClassifier
from networks.emotion.visual_bert import VisualBertClassifier
from networks.encoders.base import ImageEncoder
from networks.encoders.source import own_encoder

Architecture = Literal["visual_bert", "light", "bert_resnet", "text"]
_WITHOUT_ENCODER = {
    "light": "has convolutions of its own, or reads the features of data.init_args.encoder",
    "text": "reads captions only",
}


class _Common(TypedDict):
    """Arguments that both networks with BERT take."""

    num_labels: int
    encoder: ImageEncoder | None
    dropout: float
    gradient_checkpointing: bool


def build_emotion_network(
    architecture: Architecture,
    *,
    num_labels: int,
    vocab_size: int,
    pad_id: int,
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
    new_projection: bool = False,
    gradient_checkpointing: bool = False,
) -> tuple[EmotionNetwork, dict[str, Any] | None]:
    """Builds a network with random weights; nothing is ever downloaded.

    Args:
        architecture: ``visual_bert``, ``light``, ``bert_resnet`` or ``text``; arguments of the others are ignored.
        num_labels: C.
        vocab_size: number of tokens.
        pad_id: padding token.
        weights: BERT or VisualBERT weights; of a local folder the sizes are read here.
        layers: encoder layers of BERT or VisualBERT.
        heads: their attention heads.
        bert_dim: their hidden width.
        dropout: dropout probability everywhere.
        word_dim: light: width of word embeddings.
        hidden_dim: light: width of the GRU.
        convolutions: light: widths of the convolutions.
        fusion_dim: light and bert_resnet: outputs of fc1.
        buckets: text: features of each group.
        use_image: read images or their features; False: captions only.
        image_encoder: visual_bert and bert_resnet: name of the CNN.
        feature_dim: width of the features that batches bring instead of images.
        bert_sizes: sizes as returned here, from a checkpoint.
        new_projection: visual_bert: the projection of image regions is new and always learns, whatever is frozen.
        gradient_checkpointing: recompute blocks in the backward pass.

    Returns:
        The network, and BERT's sizes as plain values; None without BERT.

    Raises:
        UserError: an unknown architecture, or values that contradict each other.
    """
    _check(architecture, image_encoder)
    if architecture == "text":
        return TextClassifier(num_labels=num_labels, buckets=buckets), None
    feature_dim = feature_dim if use_image else None
    if architecture == "light":
        return LightStudent(
            num_labels=num_labels,
            vocab_size=vocab_size,
            pad_id=pad_id,
            word_dim=word_dim,
            hidden_dim=hidden_dim,
            convolutions=convolutions,
            fusion_dim=fusion_dim,
            dropout=dropout,
            use_image=use_image,
            feature_dim=feature_dim,
            gradient_checkpointing=gradient_checkpointing,
        ), None
    from transformers import VisualBertConfig

    encoder = None
    if use_image:
        encoder = own_encoder(image_encoder, feature_dim, gradient_checkpointing=gradient_checkpointing)
    config = bert_config(
        "visual_bert" if architecture == "visual_bert" else "bert",
        weights,
        vocab_size=vocab_size,
        pad_id=pad_id,
        layers=layers,
        heads=heads,
        bert_dim=bert_dim,
        dropout=dropout,
        visual_dim=encoder.grid_dim if encoder is not None else feature_dim,
        saved=bert_sizes,
    )
    common = _Common(
        num_labels=num_labels, encoder=encoder, dropout=dropout, gradient_checkpointing=gradient_checkpointing
    )
    network: EmotionNetwork
    if isinstance(config, VisualBertConfig):
        if weights is not None and use_image and bert_sizes is None and not new_projection:
            # here as well as at loading, since features may be computed for hours in between
            check_width(weights, region_width(weights), config.visual_embedding_dim)
        network = VisualBertClassifier(config=config, use_image=use_image, new_projection=new_projection, **common)
    else:
        network = BertResNetStudent(config=config, feature_dim=feature_dim, fusion_dim=fusion_dim, **common)
    return network, {name: value for name, value in config.to_diff_dict().items() if _plain(value)}


def _check(architecture: str, image_encoder: str | None) -> None:
    """Refuses an unknown architecture, and an image encoder where none is built.

    Raises:
        UserError: see above.
    """
    if architecture not in get_args(Architecture):
        raise UserError(f"architecture is {architecture!r}: expected one of {', '.join(get_args(Architecture))}")
    if image_encoder is not None and (reads := _WITHOUT_ENCODER.get(architecture)):
        raise UserError(
            f"image_encoder is '{image_encoder}', but architecture '{architecture}' {reads}: set it to null"
        )


def load_published(network: EmotionNetwork, weights: str | None) -> None:
    """Loads published weights of BERT or VisualBERT into the part of a network that has them.

    Args:
        network: from `build_emotion_network`.
        weights: a hub id or local folder; None: nothing is loaded.

    Raises:
        UserError: weights cannot be reached or do not match.
    """
    if weights is None:
        return
    if isinstance(network, LightStudent):
        load_word_embeddings(network.words, weights)
    elif isinstance(network, VisualBertClassifier):
        load_bert(network.body, weights, new_projection=network.new_projection or not network.use_image)
    elif isinstance(network, BertResNetStudent):
        load_bert(network.body, weights)
    else:
        raise UserError(f"weights is '{weights}', but this architecture has no published weights: set it to null")


def _plain(value: object) -> bool:
    """Whether a checkpoint may hold the value."""
    return value is None or isinstance(value, (bool, int, float, str))
