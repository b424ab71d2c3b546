"""Cross-modal distillation: a picture's code is drawn to the codes of its captions.

The sentence codes are those of `TextAutoencoding`. Assistants (densely guided distillation, Son et al. 2021): what
shrinks along their chain is the head that makes image codes out of the CNN's features, by the widths of its hidden
layers; each learns from the captions and from all larger ones, and in every step some of these teachers are left out at
random.

Letters: B images, N captions, D code width, C labels.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from core.batch import Batch
from core.errors import UserError
from datamodules.base import CaptionDataModule, Split
from lightning_modules.base import BaseModule, Schedule, Stage
from lightning_modules.parts.handover import (
    check_labels,
    check_same_features,
    check_same_settings,
    check_same_words,
    load_cnn,
    load_image_codes,
    load_submodule,
    part_of,
    read_stage,
)
from lightning_modules.parts.settings import check_one_encoder
from metrics.retrieval import CodeRetrieval
from networks.captioners.text_autoencoder import CodeKind, TextEncoder
from networks.classifiers.base import Classifier
from networks.classifiers.image_code import ImageCoder
from networks.losses.distillation import code_distance
from networks.decoders.code import WordInput, WordReader
from networks.encoders.build import build_encoder
from networks.encoders.freezing import parameters_of_map
from networks.layers.pooling import Pooling
from networks.layers.recurrent import CellName

Distance = Literal["mse", "cosine", "kl"]


class Distillation(BaseModule):
    """Draws image codes to sentence codes.

    Logged: ``val/recall_at_1``, ``_5``, ``_10``: share of images with one of their captions among the k nearest
    different captions of the split, by cosine; ``val/loss``.

    Args:
        text_from: run of the text autoencoder; read when a run starts.
        image_from: run of the classifier of pictures, or of an earlier distillation, whose CNN and head this run starts
            from; read likewise. None: the head is new.
        text_lr_factor: learning rate of the text encoder as a share of `lr`: 0: it is frozen to the last bit; 1: the
            same; 0.01: published choice.
        distance: ``mse``, ``cosine`` or ``kl``.
        normalized: both codes have length 1 in the distance.
        temperature: of ``kl``.
        label_weight: weight of the cross-entropy of the labels, which are learnt along; 0: they are not.
        teachers_from: runs of larger assistants, the largest first; read whenever a run trains.
        teacher_dropout: probability that a teacher is left out in a step; never all of captions and teachers.
        image_encoder: CNN that belongs to this module and learns; None: the data module's frozen one gives features.
        image_weights: its weights: a published name, a local file, or None.
        gradient_checkpointing: keep no activations inside the CNN's blocks.
        hidden_dims: widths of the hidden layers between pooled features and code; none: linear (published).
        pooling: how regions become one vector (published: ``mean``).
        normalize: LayerNorm in front of the head.
        dropout: share dropped behind every hidden layer.
        input_dropout: share of the pooled features dropped.
        word_input: of the text encoder, as these six: ``embedding`` or ``one_hot``. They are those of `text_from`.
        word_dim: width of embeddings.
        hidden_dim: width of a recurrent layer.
        layers: recurrent layers.
        cell: ``lstm`` or ``gru``.
        reverse_input: whether it reads from the last word to the first.
        code: ``states`` or ``output``.
        lr: peak learning rate of what is new.
        lr_pretrained: peak learning rate of the CNN.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        init_from: run or checkpoint whose weights this run starts from, instead of `text_from` and `image_from`.
        vocab_size: tokens of the data module's tokeniser.
        num_labels: labels of the data.
        feature_dim: width of the data module's features, None when it gives pictures.

    Raises:
        UserError: values do not fit together.
    """

    method: ClassVar[str] = "distillation"
    monitor: ClassVar[str] = "val/recall_at_1"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        text_from: str | None = None,
        image_from: str | None = None,
        text_lr_factor: float = 0.01,
        distance: Distance = "mse",
        normalized: bool = True,
        temperature: float = 1.0,
        label_weight: float = 0.0,
        teachers_from: list[str] = [],  # noqa: B006  # never changed; the command line shows it as the default
        teacher_dropout: float = 0.25,
        image_encoder: str | None = None,
        image_weights: str | None = None,
        gradient_checkpointing: bool = False,
        hidden_dims: list[int] = [512],  # noqa: B006  # likewise
        pooling: Pooling = "mean_max",
        normalize: bool = True,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        word_input: WordInput = "embedding",
        word_dim: int = 300,
        hidden_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        reverse_input: bool = True,
        code: CodeKind = "states",
        lr: float = 1e-3,
        lr_pretrained: float = 1e-5,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        init_from: str | None = None,
        vocab_size: int = 10_000,
        num_labels: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_one_encoder(image_encoder, feature_dim, {"image_weights": image_weights is not None})
        _check_numbers(text_lr_factor, label_weight, teacher_dropout, temperature)
        reader = WordReader(word_input=word_input, vocab_size=vocab_size, word_dim=word_dim)
        self.text = TextEncoder(
            words=reader,
            hidden_dim=hidden_dim,
            layers=layers,
            cell=cell,
            dropout=0.0,
            reverse_input=reverse_input,
            code=code,
        )
        encoder = None
        if image_encoder is not None:
            encoder = build_encoder(image_encoder, None, gradient_checkpointing=gradient_checkpointing)
        self.coder = ImageCoder(
            code_dim=self.text.code_dim,
            num_labels=num_labels or 0,
            encoder=encoder,
            feature_dim=feature_dim or 1,
            hidden_dims=hidden_dims,
            pooling=pooling,
            normalize=normalize,
            dropout=dropout,
            input_dropout=input_dropout,
        )
        if not label_weight:
            self.coder.classifier.head[-1].requires_grad_(False)
        self._map_parameters = () if encoder is None else parameters_of_map(encoder)
        if encoder is not None:
            learning = set(self._map_parameters)
            for name, parameter in encoder.named_parameters():
                parameter.requires_grad_(name in learning)
        if text_lr_factor == 0:
            self.text.requires_grad_(False).eval()
        self.eval_loss = MeanMetric()
        self.retrieval: CodeRetrieval | None = None
        # not submodules: a student's checkpoint does not hold its teachers
        self._teachers: list[Distillation] = []

    # earlier stages

    def image_classifier(self) -> Classifier | None:
        """The classifier that shares the hidden layers, if it learns along (`label_weight`)."""
        return self.coder.classifier if self.hparams["label_weight"] else None

    def load_pretrained(self) -> None:
        """Takes over the text encoder, the classifier and the CNN's weights.

        Raises:
            UserError: there is no text encoder to take, or something does not fit.
        """
        settings = self.hparams
        load_cnn(self.coder, settings["image_encoder"], settings["image_weights"])
        if settings["text_from"] is not None:
            path = settings["text_from"]
            checkpoint = read_stage(path, "text_from", ("text_autoencoder",))
            check_same_words(checkpoint, self.inference, "text_from", path)
            names = ("word_input", "word_dim", "hidden_dim", "layers", "cell", "reverse_input", "code")
            check_same_settings(checkpoint, settings, names, "text_from", path)
            load_submodule(self.text, part_of(checkpoint["state_dict"], "autoencoder.encoder."), "text_from", path)
        elif not settings["init_from"] and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            raise UserError("text_from is null: give the run of a text autoencoder (experiments/ucm_text_autoencoder)")
        if settings["image_from"] is not None:
            load_image_codes(self.coder, settings, self.inference, "image_from", settings["image_from"])

    def setup(self, stage: str) -> None:
        """Also opens the assistants, whenever there is training."""
        super().setup(stage)
        if stage == "fit":
            check_labels(self.hparams)
            self._teachers = [self._teacher(path) for path in self.hparams["teachers_from"]]

    def _teacher(self, path: str) -> "Distillation":
        from lightning_modules.loading import load_module

        check_same_features(read_stage(path, "teachers_from", (self.method,)), self.inference, "teachers_from", path)
        teacher = load_module(path)
        assert isinstance(teacher, Distillation)
        if teacher.coder.project.out_features != self.coder.project.out_features:
            raise UserError(
                f"teachers_from '{path}' has codes of {teacher.coder.project.out_features} numbers, this run of "
                f"{self.coder.project.out_features}: distil both from the same text autoencoder"
            )
        return teacher.requires_grad_(False)

    def on_fit_start(self) -> None:
        """Brings the assistants to the device; see `BaseModule.on_fit_start` for the rest."""
        super().on_fit_start()
        for teacher in self._teachers:
            teacher.to(self.device).eval()

    def pooling_forward(self, batch: Batch) -> object:
        """Codes of the pictures of a batch."""
        return self.coder(batch)

    # what learns, and how fast

    def train(self, mode: bool = True) -> "Distillation":
        """Sets the mode; a frozen text encoder stays in evaluation mode."""
        super().train(mode)
        if self.hparams["text_lr_factor"] == 0:
            self.text.eval()
        return self

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CNN."""
        return () if self.coder.encoder is None else self.coder.encoder.parameters()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of `BaseModule`, with a group of its own for the text encoder."""
        rate = self.hparams["text_lr_factor"]
        if rate == 0:
            return super().configure_optimizers()
        text = list(self.text.parameters())
        for parameter in text:  # out of the way of the groups that the base makes
            parameter.requires_grad_(False)
        try:
            config = super().configure_optimizers()
        finally:
            self.text.requires_grad_(True)
        assert isinstance(config, dict)
        optimizer, scheduler = config["optimizer"], config["lr_scheduler"]["scheduler"]  # type: ignore[typeddict-item]  # made by the base
        peak = rate * self.hparams["lr"]
        factor = scheduler.lr_lambdas[0]
        optimizer.add_param_group({"params": text, "lr": peak * factor(0), "initial_lr": peak, "name": "text"})
        scheduler.base_lrs.append(peak)
        scheduler.lr_lambdas.append(factor)
        return config

    # steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Distance of codes, and of labels where they are learnt."""
        del batch_idx
        hidden = self.coder.hidden(*self.coder.regions(batch))
        image, text = self.coder.codes(hidden), self.text(batch["caption_ids"], batch["caption_lengths"])
        losses = [self.distance(image[batch["image_index"]], text)]
        logits = self.coder.labels(hidden) if self.hparams["label_weight"] else None
        for teacher in self._chosen_teachers():
            losses.append(self._lesson(teacher, batch, image, logits))
        loss = torch.stack(losses).mean()
        if logits is not None:
            labels = F.binary_cross_entropy_with_logits(logits.float(), batch["labels"])
            loss = loss + self.hparams["label_weight"] * labels
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(image))
        return loss

    def distance(self, image: Tensor, text: Tensor) -> Tensor:
        """Mean distance of pairs of codes `(N, D)`."""
        settings = self.hparams
        return code_distance(image, text, settings["distance"], settings["normalized"], settings["temperature"])

    def _chosen_teachers(self) -> list["Distillation"]:
        """The assistants of this step; the captions always teach."""
        kept = torch.rand(len(self._teachers)) >= self.hparams["teacher_dropout"]
        return [teacher for teacher, stays in zip(self._teachers, kept.tolist(), strict=True) if stays]

    def _lesson(self, teacher: "Distillation", batch: Batch, image: Tensor, logits: Tensor | None) -> Tensor:
        """Distance from an assistant's codes and, where labels are learnt, from its probabilities."""
        with torch.no_grad():
            hidden = teacher.coder.hidden(*teacher.coder.regions(batch))
            code = teacher.coder.codes(hidden)
            soft = teacher.coder.labels(hidden).float().sigmoid()
        loss = self.distance(image, code)
        if logits is not None and teacher.hparams["label_weight"]:
            loss = loss + self.hparams["label_weight"] * F.binary_cross_entropy_with_logits(logits.float(), soft)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Codes of images and captions."""
        del batch_idx
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Codes of images and captions."""
        del batch_idx
        self._evaluate(batch)

    def _evaluate(self, batch: Batch) -> None:
        image = self.coder(batch)
        text = self.text(batch["caption_ids"], batch["caption_lengths"])
        if len(text):
            self.eval_loss.update(self.distance(image[batch["image_index"]], text), weight=len(text))
        lengths = batch["caption_lengths"].tolist()
        captions = [tuple(row[:n]) for row, n in zip(batch["caption_ids"].tolist(), lengths, strict=True)]
        assert self.retrieval is not None, "an epoch starts with its metrics"
        self.retrieval.update(batch["image_id"], image, captions, text)

    # epochs

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """None: the floors of captioning say nothing of retrieval."""
        del split
        return {}

    def on_validation_epoch_start(self) -> None:
        """Empties the metrics."""
        self._start_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Empties the metrics."""
        self._start_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self._log_metrics("test")

    def _start_metrics(self, stage: Stage) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule)
        encode = datamodule.tokenizer.encode
        references = datamodule.references(datamodule.evaluation_split(stage))
        captions = {name: [tuple(encode(text)) for text in own] for name, own in references.items()}
        self.retrieval = CodeRetrieval(captions, self.text.code_dim).to(self.device)
        self.eval_loss.reset()

    def _log_metrics(self, stage: Stage) -> None:
        values = {"loss": self.eval_loss.compute()} if self.eval_loss.update_called else {}
        if self.retrieval is not None and self.retrieval.update_called:
            values |= self.retrieval.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})


def _check_numbers(text_lr_factor: float, label_weight: float, teacher_dropout: float, temperature: float) -> None:
    for name, value in (("text_lr_factor", text_lr_factor), ("label_weight", label_weight)):
        if value < 0:
            raise UserError(f"model.init_args.{name} is {value}: expected 0 or more")
    if not 0 <= teacher_dropout < 1:
        raise UserError(f"model.init_args.teacher_dropout is {teacher_dropout}: expected 0 to 1, 1 excluded")
    if temperature <= 0:
        raise UserError(f"model.init_args.temperature is {temperature}: expected more than 0")
