"""What all methods share that label images: loss, evaluation, threshold, prior.

Letters: B images, M scored rows, C labels.
"""

from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.audit.label_baselines import label_baselines_of
from datamodules.base import CaptionDataModule
from datamodules.readers.records import Split
from lightning_modules.base import BaseModule, Stage
from metrics.label_metrics import LabelMetrics
from metrics.losses import loss_metric
from networks.classifiers.base import Classifier, Labeller, LabelOutput
from networks.losses.labels import LabelLoss, label_loss


class Labelled(TypedDict):
    """What an evaluation step says of its images.

    `image_id`: B strings; `probabilities`: `(B, C)`, float32.
    """

    image_id: list[str]
    probabilities: Tensor


class ClassificationModule(BaseModule):
    """Base of the methods that label images. A subclass makes `classifier`.

    Args:
        loss: ``bce``, or ``balanced_bce``, in which positives and negatives of every label weigh the same.
        threshold: a label is predicted from this probability on; None: chosen on the validation split, anew after every
            validation of a training run, and kept in the checkpoint.
        num_labels: C; None or 0 when the data has no labels, which `setup` refuses.

    Attributes:
        label_prior: frequency of every label in the training examples, `(C,)`; part of the checkpoint.
        threshold: a label is predicted from this probability on, scalar; part of the checkpoint.
        reads_text: whether the network reads captions.
        reads_images: whether it reads images, or their features.
    """

    monitor: ClassVar[str] = "val/macro_ap"

    classifier: Classifier
    label_prior: Tensor
    threshold: Tensor

    def __init__(
        self, *, loss: LabelLoss = "bce", threshold: float | None = None, num_labels: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.loss, self.given_threshold, self.num_labels = loss, threshold, num_labels
        self.reads_text = False
        self.reads_images = True
        self.register_buffer("label_prior", torch.full((num_labels or 0,), 0.5))
        self.register_buffer("threshold", torch.tensor(0.5))

    def setup(self, stage: str) -> None:
        """Fits the prior on the training examples of a new run; see `BaseModule.setup` for the rest.

        Raises:
            UserError: the data has no labels, or other ones than this network.
        """
        super().setup(stage)
        if not isinstance(self.trainer.datamodule, CaptionDataModule):  # type: ignore[attr-defined]  # set at run time
            return
        names = self.inference.get("label_names") or []
        if not names and stage == "predict":
            return  # images that are to be labelled; the checkpoint knows the names
        if not names:
            raise UserError("the data has no labels: give a data set with labels to a method that predicts them")
        if len(names) != len(self.label_prior):
            raise UserError(
                f"the data has {len(names)} labels ({names[0]} ...), the model {len(self.label_prior)}: use the data "
                "of its run (config.yaml in the run folder), or start a new run"
            )
        if stage == "fit" and self.is_new_run:
            self.label_prior.copy_(torch.tensor(list(self.targets("train").values())).mean(dim=0))
            self.threshold.fill_(0.5 if self.given_threshold is None else self.given_threshold)

    def check_settings(self) -> None:
        """Also checks the threshold."""
        super().check_settings()
        if self.given_threshold is not None and not 0 <= self.given_threshold <= 1:
            raise UserError(
                f"model.init_args.threshold is {self.given_threshold}: expected 0 to 1, or null to choose it"
            )

    def targets(self, split: Split) -> dict[str, tuple[float, ...]]:
        """Labels of every image of a split by its id.

        Raises:
            UserError: an image has none.
        """
        found = {str(example.image_id): example.labels for example in self.data.examples(split)}
        bare = next((image_id for image_id, labels in found.items() if not labels), None)
        if bare is not None:
            raise UserError(f"image {bare!r} of split '{split}' has no labels: give them, or predict without a score")
        return found

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """Rows that this model's figures must be read against, see `metrics.baselines.labels`."""
        return label_baselines_of(self.data, split, self.reads_text)

    def labeller(self) -> Labeller:
        """The classifier."""
        return Labeller(
            classifier=self.classifier,
            names=tuple(self.inference.get("label_names", ())),
            threshold=self.threshold.item(),
            reads_images=self.reads_images,
            reads_text=self.reads_text,
        )

    def pooling_forward(self, batch: Batch) -> object:
        """Scores a batch."""
        return self.classifier(batch)

    # steps

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss per row and label."""
        output = self.classifier(batch)
        return self.training_loss(batch, output), len(output.logits)

    def training_loss(self, batch: Batch, output: LabelOutput) -> Tensor:
        """What is optimised: cross-entropy of every row against its image's labels; a method may add terms."""
        prior = self.label_prior if self.loss == "balanced_bce" else None
        return label_loss(output.logits, batch["labels"][output.image_index], prior)

    def evaluate(self, batch: Batch, stage: Stage) -> Labelled:
        """Loss and probabilities."""
        del stage
        output = self.classifier(batch)
        self.metrics["loss"].update(self.training_loss(batch, output), weight=len(output.logits))
        probabilities = output.probabilities(len(batch["image_id"]))
        self.metrics[""].update(batch["image_id"], probabilities)
        return {"image_id": batch["image_id"], "probabilities": probabilities}

    def predict_step(self, batch: Batch, batch_idx: int) -> Labelled:
        """Probabilities."""
        del batch_idx
        probabilities = self.classifier(batch).probabilities(len(batch["image_id"]))
        return {"image_id": batch["image_id"], "probabilities": probabilities}

    # epochs

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Loss, and figures on the labels of the whole split."""
        threshold = None if stage == "val" and self._chooses_threshold() else self.threshold.item()
        # made anew: it is cheap, and prior and threshold may have been loaded since
        return {
            "loss": loss_metric(),
            "": LabelMetrics(self.targets(split), threshold=threshold, prior=self.label_prior.tolist()),
        }

    def end_evaluation(self, stage: Stage) -> dict[str, Any]:
        """Logs the figures; while training, keeps the threshold chosen on the validation split."""
        values = super().end_evaluation(stage)
        if stage == "val" and self._chooses_threshold() and "val/threshold" in values:
            self.threshold.copy_(values["val/threshold"])
        return values

    def _chooses_threshold(self) -> bool:
        """Whether this validation is one to choose on: `validate` and `test` use what the checkpoint holds."""
        return self.given_threshold is None and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    # checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also notes the threshold and what the network reads, for whoever opens the file."""
        super().on_save_checkpoint(checkpoint)
        facts = {"threshold": self.threshold.item(), "reads_text": self.reads_text, "reads_images": self.reads_images}
        checkpoint["inference"] = {**self.inference, **facts}
