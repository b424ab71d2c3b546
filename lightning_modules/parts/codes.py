"""Options of sentence codes and image codes, which the stages of cross-modal distillation share."""

from typing import Any

from core.errors import UserError
from lightning_modules.parts.encoder import ImageEncoderOptions
from lightning_modules.parts.mixin import Mixin
from networks.captioners.text_autoencoder import CodeKind
from networks.classifiers.base import Labeller
from networks.classifiers.image_code import ImageCoder
from networks.decoders.code import WordInput, WordReader
from networks.encoders.base import ImageEncoder
from networks.layers.pooling import Pooling
from networks.layers.recurrent import CellName


class SentenceCodeOptions(Mixin):
    """A module that makes sentence codes, or captions of them. Stages that hand over need the same values.

    Args:
        word_input: ``embedding`` or ``one_hot``.
        word_dim: width of embeddings (published: 300).
        hidden_dim: width of a recurrent layer (published: 1024).
        layers: recurrent layers.
        cell: ``lstm`` or ``gru``.
        code: ``states``: final cell states of all layers; ``output``: last output of the upper one.
    """

    def __init__(
        self,
        *,
        word_input: WordInput = "embedding",
        word_dim: int = 300,
        hidden_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        code: CodeKind = "states",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.word_input, self.word_dim, self.hidden_dim = word_input, word_dim, hidden_dim
        self.layers, self.cell, self.code = layers, cell, code

    def new_reader(self, vocab_size: int) -> WordReader:
        """The layer that reads words."""
        return WordReader(word_input=self.word_input, vocab_size=vocab_size, word_dim=self.word_dim)


class ImageCodeOptions(ImageEncoderOptions):
    """A module that makes image codes of an image encoder's pooled features. Its CNN, if it has one, always learns.

    A subclass builds the coder with `new_coder`, says where it is in `own_coder` and calls `choose_learning`.

    Args:
        hidden_dims: widths of the hidden layers between pooled features and code; none: linear (published).
        pooling: how regions become one vector (published: ``mean``).
        normalize: LayerNorm in front of the head.
        input_dropout: share of the pooled features dropped.
        label_weight: weight of the cross-entropy of the labels, which are learnt along; 0: they are not.
        num_labels: labels of the data.
    """

    def __init__(
        self,
        *,
        hidden_dims: list[int] = [512],  # noqa: B006  # never changed; the command line shows it as the default
        pooling: Pooling = "mean_max",
        normalize: bool = True,
        input_dropout: float = 0.0,
        label_weight: float = 0.0,
        num_labels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dims, self.pooling, self.normalize = hidden_dims, pooling, normalize
        self.input_dropout, self.label_weight, self.num_labels = input_dropout, label_weight, num_labels

    def new_coder(self, code_dim: int, dropout: float, encoder: ImageEncoder | None) -> ImageCoder:
        """Builds image codes of a width; the labels' layer learns only where labels are learnt along."""
        coder = ImageCoder(
            code_dim=code_dim,
            num_labels=self.num_labels or 0,
            encoder=encoder,
            feature_dim=self.feature_dim or 1,
            hidden_dims=self.hidden_dims,
            pooling=self.pooling,
            normalize=self.normalize,
            dropout=dropout,
            input_dropout=self.input_dropout,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        if not self.label_weight:
            coder.classifier.head[-1].requires_grad_(False)
        return coder

    @property
    def own_coder(self) -> ImageCoder:
        """The image codes, wherever the method keeps them."""
        raise NotImplementedError(f"{type(self).__name__} has no own_coder")

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The coder's CNN."""
        return self.own_coder.encoder

    def setup(self, stage: str) -> None:
        """Makes sure that labels are only learnt where there are some; see `BaseModule.setup` for the rest.

        Raises:
            UserError: `label_weight` is below 0, or above it without labels.
        """
        if stage == "fit" and (self.label_weight < 0 or (self.label_weight and not self.num_labels)):
            raise UserError(
                f"model.init_args.label_weight is {self.label_weight}: expected 0 or more, and 0 where data has no "
                "labels"
            )
        super().setup(stage)

    def labeller(self) -> Labeller | None:
        """The classifier that shares the hidden layers, if it learns along (`label_weight`)."""
        found = self.own_coder.classifier if self.label_weight else None
        names = tuple(self.inference.get("label_names", ()))
        return None if found is None else Labeller(classifier=found, names=names)
