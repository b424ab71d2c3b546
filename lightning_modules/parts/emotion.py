"""What teacher, students and transferred networks of emotions share.

Letters: B images, N captions, C labels.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_modules.classification import ClassificationModule
from lightning_modules.parts.bert import BertOptions
from lightning_modules.parts.encoder import ImageEncoderOptions
from networks.emotion.base import EmotionNetwork
from networks.emotion.build import Architecture, build_emotion_network, load_published
from networks.emotion.tfidf import TextClassifier
from networks.encoders.base import ImageEncoder
from networks.encoders.source import check_own_options

if TYPE_CHECKING:
    ClassificationMixin = ClassificationModule
else:
    ClassificationMixin = object  # see `lightning_modules.parts.mixin`


class EmotionOptions(BertOptions, ImageEncoderOptions, ClassificationMixin):
    """Predicts the emotions that people feel when they see an image and its caption.

    Architectures: ``visual_bert`` is the teacher's and the heavy student's; ``light`` the published light student's;
    ``bert_resnet`` BERT beside a CNN; ``text`` a linear model on words and pieces of words, which is what works with
    captions alone and few of them. `weights` are those of BERT; ``light`` takes their word embeddings.

    Args:
        architecture: the network, see the modules of `networks.emotion` of these names.
        use_image: read images or features; false: captions only.
        dropout: everywhere in the network.
        word_dim: word embeddings of ``light``.
        hidden_dim: GRU of ``light``.
        convolutions: widths of the strided convolutions of ``light``; None: 32, 64, 128, 256.
        fusion_dim: outputs of fc1 (``light``, ``bert_resnet``).
        prior_bias: the bias of a new last layer starts at the labels' frequencies; false: at random, as published.
        buckets: hashed features of each of the two groups of ``text``.
        vocab_size: tokens of the data module's tokenizer.
        pad_id: filling behind captions.
        lr_pretrained: peak learning rate of parts that start from pretrained weights.
        weight_decay: decoupled weight decay.

    Raises:
        UserError: values do not match.
    """

    classifier: EmotionNetwork

    def __init__(
        self,
        *,
        architecture: Architecture = "visual_bert",
        use_image: bool = True,
        dropout: float = 0.1,
        word_dim: int = 768,
        hidden_dim: int = 256,
        convolutions: list[int] | None = None,
        fusion_dim: int = 256,
        prior_bias: bool = True,
        buckets: int = 1 << 16,
        vocab_size: int = 30522,
        pad_id: int = 0,
        lr_pretrained: float = 2e-5,
        weight_decay: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(lr_pretrained=lr_pretrained, weight_decay=weight_decay, **kwargs)
        self.architecture, self.use_image, self.dropout = architecture, use_image, dropout
        self.word_dim, self.hidden_dim, self.fusion_dim, self.buckets = word_dim, hidden_dim, fusion_dim, buckets
        self.convolutions = list(convolutions or (32, 64, 128, 256))
        self.hparams["convolutions"] = self.convolutions
        self.vocab_size, self.pad_id, self.prior_bias = vocab_size, pad_id, prior_bias
        self.frozen: Sequence[nn.Module] = ()
        self.reads_text = True
        self.reads_images = use_image and architecture != "text"
        self._build()

    def _build(self) -> None:
        """Makes the network; the number of labels may come with a checkpoint, see `on_load_checkpoint`."""
        check_own_options(self.image_encoder, {"image_weights": self.image_weights is not None})
        self.classifier, self.hparams["bert_sizes"] = build_emotion_network(
            self.architecture,
            num_labels=self.num_labels or 1,
            vocab_size=self.vocab_size,
            pad_id=self.pad_id,
            weights=self.weights,
            layers=self.layers,
            heads=self.heads,
            bert_dim=self.bert_dim,
            dropout=self.dropout,
            word_dim=self.word_dim,
            hidden_dim=self.hidden_dim,
            convolutions=self.convolutions,
            fusion_dim=self.fusion_dim,
            buckets=self.buckets,
            use_image=self.use_image,
            image_encoder=self.image_encoder,
            feature_dim=self.feature_dim,
            bert_sizes=self.bert_sizes,
            new_projection=self.new_projection,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The network's CNN, if it has one."""
        return self.classifier.encoder

    # start of a run

    def setup(self, stage: str) -> None:
        """Starts a new head at the labels' frequencies with `prior_bias`; see `ClassificationModule.setup`."""
        super().setup(stage)
        if self.prior_bias and stage == "fit" and self.is_new_run and self.head_is_new:
            self._start_head()

    @property
    def head_is_new(self) -> bool:
        """Whether the last layer starts at random in a new run."""
        return self.init_from is None

    def _start_head(self) -> None:
        """Sets the last layer's bias so that a network that knows nothing gives every label its frequency."""
        if self.loss == "bce":  # balanced, both sides of a label weigh the same: 0 is right
            with torch.no_grad():
                self.classifier.head.bias.copy_(torch.logit(self.label_prior, eps=1e-3))

    def load_pretrained(self) -> None:
        """Loads published weights; counts words in the training captions where the network wants that.

        Raises:
            UserError: weights cannot be reached or do not match.
        """
        load_published(self.classifier, self.weights)
        super().load_pretrained()
        if isinstance(self.classifier, TextClassifier):
            captions = (text for example in self.data.examples("train") for text in example.captions)
            self.classifier.fit_frequencies(captions)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the labels from the checkpoint where the data has none: images that are to be labelled."""
        known = checkpoint.get("hyper_parameters", {}).get("num_labels")
        if known and not self.num_labels:
            self.num_labels = self.hparams["num_labels"] = known
            self._build()
            self.label_prior = torch.full((known,), 0.5)
            self.inference["label_names"] = checkpoint.get("inference", {}).get("label_names", [])
        super().on_load_checkpoint(checkpoint)

    # what learns

    def frozen_modules(self) -> Iterable[nn.Module]:
        """What `freeze` has frozen."""
        yield from super().frozen_modules()
        yield from self.frozen

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the parts that have published weights, when these are named."""
        new = {id(parameter) for module in self.classifier.new_modules() for parameter in module.parameters()}
        for part in self.classifier.pretrained_modules():
            weights = self.image_weights if part is self.own_encoder else self.weights
            if weights is not None:
                yield from (parameter for parameter in part.parameters() if id(parameter) not in new)

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW; for ``text`` plain gradient descent with momentum 0.9.

        A linear model on rare features wants it: Adam makes equal steps for all of them, and so overfits those seen
        once.
        """
        if self.architecture != "text":
            return super().make_optimizer(groups)
        return torch.optim.SGD(groups, lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
