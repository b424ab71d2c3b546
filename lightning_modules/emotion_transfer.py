"""Transfer from network A (trained on pseudo-labels) or B to the target task: AnB, AnB+, BnB, BnB+.

After "How transferable are features in deep neural networks?" (Yosinski et al. 2014).

Letters: B images, N captions, C labels.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from core.errors import UserError
from lightning_modules.base import Schedule
from lightning_modules.classification import ClassificationModule
from lightning_modules.emotion_labeller import (
    adopt_labels,
    build_from,
    plain_descent,
    pretrained_parameters,
    start_head,
    start_network,
)
from networks.emotion.base import EmotionNetwork
from networks.emotion.build import Architecture
from networks.emotion.transfer import check_depth, freeze, transfer


class EmotionTransfer(ClassificationModule):
    """A network for emotions whose first n blocks come from another run.

    ======  =====================  =====================
    name    `init_from`            `freeze_transferred`
    ======  =====================  =====================
    AnB     a run on A             true
    AnB+    a run on A             false
    BnB     a run on B             true
    BnB+    a run on B             false
    B       none, `cut_depth: 0`   false
    ======  =====================  =====================

    The paper's variant takes all but the last layer: `cut_depth` None. What the blocks are says the class of each
    network; what was copied and what could not be is printed and kept in the checkpoint.

    Args:
        cut_depth: n, the number of blocks taken over, from the input; None: all.
        freeze_transferred: the first n blocks do not learn: not their weights, not the statistics of their norms,
            and without dropout.
        transfer_head: take over the last layer too, where the labels have the same names (published).
        architecture: the network, see `EmotionLabeller`; so are all arguments that are not named here.
        weights: BERT or VisualBERT weights to start from before blocks are taken over.
        image_encoder: CNN of visual_bert and bert_resnet.
        image_weights: its weights.
        use_image: look at pictures or features; false: captions only.
        layers: encoder layers of BERT.
        heads: its attention heads.
        bert_dim: its hidden width.
        dropout: everywhere in the network.
        word_dim: word embeddings of ``light``.
        hidden_dim: GRU of ``light``.
        convolutions: widths of the strided convolutions of ``light``.
        fusion_dim: outputs of fc1.
        buckets: features of each of the two groups of ``text``.
        gradient_checkpointing: keep no activations inside the blocks.
        loss: ``bce`` or ``balanced_bce``.
        threshold: probability from which on a label is predicted; None: chosen on the validation split.
        lr: peak learning rate of what is new.
        lr_pretrained: peak learning rate of what was taken over, and of parts with published weights.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        init_from: run or checkpoint whose first blocks are taken over.
        num_labels: C.
        vocab_size: tokens of the data module's tokeniser.
        pad_id: filling behind captions.
        feature_dim: width of the data module's features, None when it gives pictures.
        bert_sizes: sizes of BERT as saved in a checkpoint.

    Raises:
        UserError: `cut_depth` is more than there are blocks, or values do not fit together.
    """

    method: ClassVar[str] = "emotion_transfer"
    classifier: EmotionNetwork

    def __init__(
        self,
        cut_depth: int | None = None,
        freeze_transferred: bool = False,
        transfer_head: bool = False,
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
        self._head_is_new = True
        self.depth = check_depth(self.classifier, cut_depth)
        self.frozen: list[nn.Module] = freeze(self.classifier, self.depth) if freeze_transferred else []

    def setup(self, stage: str) -> None:
        """Takes over the first blocks in a new run.

        Raises:
            UserError: there is a cut depth, but nothing to take blocks from.
        """
        if stage == "fit" and self.trainer.ckpt_path is None and self.depth and not self.hparams["init_from"]:
            raise UserError(
                f"cut_depth is {self.hparams['cut_depth']}, but there is no run to take blocks from: set "
                "model.init_args.init_from, or cut_depth to 0 to train B alone"
            )
        super().setup(stage)
        if stage == "fit" and self.trainer.ckpt_path is None and self._head_is_new:
            start_head(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; plain gradient descent for ``text``."""
        return plain_descent(self) if self.hparams["architecture"] == "text" else super().configure_optimizers()

    def load_pretrained(self) -> None:
        """Loads published weights; counts words in the training captions where the network wants that."""
        start_network(self)

    def load_stage(self, path: str) -> None:
        """Takes over the first blocks of another run, and says which.

        Raises:
            UserError: no such run, or not one of a network for emotions.
        """
        from lightning_modules.loading import load_module

        source = load_module(path)
        if not isinstance(source, ClassificationModule) or not isinstance(source.classifier, EmotionNetwork):
            raise UserError(f"init_from '{path}' is of method '{source.method}': expected a network for emotions")
        old, new = source.inference, self.inference
        words = vocabulary(old["tokenizer"]), vocabulary(new["tokenizer"])
        labels = old.get("label_names") or [], new.get("label_names") or []
        head = self.hparams["transfer_head"]
        report = transfer(source.classifier, self.classifier, self.depth, head=head, words=words, labels=labels)
        if self.frozen and report.left:
            report.left.append("what is listed above is frozen all the same, with the weights it had")
        self._head_is_new = report.head == "new"
        self.inference["transfer"] = report.lines()
        if self.trainer.is_global_zero:
            print("\n".join(report.lines()))  # noqa: T201  # meant for the user

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keeps what the checkpoint says of the transfer, and its labels where the data has none."""
        adopt_labels(self, checkpoint)
        super().on_load_checkpoint(checkpoint)
        if lines := checkpoint.get("inference", {}).get("transfer"):
            self.inference["transfer"] = lines

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that were taken over or do not start from random weights."""
        yield from pretrained_parameters(self)
        for _, parts in self.classifier.blocks()[: self.depth]:
            for part in parts:
                yield from part.parameters() if isinstance(part, nn.Module) else [part]

    def train(self, mode: bool = True) -> "EmotionTransfer":
        """Sets the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def vocabulary(tokenizer: dict[str, Any]) -> list[str]:
    """The token of every id of a tokeniser that is described in a checkpoint."""
    from tokenizers import Tokenizer

    from datamodules.loading.tokenization import tokenizer_from_spec

    built = tokenizer_from_spec(tokenizer)
    if tokenizer["kind"] == "word":
        return list(getattr(built, "words"))  # noqa: B009  # only tokenisers of words have it
    ids = Tokenizer.from_str(tokenizer["tokenizer"]).get_vocab()
    return sorted(ids, key=lambda token: ids[token])
