"""Cross-modal distillation: an image's code is drawn to the codes of its captions.

The sentence codes are those of `TextAutoencoding`. Assistants (densely guided distillation, Son et al. 2021): what
shrinks along their chain is the head that makes image codes out of the CNN's features, by the widths of its hidden
layers; each learns from the captions and from all larger ones, and in every step some of these teachers are left out at
random.

Letters: B images, N captions, D code width, C labels.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.readers.records import Split
from lightning_modules.base import BaseModule, Stage
from lightning_modules.loading import load_module
from lightning_modules.multilabel import MultiLabel
from lightning_modules.parts.codes import ImageCodeOptions, SentenceCodeOptions
from lightning_modules.parts.handover import (
    check_same_features,
    check_same_settings,
    check_same_words,
    load_image_codes,
    load_submodule,
    part_of,
    read_stage,
)
from lightning_modules.parts.optimisation import ParameterGroup
from lightning_modules.text_autoencoder import TextAutoencoding
from metrics.losses import loss_metric
from metrics.retrieval import CodeRetrieval
from networks.captioners.text_autoencoder import TextEncoder
from networks.classifiers.image_code import ImageCoder
from networks.losses.distillation import code_distance

Distance = Literal["mse", "cosine", "kl"]


class Distillation(SentenceCodeOptions, ImageCodeOptions, BaseModule):
    """Draws image codes to sentence codes.

    Logged: ``val/recall_at_1``, ``_5``, ``_10``: share of images with one of their captions among the k nearest
    different captions of the split, by cosine; ``val/loss``.

    Args:
        text_from: run of the text autoencoder; read when a run starts.
        image_from: run of the image classifier, or of an earlier distillation, whose CNN and head this run starts from;
            read when a run starts. None: the head is new.
        text_lr_factor: learning rate of the text encoder as a share of `lr`: 0: it is frozen to the last bit; 1: the
            same; 0.01: published choice.
        distance: ``mse``, ``cosine`` or ``kl``.
        normalized: both codes have length 1 in the distance.
        temperature: divides both codes before the softmax of ``kl``.
        teachers_from: runs of larger assistants, the largest first; read whenever a run trains.
        teacher_dropout: probability that a teacher is skipped in a step; never all of captions and teachers.
        dropout: share dropped behind every hidden layer of the image head.
        reverse_input: the text encoder reads from the last word to the first.
        vocab_size: tokens of the data module's tokenizer.

    Raises:
        UserError: values do not match.
    """

    method: ClassVar[str] = "distillation"
    monitor: ClassVar[str] = "val/recall_at_1"

    def __init__(
        self,
        *,
        text_from: str | None = None,
        image_from: str | None = None,
        text_lr_factor: float = 0.01,
        distance: Distance = "mse",
        normalized: bool = True,
        temperature: float = 1.0,
        teachers_from: list[str] = [],  # noqa: B006  # never changed; the command line shows it as the default
        teacher_dropout: float = 0.25,
        dropout: float = 0.5,
        reverse_input: bool = True,
        vocab_size: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.text_from, self.image_from, self.text_lr_factor = text_from, image_from, text_lr_factor
        self.distance_kind, self.normalized, self.temperature = distance, normalized, temperature
        self.teachers_from, self.teacher_dropout = teachers_from, teacher_dropout
        check_ranges(text_lr_factor, teacher_dropout, temperature)
        self.text = TextEncoder(
            words=self.new_reader(vocab_size),
            hidden_dim=self.hidden_dim,
            layers=self.layers,
            cell=self.cell,
            dropout=0.0,
            reverse_input=reverse_input,
            code=self.code,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        self.coder = self.new_coder(self.text.code_dim, dropout, self.new_encoder())
        self.choose_learning()
        self.let_encoder_learn(True)
        if text_lr_factor == 0:
            self.text.requires_grad_(False).eval()
        # not submodules: a student's checkpoint does not hold its teachers
        self._teachers: Sequence[Distillation] = []

    @property
    def own_coder(self) -> ImageCoder:
        """The image codes."""
        return self.coder

    # earlier stages

    def load_pretrained(self) -> None:
        """Loads the text encoder, the classifier and the CNN's weights.

        Raises:
            UserError: there is no text encoder to load, or something does not match.
        """
        super().load_pretrained()
        if self.text_from is not None:
            path = self.text_from
            checkpoint = read_stage(path, "text_from", (TextAutoencoding.method,))
            check_same_words(checkpoint, self.inference, "text_from", path)
            names = ("word_input", "word_dim", "hidden_dim", "layers", "cell", "reverse_input", "code")
            check_same_settings(checkpoint, self.hparams, names, "text_from", path)
            load_submodule(self.text, part_of(checkpoint["state_dict"], "autoencoder.encoder."), "text_from", path)
        elif not self.init_from and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            raise UserError("text_from is null: give the run of a text autoencoder (experiments/ucm_text_autoencoder)")
        if self.image_from is not None:
            methods = MultiLabel.method, self.method
            load_image_codes(self.coder, self.hparams, self.inference, "image_from", self.image_from, methods)

    def setup(self, stage: str) -> None:
        """Also opens the assistants, whenever there is training."""
        super().setup(stage)
        if stage == "fit":
            self._teachers = [self._teacher(path) for path in self.teachers_from]

    def _teacher(self, path: str) -> "Distillation":
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
        """Codes of the images of a batch."""
        return self.coder(batch)

    # what learns, and how fast

    def frozen_modules(self) -> Iterable[nn.Module]:
        """The text encoder, where it does not learn."""
        yield from super().frozen_modules()
        if self.text_lr_factor == 0:
            yield self.text

    def own_groups(self) -> list[ParameterGroup]:
        """The text encoder."""
        text = list(self.text.parameters()) if self.text_lr_factor else []
        return [*super().own_groups(), ParameterGroup(name="text", parameters=text, lr=self.text_lr_factor * self.lr)]

    # steps

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Distance of codes, and of labels where they are learnt."""
        hidden = self.coder.hidden(*self.coder.regions(batch))
        text = self.text(batch["caption_ids"], batch["caption_lengths"])
        image = self.coder.codes(hidden)
        losses = [self.distance(image[batch["image_index"]], text)]
        logits = self.coder.labels(hidden) if self.label_weight else None
        for teacher in self._chosen_teachers():
            losses.append(self._lesson(teacher, batch, image, logits))
        loss = torch.stack(losses).mean()
        if logits is not None:
            labels = F.binary_cross_entropy_with_logits(logits.float(), batch["labels"])
            loss = loss + self.label_weight * labels
        return loss, len(image)

    def distance(self, image: Tensor, text: Tensor) -> Tensor:
        """Mean distance of pairs of codes `(N, D)`."""
        return code_distance(image, text, self.distance_kind, self.normalized, self.temperature)

    def _chosen_teachers(self) -> list["Distillation"]:
        """The assistants of this step; the captions always teach."""
        kept = torch.rand(len(self._teachers)) >= self.teacher_dropout
        return [teacher for teacher, stays in zip(self._teachers, kept.tolist(), strict=True) if stays]

    def _lesson(self, teacher: "Distillation", batch: Batch, image: Tensor, logits: Tensor | None) -> Tensor:
        """Distance from an assistant's codes and, where labels are learnt, from its probabilities."""
        with torch.no_grad():
            hidden = teacher.coder.hidden(*teacher.coder.regions(batch))
            code = teacher.coder.codes(hidden)
            soft = teacher.coder.labels(hidden).float().sigmoid()
        loss = self.distance(image, code)
        if logits is not None and teacher.label_weight:
            loss = loss + self.label_weight * F.binary_cross_entropy_with_logits(logits.float(), soft)
        return loss

    # evaluation

    def evaluate(self, batch: Batch, stage: Stage) -> None:
        """Codes of images and captions."""
        del stage
        image = self.coder(batch)
        text = self.text(batch["caption_ids"], batch["caption_lengths"])
        if len(text):
            self.metrics["loss"].update(self.distance(image[batch["image_index"]], text), weight=len(text))
        lengths = batch["caption_lengths"].tolist()
        captions = [tuple(row[:n]) for row, n in zip(batch["caption_ids"].tolist(), lengths, strict=True)]
        self.metrics[""].update(batch["image_id"], image, captions, text)

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Loss, and retrieval of captions by image codes."""
        del stage
        encode = self.data.tokenizer.encode
        captions = {name: [tuple(encode(text)) for text in own] for name, own in self.data.references(split).items()}
        return {"loss": loss_metric(), "": CodeRetrieval(captions, self.text.code_dim)}

    def codes(self) -> tuple[list[str], Tensor, Tensor] | None:
        """Ids, image codes and sentence codes of the evaluation epoch that has run; None before one."""
        retrieval = self.metrics.get("")
        return retrieval.codes() if isinstance(retrieval, CodeRetrieval) else None

    def nearest_captions(self, image_ids: Sequence[str], count: int) -> list[list[tuple[tuple[int, ...], bool]]]:
        """Captions nearest to images by their codes, see `CodeRetrieval.nearest`; empty before an evaluation."""
        retrieval = self.metrics.get("")
        return retrieval.nearest(image_ids, count) if isinstance(retrieval, CodeRetrieval) else []

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """None: the baselines of captioning say nothing of retrieval."""
        del split
        return {}


def check_ranges(text_lr_factor: float, teacher_dropout: float, temperature: float) -> None:
    """Checks options that would fail late.

    Raises:
        UserError: a value is out of its range.
    """
    if text_lr_factor < 0:
        raise UserError(f"model.init_args.text_lr_factor is {text_lr_factor}: expected 0 or more")
    if not 0 <= teacher_dropout < 1:
        raise UserError(f"model.init_args.teacher_dropout is {teacher_dropout}: expected 0 to 1, 1 excluded")
    if temperature <= 0:
        raise UserError(f"model.init_args.temperature is {temperature}: expected more than 0")
