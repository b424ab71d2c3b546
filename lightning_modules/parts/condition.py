"""Captioners conditioned on labels of captions, such as emotions, and what is measured of that.

Letters: B images, N captions, C labels.
"""

import difflib
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from core.batch import Batch
from core.errors import UserError
from core.inputs import shown
from core.spread import spread
from lightning_modules.parts.mixin import Mixin
from metrics.distinct import DistinctCaptions
from metrics.fluency import KneserNeyModel, Perplexity
from metrics.label_agreement import LabelAgreement, WordClassifier
from metrics.tokenize import tokenize_caption
from networks.captioners.base import Captioner
from networks.layers.sequences import Memory, on_device, on_host

OWN, EACH_IN_TURN = "own", "spread"
_ORDER = 3
_MOST_CAPTIONS = 20_000
"""Training captions that classifier and language model of the metrics are fitted on, evenly spread."""


class ConditionOptions(Mixin):
    """A captioner that may be conditioned on the labels that the data's captions have.

    A condition is a learnt vector that is added to what the captioner reads, see `networks.layers.conditions`. In
    training it is dropped at random, so that one model writes with it and without. Evaluation asks every image for a
    label; whether the captions say it is judged by a classifier of words that guides nobody (``alignment``), how fluent
    they are by an n-gram model of the training captions (``perplexity``). Both are logged for every captioner whose
    data has labels of captions.

    Args:
        conditioned: captions are conditioned on their labels.
        condition_dropout: share of the training captions that lose their condition.
        condition_on: what evaluation and prediction ask for: ``own``, the label that most captions of an image have;
            ``spread``, another label for every image in turn, whatever the image shows; or a label's name, for all.
        guidance: strength of classifier-free guidance in decoding: 1 is the conditioned model as it is, 0 no condition,
            see `networks.generation.guidance`.
        append_word: the baseline of control: one of the label's words is appended to every caption that is written.
        num_conditions: labels that captions can be conditioned on (C); the data module knows them.
    """

    captioner: Captioner

    def __init__(
        self,
        *,
        conditioned: bool = False,
        condition_dropout: float = 0.15,
        condition_on: str = OWN,
        guidance: float = 1.0,
        append_word: bool = False,
        num_conditions: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conditioned, self.condition_dropout = conditioned, condition_dropout
        self.condition_on, self.guidance, self.append_word = condition_on, guidance, append_word
        self.num_conditions = num_conditions
        self._classifier: WordClassifier | None = None
        self._fluency: KneserNeyModel | None = None

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the labels, which every checkpoint remembers; empty without any."""
        return tuple(self.inference.get("condition_names", ()))

    def conditions_learnt(self) -> tuple[str, ...]:
        """Names of the labels that the captioner was conditioned on.

        Raises:
            UserError: the captioner was trained without.
        """
        if not self.conditioned:
            raise UserError(
                "this captioner was trained without emotions or other labels of captions: train one with "
                "model.init_args.conditioned=true on data that has them, or let a classifier guide it (--control RUN)"
            )
        return self.condition_names

    def conditions_known(self) -> tuple[str, ...]:
        """Names of the labels that captions can be asked for.

        Raises:
            UserError: there are none.
        """
        return self.conditions_learnt()

    def label_number(self, name: str) -> int:
        """Number of a label that captions can be asked for.

        Raises:
            UserError: the captioner does not know it.
        """
        names = self.conditions_known()
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"emotion is {shown(name)}{hint}: this captioner knows {', '.join(names)}")
        return names.index(name)

    def add_conditions(self) -> None:
        """Gives the captioner vectors of the labels, if it is to be conditioned."""
        if self.conditioned:
            self.captioner.add_conditions(self.num_conditions)

    def check_settings(self) -> None:
        """Also checks what is asked for.

        Raises:
            UserError: the data's captions have no labels, or not this one.
        """
        super().check_settings()
        if not 0 <= self.condition_dropout <= 1:
            raise UserError(f"model.init_args.condition_dropout is {self.condition_dropout}: expected 0 to 1")
        names = self.condition_names
        if not names and (self.conditioned or self.append_word):
            raise UserError(
                f"model.init_args.{'conditioned' if self.conditioned else 'append_word'} is true, but captions of this "
                "data have no labels: scenes have some with data.init_args.feelings=true, folders with "
                "data.init_args.label_column; or set it to false"
            )
        if self.condition_on not in (OWN, EACH_IN_TURN, *names):
            known = ", ".join((OWN, EACH_IN_TURN, *names))
            raise UserError(f"model.init_args.condition_on is '{self.condition_on}': expected one of {known}")

    # steps

    def captions_of(self, batch: Batch, memory: Memory) -> tuple[Memory, Tensor, Tensor, Tensor]:
        """Memory, ids, lengths and image index of a batch as a captioner's `forward` takes them.

        With conditions the memory gets a row for each caption, since captions of an image differ in theirs; in training
        some lose it.
        """
        ids, lengths, images = batch["caption_ids"], batch["caption_lengths"], batch["image_index"]
        if not self.conditioned or "condition" not in batch:
            return memory, ids, lengths, images
        labels = batch["condition"]
        if self.training and self.condition_dropout:
            dropped = torch.rand(len(labels), device=labels.device) < self.condition_dropout
            labels = labels.masked_fill(dropped, -1)
        own = on_device(list(range(len(labels))), labels.device)
        return self.captioner.under(memory, labels, images), ids, lengths, own

    def wanted_labels(self, batch: Batch) -> list[int]:
        """The label that each image of a batch is asked for, B numbers; -1: none."""
        images = batch["image_id"]
        if self.condition_on == EACH_IN_TURN and self.condition_names:
            return [zlib.crc32(image_id.encode()) % len(self.condition_names) for image_id in images]
        if self.condition_on in self.condition_names:
            return [self.condition_names.index(self.condition_on)] * len(images)
        return own_labels(batch)

    def under(self, memory: Memory, labels: list[int]) -> Memory:
        """A memory whose rows are asked for labels; unchanged in a captioner that knows none."""
        if not self.conditioned:
            return memory
        device = next(iter(memory.values())).device
        return self.captioner.under(memory, torch.tensor(labels, dtype=torch.long, device=device))

    def with_words(self, image_ids: list[str], captions: list[str], labels: list[int]) -> list[str]:
        """Captions with a word of their label behind them, where that is wanted."""
        if not self.append_word:
            return captions
        word = self.word_classifier().telling_word
        return [
            f"{text} {word(label, image_id)}".strip() if label >= 0 else text
            for image_id, text, label in zip(image_ids, captions, labels, strict=True)
        ]

    # metrics

    def word_classifier(self) -> WordClassifier:
        """The classifier of the training captions' labels, fitted once."""
        if self._classifier is None:
            pairs = self._training_captions()
            texts, labels = [text for text, _ in pairs], [label for _, label in pairs]
            self._classifier = WordClassifier(texts, labels, num_labels=len(self.condition_names))
        return self._classifier

    def fluency_model(self) -> KneserNeyModel:
        """The n-gram model of the training captions, fitted once."""
        if self._fluency is None:
            self._fluency = KneserNeyModel(
                (tokenize_caption(text).split() for text, _ in self._training_captions()), _ORDER
            )
        return self._fluency

    def _training_captions(self) -> list[tuple[str, int]]:
        pairs = [
            (text, label)
            for example in self.data.examples("train")
            for text, label in zip(example.captions, example.conditions, strict=bool(example.conditions))
        ]
        return list(spread(pairs, _MOST_CAPTIONS))

    def control_metrics(self, image_ids: Iterable[str]) -> dict[str, Metric]:
        """Alignment, perplexity and different captions of some images; no metric without labels of captions."""
        if not self.condition_names:
            return {}
        return {
            "alignment": LabelAgreement(self.word_classifier(), image_ids),
            "perplexity": Perplexity(self.fluency_model(), image_ids),
            "distinct": DistinctCaptions(),
        }

    def update_control(self, image_ids: list[str], captions: list[str], batch: Batch) -> None:
        """Judges captions of images of a batch, if there are labels."""
        if not self.condition_names:
            return
        wanted = dict(zip(batch["image_id"], self.wanted_labels(batch), strict=True))
        self.metrics["alignment"].update(image_ids, captions, [wanted[image_id] for image_id in image_ids])
        self.metrics["perplexity"].update(image_ids, captions)
        self.metrics["distinct"].update(captions)


def own_labels(batch: Batch) -> list[int]:
    """The label that most captions of each image have, B numbers; the first of several; -1 where no caption has one."""
    votes: list[Counter[int]] = [Counter() for _ in batch["image_id"]]
    if "condition" in batch:
        for image, label in zip(on_host(batch["image_index"]), on_host(batch["condition"]), strict=True):
            if label >= 0:
                votes[image][label] += 1
    return [found.most_common(1)[0][0] if found else -1 for found in votes]
