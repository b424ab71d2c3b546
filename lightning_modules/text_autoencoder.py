"""Autoencoder of captions: the codes that image codes are drawn to, and the decoder that a captioner takes over.

Letters: B images, N captions, U different captions, T tokens of the longest one, D code width.
"""

from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from core.batch import Batch
from datamodules.base import CaptionDataModule, Split
from datamodules.loading.tokenization import CaptionTokenizer, tokenizer_from_spec
from lightning_modules.base import BaseModule, Schedule, Stage
from lightning_modules.parts.settings import scheduled_share
from metrics.caption_metrics import CaptionMetrics
from networks.captioners.text_autoencoder import CodeKind, TextAutoencoder
from networks.decoders.code import WordInput
from networks.generation.search import DecodingSettings, decode
from networks.layers.recurrent import CellName
from networks.layers.sequences import CaptionOutput
from networks.losses.tokens import token_loss

_REPLACED_WORDS = 0.2


class Rewritten(TypedDict):
    """Captions written again from their codes; the id of a caption is that of its image, a stroke and its number."""

    image_id: list[str]
    captions: list[str]


class TextAutoencoding(BaseModule):
    """Learns to write captions again from a code of fixed size.

    Logged, all of captions written greedily from codes, each against itself as the only reference:

    * ``val/bleu4``: all captions of the split.
    * ``val/unseen_bleu4``: those that do not stand verbatim (as tokens) under any training image.
    * ``val/exact``, ``val/unseen_exact``: share that comes back word by word.

    Args:
        word_input: ``embedding`` or ``one_hot``.
        word_dim: width of embeddings (published: 300).
        hidden_dim: width of a recurrent layer (published: 1024).
        layers: of encoder and of decoder.
        cell: ``lstm`` or ``gru``.
        code: ``states``: final cell states of all layers; ``output``: last output of the upper one.
        dropout: share dropped from words, between layers and before the vocabulary layer (published: 0.5).
        word_dropout: share of the words that the decoder reads hidden.
        reverse_input: the encoder reads from the last word to the first.
        code_dropout: share of the code dropped.
        crossover: share of the training captions that are made of the beginning of one and the end of another.
        word_replacement: share of the training captions some of whose words (1 in 5) are replaced by others, at
            random. Both
            are to be written as they are read: there are few captions, and an autoencoder that has only seen these
            writes the nearest of them.
        scheduled_sampling: probability, step by step, that the decoder reads its own words in training (published:
            0.5); with 0 all steps are computed in one call.
        scheduled_sampling_epochs: epochs in which that probability grows from 0; 0: it is there from the first epoch
            on.
        deduplicate: captions that are equal in a batch count once.
        gradient_checkpointing: keep no activations of the encoder.
        lr: peak learning rate.
        lr_pretrained: not used: everything is new.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        label_smoothing: share of the target probability spread over all tokens.
        max_tokens: longest caption written, EOS included.
        init_from: run or checkpoint whose weights this run starts from.
        vocab_size: tokens of the data module's tokeniser.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling behind captions.
    """

    method: ClassVar[str] = "text_autoencoder"
    monitor: ClassVar[str] = "val/bleu4"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        word_input: WordInput = "embedding",
        word_dim: int = 300,
        hidden_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        code: CodeKind = "states",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        reverse_input: bool = True,
        code_dropout: float = 0.0,
        crossover: float = 0.0,
        word_replacement: float = 0.0,
        scheduled_sampling: float = 0.0,
        scheduled_sampling_epochs: int = 0,
        deduplicate: bool = True,
        gradient_checkpointing: bool = False,
        lr: float = 1e-3,
        lr_pretrained: float = 0.0,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        label_smoothing: float = 0.0,
        max_tokens: int = 36,
        init_from: str | None = None,
        vocab_size: int = 10_000,
        bos_id: int = 1,
        eos_id: int = 2,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.autoencoder = TextAutoencoder(
            vocab_size=vocab_size,
            word_input=word_input,
            word_dim=word_dim,
            hidden_dim=hidden_dim,
            layers=layers,
            cell=cell,
            code=code,
            dropout=dropout,
            word_dropout=word_dropout,
            reverse_input=reverse_input,
            code_dropout=code_dropout,
            gradient_checkpointing=gradient_checkpointing,
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=pad_id,
        )
        self.eval_loss = MeanMetric()
        self.all_captions: CaptionMetrics | None = None
        self.unseen: CaptionMetrics | None = None
        self.exact: dict[str, MeanMetric] = {}
        self._tokenizer: CaptionTokenizer | None = None

    def setup(self, stage: str) -> None:
        """Also prepares the tokeniser."""
        super().setup(stage)
        if self.inference:
            self._tokenizer = tokenizer_from_spec(self.inference["tokenizer"])

    def bounds(self, split: Split) -> dict[str, dict[str, float]]:
        """None: the floors of captioning say nothing of writing a caption that is known."""
        del split
        return {}

    # steps

    def scheduled_sampling(self) -> float:
        """Share of the decoder's own words in this epoch's training."""
        return scheduled_share(self.hparams, self.current_epoch)

    def teacher_forced(self, ids: Tensor, lengths: Tensor, scheduled_sampling: float) -> CaptionOutput:
        """Codes of captions, and the captions again: `(N, T)` and `(N,)`."""
        memory = self.autoencoder.encode({"caption_ids": ids, "caption_lengths": lengths})
        rows = torch.arange(len(ids), device=ids.device)
        output: CaptionOutput = self.autoencoder(memory, ids, lengths, rows, scheduled_sampling)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss per real target token."""
        del batch_idx
        ids, lengths = batch["caption_ids"], batch["caption_lengths"]
        if self.hparams["deduplicate"]:
            ids, lengths, _ = different(ids, lengths)
        if self.hparams["crossover"] or self.hparams["word_replacement"]:
            ids, lengths = varied(
                ids, lengths, self.hparams["crossover"], self.hparams["word_replacement"], self.hparams["pad_id"]
            )
        output = self.teacher_forced(ids, lengths, self.scheduled_sampling())
        loss = token_loss(output.logits, output.targets, self.hparams["label_smoothing"])
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(output.targets))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Rewritten:
        """Loss and captions."""
        del batch_idx
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Rewritten:
        """Loss and captions."""
        del batch_idx
        return self._evaluate(batch)

    def _evaluate(self, batch: Batch) -> Rewritten:
        counts = batch["image_index"].bincount(minlength=len(batch["image_id"])).tolist()
        names = [f"{name}/{k}" for name, count in zip(batch["image_id"], counts, strict=True) for k in range(count)]
        if not names:
            return {"image_id": [], "captions": []}
        ids, lengths, place = different(batch["caption_ids"], batch["caption_lengths"])
        output = self.teacher_forced(ids, lengths, 0.0)
        self.eval_loss.update(token_loss(output.logits, output.targets), weight=len(output.targets))
        memory = self.autoencoder.encode({"caption_ids": ids, "caption_lengths": lengths})
        found = decode(self.autoencoder, memory, DecodingSettings(max_tokens=self.hparams["max_tokens"]))
        assert self._tokenizer is not None, "setup() comes first"
        texts = [self._tokenizer.decode(row) for row in found.token_ids[:, 0].tolist()]
        captions = [texts[row] for row in place.tolist()]
        self._score(names, captions)
        return {"image_id": names, "captions": captions}

    def _score(self, names: list[str], captions: list[str]) -> None:
        assert self._tokenizer is not None
        for key, metric in (("", self.all_captions), ("unseen_", self.unseen)):
            if metric is None:
                continue
            own = [(name, text) for name, text in zip(names, captions, strict=True) if name in self._references[key]]
            metric.update([name for name, _ in own], [text for _, text in own])
            for name, text in own:
                same = self._tokenizer.encode(text) == self._tokenizer.encode(self._references[key][name][0])
                self.exact[key].update(float(same))

    # epochs

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
        tokenizer = datamodule.tokenizer
        known = {tuple(tokenizer.encode(text)) for own in datamodule.references("train").values() for text in own}
        references = {
            f"{name}/{k}": [text]
            for name, own in datamodule.references(datamodule.evaluation_split(stage)).items()
            for k, text in enumerate(own)
        }
        unseen = {name: own for name, own in references.items() if tuple(tokenizer.encode(own[0])) not in known}
        self._references = {"": references, "unseen_": unseen}
        self.all_captions = CaptionMetrics(references).to(self.device) if references else None
        self.unseen = CaptionMetrics(unseen).to(self.device) if unseen else None
        self.exact = {key: MeanMetric().to(self.device) for key in self._references}
        self.eval_loss.reset()

    def _log_metrics(self, stage: Stage) -> None:
        values: dict[str, Any] = {"loss": self.eval_loss.compute()} if self.eval_loss.update_called else {}
        for key, metric in (("", self.all_captions), ("unseen_", self.unseen)):
            if metric is not None and metric.update_called:
                values[f"{key}bleu4"] = metric.compute()["bleu4"]
                values[f"{key}exact"] = self.exact[key].compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})


def different(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leaves out captions that are there already.

    Args:
        ids: `(N, T)`, filled behind each caption with what no caption contains.
        lengths: `(N,)`.

    Returns:
        The U different captions in the order of their first places `(U, T)`, their lengths `(U,)`, and for each of the
        N the one that it equals, `(N,)`.

    >>> different(torch.tensor([[1, 5, 2], [1, 2, 0], [1, 5, 2]]), torch.tensor([3, 2, 3]))[2].tolist()
    [0, 1, 0]
    """
    first: dict[tuple[int, ...], int] = {}
    places = [first.setdefault(tuple(row), len(first)) for row in ids.tolist()]
    kept = torch.tensor([places.index(row) for row in range(len(first))], dtype=torch.long, device=ids.device)
    return ids[kept], lengths[kept], torch.tensor(places, dtype=torch.long, device=ids.device)


def varied(
    ids: Tensor, lengths: Tensor, crossover: float, word_replacement: float, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Makes new captions of those of a batch, drawn from torch's generator of the CPU.

    Args:
        ids: `(N, T)`, each BOS .. EOS and then filling.
        lengths: `(N,)`.
        crossover: share of captions whose end is taken from another one of the batch, from any word of it on; what is
            longer than T is cut, EOS stays.
        word_replacement: share of captions in which every fifth word, on average, is replaced by a word of the batch.
        pad_id: the filling.

    Returns:
        As many captions, `(N, T)` and `(N,)`.
    """
    rows, longest = [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)], ids.shape[1]
    words = [word for row in rows for word in row[1:-1]]
    result = ids.clone()
    sizes = lengths.clone()
    for place, row in enumerate(rows):
        cross, replace, cut, other, begin = torch.rand(5).tolist()
        if cross < crossover:
            end = rows[int(other * len(rows))]
            row = row[: 1 + int(cut * (len(row) - 1))] + end[1 + int(begin * (len(end) - 1)) :]
            if len(row) > longest:
                row = [*row[: longest - 1], row[-1]]
        if replace < word_replacement and words:
            draws = torch.rand(2, len(row)).tolist()
            row = [
                words[int(which * len(words))] if 0 < step < len(row) - 1 and draw < _REPLACED_WORDS else word
                for step, (word, draw, which) in enumerate(zip(row, *draws, strict=True))
            ]
        sizes[place] = len(row)
        result[place, : len(row)] = torch.tensor(row)
        result[place, len(row) :] = pad_id
    return result, sizes
