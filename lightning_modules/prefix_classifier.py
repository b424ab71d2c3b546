"""A classifier of captions' labels that reads word by word, so that it can guide a captioner that knows no labels.

Letters: N captions, T tokens of the longest one, M beginnings, C labels.
"""

from collections import Counter
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.readers.records import Split
from lightning_modules.base import BaseModule, Stage
from metrics.losses import loss_metric
from networks.classifiers.base import Labeller
from networks.classifiers.prefix import CaptionLabels, PrefixClassifier


class PrefixClassification(BaseModule):
    """Predicts the label of a caption from every beginning of it, from the first word to the end.

    Needs data whose captions have labels, see `datamodules.readers.records.Example.conditions`; captions without one
    are left out. It guides captioners of the same vocabulary, see `networks.generation.control`.

    Logged: ``label_accuracy``, the share of whole captions whose label it finds, and ``prefix_accuracy``, that of all
    beginnings.

    Args:
        word_dim: width of the embeddings.
        hidden_dim: width of the recurrent layer.
        dropout: share dropped from words and before the last layer.
        num_conditions: labels that captions can be conditioned on (C); the data module knows them.
        vocab_size: tokens of the data module's tokenizer.
    """

    method: ClassVar[str] = "prefix_classifier"
    monitor: ClassVar[str] = "val/loss"

    def __init__(
        self,
        *,
        word_dim: int = 100,
        hidden_dim: int = 128,
        dropout: float = 0.3,
        num_conditions: int = 0,
        vocab_size: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_conditions = num_conditions
        self.classifier = PrefixClassifier(
            num_labels=max(1, num_conditions),  # data without labels are refused in `setup`
            vocab_size=vocab_size,
            word_dim=word_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the labels, which every checkpoint remembers."""
        return tuple(self.inference.get("condition_names", ()))

    def check_settings(self) -> None:
        """Also makes sure that there is something to learn.

        Raises:
            UserError: captions of the data have no labels.
        """
        super().check_settings()
        if self.inference and not self.condition_names:
            raise UserError(
                "captions of this data have no labels: scenes have some with data.init_args.feelings=true, folders "
                "with data.init_args.label_column"
            )

    def labeller(self) -> Labeller:
        """The classifier on whole captions."""
        names = self.condition_names
        captions = CaptionLabels(self.classifier)
        return Labeller(classifier=captions, names=names, threshold=None, reads_images=False, reads_text=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also notes what the network reads, for whoever opens the file."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["inference"] = {**self.inference, "reads_text": True, "reads_images": False}

    # steps

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(M, C)` and labels `(M,)` of all beginnings, and which of them are whole captions, `(M,)`, bool."""
        lengths = batch["caption_lengths"]
        labels = batch.get("condition")
        if labels is None:
            labels = torch.full_like(lengths, -1)
        steps = lengths - 1
        logits = self.classifier(batch["caption_ids"], lengths)
        whole = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        whole[steps.cumsum(0) - 1] = True
        return logits, labels.repeat_interleave(steps, output_size=len(logits)), whole

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss per beginning; of a batch without labels 0."""
        logits, labels, _ = self._scores(batch)
        total = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
        return total / (labels >= 0).sum().clamp_min(1), len(labels)

    def evaluate(self, batch: Batch, stage: Stage) -> None:
        """Loss and accuracy."""
        del stage
        logits, labels, whole = self._scores(batch)
        known = labels >= 0
        logits, labels, whole = logits[known], labels[known], whole[known]
        if not len(labels):
            return
        self.metrics["loss"].update(F.cross_entropy(logits.float(), labels), weight=len(labels))
        right = (logits.argmax(dim=1) == labels).float()
        self.metrics["prefix_accuracy"].update(right)
        if whole.any():
            self.metrics["label_accuracy"].update(right[whole])

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Loss and accuracy of all beginnings, and of whole captions."""
        del stage, split
        return {"loss": loss_metric(), "label_accuracy": MeanMetric(), "prefix_accuracy": MeanMetric()}

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """The share of captions that have the most frequent label of training."""
        counts = Counter(label for example in self.data.examples("train") for label in example.conditions if label >= 0)
        own = [label for example in self.data.examples(split) for label in example.conditions if label >= 0]
        if not counts or not own:
            return {}
        most = counts.most_common(1)[0][0]
        return {"most frequent label": {"label_accuracy": own.count(most) / len(own)}}
