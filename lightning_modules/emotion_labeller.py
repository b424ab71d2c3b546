"""Emotions of captioned pictures: teacher and students by one module, since only the network differs.

Letters: B images, N captions, C labels.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from lightning_modules.base import Schedule, rate_factor
from lightning_modules.classification import ClassificationModule
from networks.emotion.base import EmotionNetwork
from networks.emotion.build import Architecture, build_emotion_network, load_published
from networks.emotion.tfidf import TextClassifier
from networks.emotion.transfer import freeze


class EmotionLabeller(ClassificationModule):
    """Predicts the emotions that people feel before a picture and its caption.

    Architectures: ``visual_bert`` is the teacher's and the heavy student's; ``light`` the published light student's;
    ``bert_resnet`` BERT beside a CNN; ``text`` a linear model on words and pieces of words, which is what works with
    captions alone and few of them.

    Args:
        architecture: the network, see the modules of `networks` of these names.
        weights: BERT or VisualBERT weights, a hub id or local folder (``light`` takes the word embeddings of them);
            None = random.
        image_encoder: CNN of visual_bert and bert_resnet, see `networks.encoders.build.build_encoder`; None: the data
            module's frozen `encoder` gives features.
        image_weights: its weights.
        use_image: look at pictures or features; false: captions only.
        layers: encoder layers of BERT, if not the usual ones or those of the weights.
        heads: its attention heads, likewise.
        bert_dim: its hidden width, likewise.
        dropout: everywhere in the network.
        word_dim: word embeddings of ``light``.
        hidden_dim: GRU of ``light``.
        convolutions: widths of the strided convolutions of ``light``.
        fusion_dim: outputs of fc1 (``light``, ``bert_resnet``).
        buckets: features of each of the two groups of ``text``.
        head_only: everything but the last layer is frozen (published for the teacher).
        gradient_checkpointing: keep no activations inside the blocks.
        loss: ``bce``, or ``balanced_bce``, which weighs the rarer side of every label up.
        threshold: probability from which on a label is predicted; None: chosen on the validation split.
        lr: peak learning rate of what starts from random weights.
        lr_pretrained: peak learning rate of parts with published weights.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        init_from: run or checkpoint of the same architecture whose weights this run starts from.
        num_labels: C.
        vocab_size: tokens of the data module's tokeniser.
        pad_id: filling behind captions.
        feature_dim: width of the data module's features, None when it gives pictures.
        bert_sizes: sizes of BERT as saved in a checkpoint.

    Raises:
        UserError: values do not fit together.
    """

    method: ClassVar[str] = "emotion_labeller"
    classifier: EmotionNetwork

    def __init__(
        self,
        architecture: Architecture = "visual_bert",
        weights: str | None = None,
        image_encoder: str | None = None,
        image_weights: str | None = None,
        use_image: bool = True,
        layers: int | None = None,
        heads: int | None = None,
        bert_dim: int | None = None,
        dropout: float = 0.1,
        word_dim: int = 768,
        hidden_dim: int = 256,
        convolutions: list[int] | None = None,
        fusion_dim: int = 256,
        buckets: int = 1 << 16,
        head_only: bool = False,
        gradient_checkpointing: bool = False,
        loss: Literal["bce", "balanced_bce"] = "bce",
        threshold: float | None = None,
        lr: float = 1e-3,
        lr_pretrained: float = 2e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        init_from: str | None = None,
        num_labels: int | None = None,
        vocab_size: int = 30522,
        pad_id: int = 0,
        feature_dim: int | None = None,
        bert_sizes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_labels)
        self.save_hyperparameters()
        self.hparams["convolutions"] = list(convolutions or (32, 64, 128, 256))
        build_from(self)
        self.frozen: list[nn.Module] = freeze(self.classifier, None) if head_only else []

    def setup(self, stage: str) -> None:
        """Starts a new run's head at the labels' frequencies; see `ClassificationModule.setup` for the rest."""
        super().setup(stage)
        if stage == "fit" and self.trainer.ckpt_path is None and not self.hparams["init_from"]:
            start_head(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; plain gradient descent for ``text``, see `plain_descent`."""
        return plain_descent(self) if self.hparams["architecture"] == "text" else super().configure_optimizers()

    def load_pretrained(self) -> None:
        """Loads published weights; counts words in the training captions where the network wants that."""
        start_network(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the labels from the checkpoint where the data has none: pictures that are to be labelled."""
        adopt_labels(self, checkpoint)
        super().on_load_checkpoint(checkpoint)

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that do not start from random weights."""
        return pretrained_parameters(self)

    def train(self, mode: bool = True) -> "EmotionLabeller":
        """Sets the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


_SIZES = (
    *("weights", "layers", "heads", "bert_dim", "dropout", "word_dim", "hidden_dim", "convolutions", "fusion_dim"),
    *("buckets", "use_image", "image_encoder", "feature_dim", "bert_sizes", "gradient_checkpointing"),
)
"""Hyper-parameters that `build_emotion_network` takes by name."""


def build_from(module: ClassificationModule) -> None:
    """Makes `classifier` of a module as its hyper-parameters say."""
    values = module.hparams
    module.classifier, values["bert_sizes"] = build_emotion_network(
        values["architecture"],
        num_labels=values["num_labels"] or 1,  # the number comes with the checkpoint, see `adopt_labels`
        vocab_size=values["vocab_size"],
        pad_id=values["pad_id"],
        **{name: values[name] for name in _SIZES},
    )
    module.reads_text = True
    module.reads_images = values["use_image"] and values["architecture"] != "text"


def adopt_labels(module: ClassificationModule, checkpoint: dict[str, Any]) -> None:
    """Makes the network of a module anew with the labels of a checkpoint, if it has none yet."""
    known = checkpoint.get("hyper_parameters", {}).get("num_labels")
    if module.hparams["num_labels"] or not known:
        return
    module.hparams["num_labels"] = known
    build_from(module)
    module.label_prior = torch.full((known,), 0.5)
    module.inference["label_names"] = checkpoint.get("inference", {}).get("label_names", [])


def start_network(module: ClassificationModule) -> None:
    """What a network learns before its first step: published weights, and how frequent words are.

    Raises:
        UserError: weights cannot be reached or do not fit.
    """
    values, network = module.hparams, module.classifier
    assert isinstance(network, EmotionNetwork)
    left = load_published(network, values["weights"], values["image_encoder"], values["image_weights"])
    if left:
        rank_zero_info(f"weights {values['weights']}: new, since the image regions have another width: {left}")
    if isinstance(network, TextClassifier):
        datamodule = module.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        network.fit_frequencies(text for example in datamodule.examples("train") for text in example.captions)


def start_head(module: ClassificationModule) -> None:
    """Sets the last layer's bias so that a network that knows nothing gives every label its frequency."""
    assert isinstance(module.classifier, EmotionNetwork)
    if module.hparams["loss"] == "bce":  # balanced, both sides of a label weigh the same: 0 is right
        with torch.no_grad():
            module.classifier.head.bias.copy_(torch.logit(module.label_prior, eps=1e-3))


def plain_descent(module: ClassificationModule) -> OptimizerLRScheduler:
    """Gradient descent with momentum 0.9, the rate warmed up and scheduled as everywhere.

    A linear model on rare features wants it: Adam makes equal steps for all of them, and so overfits those seen once.
    """
    values, steps = module.hparams, 0
    if values["schedule"] != "constant":
        steps = int(module.trainer.estimated_stepping_batches)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=values["lr"], momentum=0.9, weight_decay=values["weight_decay"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, values["warmup_steps"], values["schedule"], steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def pretrained_parameters(module: ClassificationModule) -> Iterable[nn.Parameter]:
    """Parameters of the parts that have published weights, when these are named."""
    network = module.classifier
    assert isinstance(network, EmotionNetwork)
    encoder = getattr(network, "encoder", None)
    for part in network.pretrained_modules():
        weights = "image_weights" if part is encoder else "weights"
        if module.hparams[weights] is not None:
            yield from part.parameters()
