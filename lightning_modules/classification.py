"""What all methods share that label pictures: loss, evaluation, threshold, prior.

Letters: B images, M scored rows, C labels.
"""

from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from core.batch import Batch
from core.errors import UserError
from datamodules.base import CaptionDataModule, Split
from lightning_modules.base import BaseModule, Stage
from metrics.label_metrics import LabelMetrics
from networks.classifiers.base import Classifier, LabelOutput
from networks.losses.labels import label_loss


class Labelled(TypedDict):
    """What an evaluation step says of its images.

    `image_id`: B strings; `probabilities`: `(B, C)`, float32.
    """

    image_id: list[str]
    probabilities: Tensor


class ClassificationModule(BaseModule):
    """Base of the methods that label pictures. A subclass makes `classifier` and names its hyper-parameters.

    Hyper-parameters read here: `loss` ("bce" or "balanced_bce"), `threshold` (None: chosen on the validation split,
    anew after every validation of a training run, and kept in the checkpoint) and `num_labels`.

    Args:
        num_labels: C; None or 0 when the data has no labels, which `setup` refuses.

    Attributes:
        label_prior: frequency of every label in the training examples, `(C,)`; part of the checkpoint.
        threshold: a label is predicted from this probability on, scalar; part of the checkpoint.
        reads_text: whether the network reads captions.
        reads_images: whether it looks at pictures, or their features.
    """

    monitor: ClassVar[str] = "val/macro_ap"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    classifier: Classifier
    label_prior: Tensor
    threshold: Tensor

    def __init__(self, num_labels: int | None) -> None:
        super().__init__()
        self.reads_text = False
        self.reads_images = True
        self.register_buffer("label_prior", torch.full((num_labels or 0,), 0.5))
        self.register_buffer("threshold", torch.tensor(0.5))
        self.eval_loss = MeanMetric(nan_strategy=float("nan"))  # a loss that is no number must show
        self.label_metrics: LabelMetrics | None = None

    def setup(self, stage: str) -> None:
        """Fits the prior on the training examples of a new run; see `BaseModule.setup` for the rest.

        Raises:
            UserError: the data has no labels, or other ones than this network.
        """
        super().setup(stage)
        given = self.hparams["threshold"]
        if given is not None and not 0 <= given <= 1:
            raise UserError(f"model.init_args.threshold is {given}: expected 0 to 1, or null to choose it")
        if self._data() is None:
            return
        names = self.inference.get("label_names") or []
        if not names and stage == "predict":
            return  # pictures that are to be labelled; the checkpoint knows the names
        if not names:
            raise UserError("the data has no labels: give a data set with labels to a method that predicts them")
        if len(names) != len(self.label_prior):
            raise UserError(
                f"the data has {len(names)} labels ({names[0]} ...), the model {len(self.label_prior)}: use the data "
                "of its run (config.yaml in the run folder), or start a new run"
            )
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.label_prior.copy_(torch.tensor(list(self.targets("train").values())).mean(dim=0))
            self.threshold.fill_(0.5 if given is None else given)

    def _data(self) -> CaptionDataModule | None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        return datamodule if isinstance(datamodule, CaptionDataModule) else None

    def targets(self, split: Split) -> dict[str, tuple[float, ...]]:
        """Labels of every image of a split by its id.

        Raises:
            UserError: an image has none.
        """
        datamodule = self._data()
        assert datamodule is not None, "there is a data module wherever labels are read"
        found = {str(example.image_id): example.labels for example in datamodule.examples(split)}
        bare = next((image_id for image_id, labels in found.items() if not labels), None)
        if bare is not None:
            raise UserError(f"image {bare!r} of split '{split}' has no labels: give them, or predict without a score")
        return found

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """Rows that this model's figures must be read against, see `metrics.baselines.labels`."""
        from datamodules.audit.label_bounds import label_bounds_of  # scikit-learn is only needed here

        datamodule = self._data()
        return {} if datamodule is None else label_bounds_of(datamodule, split, self.reads_text)

    def pooling_forward(self, batch: Batch) -> object:
        """Scores a batch."""
        return self.classifier(batch)

    # steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss per row and label."""
        del batch_idx
        output = self.classifier(batch)
        loss = self.training_loss(batch, output)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(output.logits))
        return loss

    def training_loss(self, batch: Batch, output: LabelOutput) -> Tensor:
        """What is optimised: cross-entropy of every row against its image's labels; a method may add terms."""
        prior = self.label_prior if self.hparams["loss"] == "balanced_bce" else None
        return label_loss(output.logits, batch["labels"][output.image_index], prior)

    def validation_step(self, batch: Batch, batch_idx: int) -> Labelled:
        """Loss and probabilities."""
        del batch_idx
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Labelled:
        """Loss and probabilities."""
        del batch_idx
        return self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Labelled:
        """Probabilities."""
        del batch_idx
        probabilities = self.classifier(batch).probabilities(len(batch["image_id"]))
        return {"image_id": batch["image_id"], "probabilities": probabilities}

    def _evaluate(self, batch: Batch) -> Labelled:
        output = self.classifier(batch)
        self.eval_loss.update(self.training_loss(batch, output), weight=len(output.logits))
        probabilities = output.probabilities(len(batch["image_id"]))
        assert self.label_metrics is not None, "an epoch starts with its metrics"
        self.label_metrics.update(batch["image_id"], probabilities)
        return {"image_id": batch["image_id"], "probabilities": probabilities}

    # epochs

    def on_validation_epoch_start(self) -> None:
        """Empties the metrics."""
        self._start_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Empties the metrics."""
        self._start_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole split; while training, keeps the threshold chosen on it."""
        values = self._log_metrics("val")
        if self._chooses_threshold() and "threshold" in values:
            self.threshold.copy_(values["threshold"])

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self._log_metrics("test")

    def _chooses_threshold(self) -> bool:
        """Whether this validation is one to choose on: `validate` and `test` use what the checkpoint holds."""
        return self.hparams["threshold"] is None and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def _start_metrics(self, stage: Stage) -> None:
        datamodule = self._data()
        assert datamodule is not None
        chooses = stage == "val" and self._chooses_threshold()
        targets = self.targets(datamodule.evaluation_split("val" if stage == "val" else "test"))
        threshold = None if chooses else self.threshold.item()
        # made anew: it is cheap, and prior and threshold may have been loaded since
        self.label_metrics = LabelMetrics(targets, threshold, self.label_prior.tolist()).to(self.device)
        self.eval_loss.reset()

    def _log_metrics(self, stage: Stage) -> dict[str, Any]:
        values: dict[str, Any] = {"loss": self.eval_loss.compute()} if self.eval_loss.update_called else {}
        if self.label_metrics is not None and self.label_metrics.update_called:
            values |= self.label_metrics.compute()
        # the metrics have already been reduced over the ranks
        self.log_dict({name if "/" in name else f"{stage}/{name}": value for name, value in values.items()})
        return values

    # checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also notes the threshold and what the network reads, for whoever opens the file."""
        super().on_save_checkpoint(checkpoint)
        facts = {"threshold": self.threshold.item(), "reads_text": self.reads_text, "reads_images": self.reads_images}
        checkpoint["inference"] = {**self.inference, **facts}
