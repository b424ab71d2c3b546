"""What all captioning methods share: teacher-forced loss, generation in evaluation, metrics on generated text.

Letters: B images, N captions, M target tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from core.batch import Batch
from datamodules.base import CaptionDataModule
from datamodules.loading.tokenization import CaptionTokenizer, tokenizer_from_spec
from datamodules.scenes.truth_metric import SceneTruth
from lightning_modules.base import BaseModule, Stage
from lightning_modules.parts.retrieval import check_retrieval, fill_index
from metrics.caption_metrics import CaptionMetrics
from networks.captioners.base import Captioner
from networks.generation.retrieval import RetrievalIndex
from networks.generation.search import DecodingSettings, decode
from networks.layers.positions import square_side
from networks.layers.sequences import CaptionOutput, Memory, select_rows
from networks.losses.tokens import token_loss


class Generated(TypedDict):
    """Captions written in an evaluation step."""

    image_id: list[str]
    captions: list[str]


class CaptioningModule(BaseModule):
    """Base of the captioners. A subclass makes `captioner` and names its hyper-parameters.

    Hyper-parameters read here: `label_smoothing`, `val_images`, `beams`, `length_penalty`, `no_repeat_ngram_size`,
    `max_tokens`, and where a method has them `mbr_reranking`, `retrieval_images` and `retrieval_weight`. Validation is
    greedy on at most `val_images` pictures, evenly spread over the split; testing and prediction use the beams on all.
    """

    monitor: ClassVar[str] = "val/cider_d"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    captioner: Captioner

    def __init__(self) -> None:
        super().__init__()
        self.eval_loss = MeanMetric()
        self.extra = nn.ModuleDict()
        """A method's own figures, logged under their keys as they are: torchmetrics that return one number."""
        self.text_metrics: CaptionMetrics | None = None
        self.truth: SceneTruth | None = None
        self._to_caption: frozenset[str] = frozenset()
        self._bank_step = -1
        self._tokenizer: CaptionTokenizer | None = None

    def pooling_forward(self, batch: Batch) -> object:
        """Encodes the pictures of a batch."""
        return self.captioner.encode(batch)

    def setup(self, stage: str) -> None:
        """Adds decoding settings to what the checkpoint carries; prepares the tokeniser."""
        super().setup(stage)
        if self.inference:
            self.inference["decoding"] = asdict(self.decoding("test"))
            self._tokenizer = tokenizer_from_spec(self.inference["tokenizer"])
            self.captioner.unk_id = getattr(self._tokenizer, "unk_id", None)

    def decoding(self, stage: Stage) -> DecodingSettings:
        """Settings of the search: greedy in validation, the configured beams elsewhere."""
        values = self.hparams
        if stage == "val":
            return DecodingSettings(max_tokens=values["max_tokens"])
        return DecodingSettings(
            beams=values["beams"],
            max_tokens=values["max_tokens"],
            length_penalty=values["length_penalty"],
            no_repeat_ngram_size=values["no_repeat_ngram_size"],
            mbr_reranking=values.get("mbr_reranking", False) and values["beams"] > 1,
            retrieval_images=values.get("retrieval_images", 0),
            retrieval_weight=values.get("retrieval_weight", 0.0),
        )

    # training captions that have a voice in decoding

    def add_retrieval(self) -> None:
        """Gives the captioner a bank of training captions, if the hyper-parameters want one.

        Raises:
            UserError: they contradict each other.
        """
        values = self.hparams
        if values["retrieval_images"]:
            check_retrieval(values["retrieval_images"], values["beams"], values["mbr_reranking"])
            self.captioner.retrieval_index = RetrievalIndex()

    def resize_buffers(self, weights: Mapping[str, Tensor]) -> None:
        """Makes the bank of training captions as large as a checkpoint's."""
        if self.captioner.retrieval_index is not None:
            self.captioner.retrieval_index.resize_buffers(weights, "captioner.retrieval_index.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the training captions, by what the present weights see in their pictures."""
        super().on_save_checkpoint(checkpoint)
        if self.captioner.retrieval_index is None:
            return
        if self._bank_step != self.global_step:
            fill_index(self.captioner, self.trainer.datamodule, self.device)  # type: ignore[attr-defined]  # set at run time
            self._bank_step = self.global_step
        for name, value in self.captioner.retrieval_index.state_dict().items():
            checkpoint["state_dict"][f"captioner.retrieval_index.{name}"] = value

    # steps

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Encodes the images once and scores all captions under teacher forcing."""
        memory = self.captioner.encode(batch)
        output = self.captioner(memory, batch["caption_ids"], batch["caption_lengths"], batch["image_index"])
        return memory, output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss per real target token."""
        del batch_idx
        _, output = self.teacher_forced(batch)
        loss = self.training_loss(batch, output)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(output.targets))
        return loss

    def training_loss(self, batch: Batch, output: CaptionOutput) -> Tensor:
        """What is optimised; a method may add terms."""
        del batch
        return token_loss(output.logits, output.targets, self.hparams["label_smoothing"])

    def validation_step(self, batch: Batch, batch_idx: int) -> Generated:
        """Loss on all captions, greedy captions of the chosen pictures."""
        del batch_idx
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Generated:
        """Loss on all captions, captions of all pictures."""
        del batch_idx
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Generated:
        """Captions of all pictures."""
        del batch_idx
        return self._write_captions(batch, self.captioner.encode(batch), list(range(len(batch["image_id"]))), "test")

    def _evaluate(self, batch: Batch, stage: Stage) -> Generated:
        if len(batch["caption_ids"]):
            memory, output = self.teacher_forced(batch)
            self.eval_loss.update(token_loss(output.logits, output.targets), weight=len(output.targets))
        else:
            memory = self.captioner.encode(batch)
        rows = [row for row, image_id in enumerate(batch["image_id"]) if image_id in self._to_caption]
        written = self._write_captions(batch, memory, rows, stage)
        if self.text_metrics is not None:
            self.text_metrics.update(written["image_id"], written["captions"])
        if self.truth is not None:
            self.truth.update(written["image_id"], written["captions"])
        self.update_extra(batch, written)
        return written

    def update_extra(self, batch: Batch, written: Generated) -> None:
        """Updates the method's own figures, `extra`."""

    def _write_captions(self, batch: Batch, memory: Memory, rows: list[int], stage: Stage) -> Generated:
        """Captions some rows of a batch."""
        if not rows:
            return {"image_id": [], "captions": []}
        if len(rows) < len(batch["image_id"]):
            memory = select_rows(memory, torch.tensor(rows, device=self.device))
        found = decode(self.captioner, memory, self.decoding(stage))
        assert self._tokenizer is not None, "setup() comes first"
        captions = [self._tokenizer.decode(ids) for ids in found.token_ids[:, 0].tolist()]
        return {"image_id": [batch["image_id"][row] for row in rows], "captions": captions}

    def own_metrics(self) -> dict[str, Metric]:
        """The metrics of `extra` by their keys."""
        return {name: metric for name, metric in self.extra.items() if isinstance(metric, Metric)}

    # epochs

    def on_validation_epoch_start(self) -> None:
        """Chooses the pictures to caption and empties the metrics."""
        self._start_metrics("val", self.hparams["val_images"])

    def on_test_epoch_start(self) -> None:
        """Takes all pictures and empties the metrics."""
        self._start_metrics("test", None)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self._log_metrics("test")

    def _start_metrics(self, stage: Stage, limit: int | None) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule)
        split = datamodule.evaluation_split(stage)
        references = evenly_spread(datamodule.references(split), limit)
        if self._to_caption != references.keys() or self.text_metrics is None:
            self._to_caption = frozenset(references)
            self.text_metrics = CaptionMetrics(references).to(self.device) if all(references.values()) else None
            if datamodule.has_scenes:
                scenes = {str(example.image_id): example.image for example in datamodule.examples(split)}
                self.truth = SceneTruth({image_id: scenes[image_id] for image_id in references}).to(self.device)
        for metric in (self.eval_loss, self.text_metrics, self.truth, *self.own_metrics().values()):
            if metric is not None:
                metric.reset()

    def _log_metrics(self, stage: Stage) -> None:
        values: dict[str, Any] = {"loss": self.eval_loss.compute()} if self.eval_loss.update_called else {}
        if self.text_metrics is not None and self.text_metrics.update_called:
            values |= self.text_metrics.compute()
        if self.truth is not None and self.truth.update_called:
            values["truth"] = self.truth.compute()
        values = {f"{stage}/{name}": value for name, value in values.items()}
        values |= {name: metric.compute() for name, metric in self.own_metrics().items() if metric.update_called}
        self.log_dict(values)  # the metrics have already been reduced over the ranks

    # attention, of methods that have one

    def grid(self, regions: int) -> tuple[int, int]:
        """Rows and columns of so many regions."""
        return square_side(regions), square_side(regions)

    @torch.no_grad()
    def caption_maps(
        self, memory: Memory, captions: Sequence[str], tokenizer: CaptionTokenizer
    ) -> list[tuple[list[str], Tensor]]:
        """Where the model looks while it writes captions, e.g. its own.

        Args:
            memory: of B images.
            captions: one for each.
            tokenizer: the run's.

        Returns:
            For each image the tokens written, the end left out, and one map each, `(tokens, h, w)` on the CPU.
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
    if limit is None or limit >= len(references):
        return dict(references)
    names = list(references)
    return {
        names[index * len(names) // limit]: references[names[index * len(names) // limit]] for index in range(limit)
    }
