"""What all captioning methods share: teacher-forced loss, generation in evaluation, metrics on generated text.

Letters: B images, N captions, M target tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric

from core.batch import Batch
from core.errors import UserError
from core.spread import spread
from datamodules.loading.tokenization import CaptionTokenizer
from datamodules.readers.records import Split
from datamodules.scenes.fact_metrics import SceneFacts
from lightning_modules.base import BaseModule, Stage
from lightning_modules.parts.condition import ConditionOptions
from lightning_modules.parts.control import ControlOptions
from lightning_modules.parts.retrieval import check_retrieval, fill_index
from lightning_modules.parts.self_critical import SelfCriticalOptions
from lightning_modules.parts.tokens import TokenOptions
from metrics.caption_metrics import CaptionMetrics
from metrics.losses import loss_metric
from networks.captioners.base import Captioner
from networks.generation.retrieval import RetrievalIndex
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.sequences import CaptionOutput, Memory, select_rows
from networks.losses.tokens import token_loss


class Generated(TypedDict):
    """Captions written in an evaluation step."""

    image_id: list[str]
    captions: list[str]


class CaptioningModule(ControlOptions, ConditionOptions, SelfCriticalOptions, TokenOptions, BaseModule):
    """Base of the captioners. A subclass makes `captioner`, then calls `complete_captioner`.

    Validation is greedy on at most `val_images` images, evenly spread over the split; testing and prediction use the
    beams on all.

    Args:
        val_images: images captioned in every validation; None = all.
        beams: beam width in testing and prediction.
        length_penalty: captions of the beam search are ranked by log-probability / length ** length_penalty; 0 ranks by
            log-probability, larger values favour longer captions.
        no_repeat_ngram_size: no n-gram of this many tokens occurs twice in a caption; 0: any may.
        mbr_reranking: rank the captions of the beam search by minimum Bayes risk, that is by their agreement with each
            other (see `networks.generation.consensus`); needs beams, 5 or more pay.
        retrieval_images: most similar training images whose captions count in the reranking (nearest-neighbour
            consensus, see `networks.generation.retrieval`); the checkpoint carries all training captions then. 0: none.
        retrieval_weight: weight of the retrieved captions in the reranking, in [0, 1].
    """

    monitor: ClassVar[str] = "val/cider_d"

    captioner: Captioner

    def __init__(
        self,
        *,
        val_images: int | None = 1000,
        beams: int = 3,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        mbr_reranking: bool = False,
        retrieval_images: int = 0,
        retrieval_weight: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.val_images, self.beams, self.length_penalty = val_images, beams, length_penalty
        self.no_repeat_ngram_size, self.mbr_reranking = no_repeat_ngram_size, mbr_reranking
        self.retrieval_images, self.retrieval_weight = retrieval_images, retrieval_weight
        self._to_caption: frozenset[str] = frozenset()
        self._text_metrics: dict[str, Metric] = {}
        self._index_step = -1

    def pooling_forward(self, batch: Batch) -> object:
        """Encodes the images of a batch."""
        return self.captioner.encode(batch)

    def setup(self, stage: str) -> None:
        """Adds decoding settings to what the checkpoint carries; see `TokenOptions.setup` for the rest."""
        super().setup(stage)
        if self.inference:
            self.inference["decoding"] = asdict(self.decoding("test"))

    def use_tokenizer(self, tokenizer: CaptionTokenizer) -> None:
        """Also keeps the token of unknown words out of what is written."""
        super().use_tokenizer(tokenizer)
        self.captioner.unk_id = tokenizer.unk_id

    def check_settings(self) -> None:
        """Also checks the number of images captioned in validation."""
        super().check_settings()
        if self.val_images is not None and self.val_images < 1:
            raise UserError(f"model.init_args.val_images is {self.val_images}: expected 1 or more, or null for all")

    def decoding(self, stage: Stage) -> DecodingSettings:
        """Settings of the search: greedy in validation, the configured beams elsewhere."""
        plain = DecodingSettings(
            max_tokens=self.max_tokens, guidance=self.guidance, control_strength=self.control_strength
        )
        if stage == "val":
            return plain
        return replace(
            plain,
            beams=self.beams,
            length_penalty=self.length_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            mbr_reranking=self.mbr_reranking and self.beams > 1,
            retrieval_images=self.retrieval_images,
            retrieval_weight=self.retrieval_weight,
            control_rerank=self.control_rerank,
        )

    # retrieval of training captions

    def complete_captioner(self) -> None:
        """Gives the captioner an index of training captions and vectors of labels, if the options want them.

        Raises:
            UserError: they contradict each other.
        """
        if self.retrieval_images:
            check_retrieval(self.retrieval_images, self.beams, self.mbr_reranking)
            self.captioner.retrieval_index = RetrievalIndex()
        self.add_conditions()

    def resize_buffers(self, weights: Mapping[str, Tensor]) -> None:
        """Makes the retrieval index as large as a checkpoint's."""
        if self.captioner.retrieval_index is not None:
            self.captioner.retrieval_index.resize_buffers(weights, "captioner.retrieval_index.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the training captions, indexed by the states that the present weights give their images."""
        super().on_save_checkpoint(checkpoint)
        index = self.captioner.retrieval_index
        if index is None:
            return
        if self._index_step != self.global_step:
            fill_index(self.captioner, self.data, self.device)
            self._index_step = self.global_step
        for name, value in index.state_dict().items():
            checkpoint["state_dict"][f"captioner.retrieval_index.{name}"] = value

    # steps

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Encodes the images once and scores all captions under teacher forcing."""
        memory = self.captioner.encode(batch)
        return memory, self.captioner(*self.captions_of(batch, memory))

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss per real target token; minus the reward where captions are drawn, see `SelfCriticalOptions`."""
        if not self.reward_samples:
            memory, output = self.teacher_forced(batch)
            return self.training_loss(batch, memory, output), len(output.targets)
        memory = self.captioner.encode(batch)
        loss, count = self.self_critical_loss(batch, self.under(memory, self.wanted_labels(batch)))
        if self.caption_loss:
            output = self.captioner(*self.captions_of(batch, memory))
            loss = loss + self.caption_loss * self.training_loss(batch, memory, output)
        return loss, count

    def training_loss(self, batch: Batch, memory: Memory, output: CaptionOutput) -> Tensor:
        """What is optimised; a method may add terms.

        Args:
            batch: the batch.
            memory: what the captioner's `encode` gave.
            output: scores under teacher forcing.
        """
        del batch, memory
        return token_loss(output.logits, output.targets, self.label_smoothing)

    def evaluate(self, batch: Batch, stage: Stage) -> Generated:
        """Loss on all captions, captions of the chosen images."""
        output = None
        if len(batch["caption_ids"]):
            memory, output = self.teacher_forced(batch)
            self.metrics["loss"].update(token_loss(output.logits, output.targets), weight=len(output.targets))
        else:
            memory = self.captioner.encode(batch)
        rows = [row for row, image_id in enumerate(batch["image_id"]) if image_id in self._to_caption]
        written = self._generate(batch, memory, rows, stage)
        for key in self._text_metrics:
            self.metrics[key].update(written["image_id"], written["captions"])
        self.update_control(written["image_id"], written["captions"], batch)
        self.update_metrics(batch, memory, output, written)
        return written

    def update_metrics(self, batch: Batch, memory: Memory, output: CaptionOutput | None, written: Generated) -> None:
        """Updates the metrics that a method has beyond those of all captioners.

        Args:
            batch: the batch.
            memory: what the captioner's `encode` gave.
            output: scores under teacher forcing; None where the batch has no captions.
            written: the captions generated.
        """

    def predict_step(self, batch: Batch, batch_idx: int) -> Generated:
        """Captions of all images."""
        del batch_idx
        return self._generate(batch, self.captioner.encode(batch), list(range(len(batch["image_id"]))), "test")

    def _generate(self, batch: Batch, memory: Memory, rows: list[int], stage: Stage) -> Generated:
        """Captions some rows of a batch."""
        if not rows:
            return {"image_id": [], "captions": []}
        if len(rows) < len(batch["image_id"]):
            memory = select_rows(memory, torch.tensor(rows, device=self.device))
        wanted = self.wanted_labels(batch)
        labels = [wanted[row] for row in rows]
        control = self.control_for([self.condition_names[label] if label >= 0 else None for label in labels])
        found = decode(self.captioner, self.under(memory, labels), self.decoding(stage), control=control)
        image_ids = [batch["image_id"][row] for row in rows]
        captions = self.with_words(image_ids, self.decoded(found.token_ids[:, 0].tolist()), labels)
        return {"image_id": image_ids, "captions": captions}

    # metrics

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Loss, and figures on the generated captions of the chosen images."""
        references = evenly_spread(self.data.references(split), self.val_images if stage == "val" else None)
        if self._to_caption != references.keys() or not self._text_metrics:
            self._to_caption = frozenset(references)
            self._text_metrics = {"": CaptionMetrics(references)} if all(references.values()) else {}
            if scenes := self.data.scenes(split):
                self._text_metrics["fact_"] = SceneFacts({image_id: scenes[image_id] for image_id in references})
        return {"loss": loss_metric(), **self._text_metrics, **self.control_metrics(references)}

    # attention, of methods that have one

    def grid(self, regions: int) -> tuple[int, int]:
        """Rows and columns of so many regions.

        Raises:
            UserError: they are boxes.
        """
        side = math.isqrt(regions)
        if side * side != regions:
            raise UserError(f"the {regions} regions of this run are boxes and no grid: attention to them has no map")
        return side, side

    @torch.no_grad()
    def caption_maps(
        self, memory: Memory, captions: Sequence[str], tokenizer: CaptionTokenizer
    ) -> list[tuple[list[str], Tensor]]:
        """What the model attends to while it writes captions, e.g. its own.

        Args:
            memory: memory of B images.
            captions: one for each.
            tokenizer: the run's.

        Returns:
            For each image the tokens written, without the end, and one map each, `(tokens, h, w)` on the CPU.
        """
        ids = [tokenizer.encode(text) for text in captions]
        lengths = torch.tensor([len(row) for row in ids], device=self.device)
        padded = torch.full((len(ids), int(lengths.max())), tokenizer.pad_id, device=self.device)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens, device=self.device)
        order = torch.arange(len(ids), device=self.device)
        maps = self.captioner.attention_maps(memory, padded, lengths, order).float().cpu()
        grid = self.grid(maps.shape[2])
        return [
            ([tokenizer.decode([token]) for token in tokens[1:-1]], row[: len(tokens) - 2].unflatten(1, grid))
            for tokens, row in zip(ids, maps, strict=True)
        ]


def evenly_spread(references: Mapping[str, list[str]], limit: int | None) -> dict[str, list[str]]:
    """Picks at most `limit` images, evenly spread (files are often sorted by class), always the same.

    >>> list(evenly_spread({"a": [], "b": [], "c": [], "d": []}, 2))
    ['a', 'c']
    """
    return {name: references[name] for name in spread(list(references), limit)}
