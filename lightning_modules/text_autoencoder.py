"""Autoencoder of captions: the codes that image codes are drawn to, and the decoder that a captioner starts from.

Letters: B images, N captions, U different captions, T tokens of the longest one, D code width.
"""

from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric

from core.batch import Batch
from datamodules.readers.records import Split
from lightning_modules.base import BaseModule, Stage
from lightning_modules.parts.codes import SentenceCodeOptions
from lightning_modules.parts.sampling import SamplingOptions
from lightning_modules.parts.tokens import TokenOptions
from metrics.losses import loss_metric
from metrics.rewriting import RewrittenCaptions
from networks.captioners.text_autoencoder import TextAutoencoder
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.sequences import CaptionOutput, known_on_host, on_device, on_host
from networks.losses.tokens import token_loss

_REPLACED_WORDS = 0.2


class Rewritten(TypedDict):
    """Captions written again from their codes; the id of a caption is that of its image, a stroke and its number."""

    image_id: list[str]
    captions: list[str]


class TextAutoencoding(SamplingOptions, SentenceCodeOptions, TokenOptions, BaseModule):
    """Learns to write captions again from a code of fixed size.

    Logged, all of captions written greedily from codes, each against itself as the only reference:

    * ``val/bleu4``: all captions of the split.
    * ``val/unseen_bleu4``: those that do not stand verbatim (as tokens) under any training image.
    * ``val/exact``, ``val/unseen_exact``: exact match, the share of captions that come back token by token.

    Scheduled sampling decides step by step for the whole batch (published: 0.5); with 0 all steps are computed in one
    call. Encoder and decoder have `layers` recurrent layers each.

    Args:
        dropout: share dropped from words, between layers and before the vocabulary layer (published: 0.5).
        word_dropout: share of the words that the decoder reads that are masked.
        reverse_input: the encoder reads from the last word to the first.
        code_dropout: share of the code dropped.
        crossover: share of the training captions that are made of the beginning of one and the end of another.
        word_replacement: share of the training captions some of whose words (1 in 5) are replaced by others, at random.
            Both are to be written as they are read: there are few captions, and an autoencoder that has only seen these
            writes the nearest of them.
        deduplicate: captions that are equal in a batch count once.
    """

    method: ClassVar[str] = "text_autoencoder"
    monitor: ClassVar[str] = "val/bleu4"

    def __init__(
        self,
        *,
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        reverse_input: bool = True,
        code_dropout: float = 0.0,
        crossover: float = 0.0,
        word_replacement: float = 0.0,
        deduplicate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.crossover, self.word_replacement, self.deduplicate = crossover, word_replacement, deduplicate
        self.autoencoder = TextAutoencoder(
            word_input=self.word_input,
            word_dim=self.word_dim,
            hidden_dim=self.hidden_dim,
            layers=self.layers,
            cell=self.cell,
            code=self.code,
            dropout=dropout,
            word_dropout=word_dropout,
            reverse_input=reverse_input,
            code_dropout=code_dropout,
            gradient_checkpointing=self.gradient_checkpointing,
            **self.token_ids,
        )

    # steps

    def teacher_forced(self, ids: Tensor, lengths: Tensor) -> CaptionOutput:
        """Codes of captions, and the captions again: `(N, T)` and `(N,)`."""
        memory = self.autoencoder.encode({"caption_ids": ids, "caption_lengths": lengths})
        rows = torch.arange(len(ids), device=ids.device)
        output: CaptionOutput = self.autoencoder(memory, ids, lengths, rows, self.sampling_share())
        return output

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss per real target token."""
        ids, lengths = batch["caption_ids"], batch["caption_lengths"]
        if self.deduplicate:
            ids, lengths, _ = different(ids, lengths)
        if self.crossover or self.word_replacement:
            ids, lengths = varied(ids, lengths, self.crossover, self.word_replacement, self.pad_id)
        output = self.teacher_forced(ids, lengths)
        return token_loss(output.logits, output.targets, self.label_smoothing), len(output.targets)

    def evaluate(self, batch: Batch, stage: Stage) -> Rewritten:
        """Loss and captions."""
        del stage
        counts = batch["image_index"].bincount(minlength=len(batch["image_id"])).tolist()
        names = [f"{name}/{k}" for name, count in zip(batch["image_id"], counts, strict=True) for k in range(count)]
        if not names:
            return {"image_id": [], "captions": []}
        ids, lengths, place = different(batch["caption_ids"], batch["caption_lengths"])
        output = self.teacher_forced(ids, lengths)
        self.metrics["loss"].update(token_loss(output.logits, output.targets), weight=len(output.targets))
        memory = self.autoencoder.encode({"caption_ids": ids, "caption_lengths": lengths})
        found = decode(self.autoencoder, memory, DecodingSettings(max_tokens=self.max_tokens))
        texts = self.decoded(found.token_ids[:, 0].tolist())
        captions = [texts[row] for row in place.tolist()]
        for key, metric in self.metrics.items():
            if key != "loss":
                metric.update(names, captions)
        return {"image_id": names, "captions": captions}

    # evaluation

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Loss, BLEU-4 and exact match, of all captions and of the unseen ones."""
        del stage
        encode = self.data.tokenizer.encode
        known = {tuple(encode(text)) for own in self.data.references("train").values() for text in own}
        originals = {
            f"{name}/{k}": text for name, own in self.data.references(split).items() for k, text in enumerate(own)
        }
        unseen = {name: text for name, text in originals.items() if tuple(encode(text)) not in known}
        chosen = {key: own for key, own in {"": originals, "unseen_": unseen}.items() if own}
        return {"loss": loss_metric(), **{key: RewrittenCaptions(own, encode) for key, own in chosen.items()}}

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """None: the baselines of captioning say nothing of writing a caption that is known."""
        del split
        return {}


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
    rows, sizes = on_host(ids), on_host(lengths)
    places = [first.setdefault(tuple(row), len(first)) for row in rows]
    firsts = [places.index(row) for row in range(len(first))]
    kept = on_device(firsts, ids.device, torch.long)
    own = known_on_host(ids[kept], [rows[row] for row in firsts])
    own_lengths = known_on_host(lengths[kept], [sizes[row] for row in firsts])
    return own, own_lengths, on_device(places, ids.device, torch.long)


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
    rows, longest = [row[:n] for row, n in zip(on_host(ids), on_host(lengths), strict=True)], ids.shape[1]
    words = [word for row in rows for word in row[1:-1]]
    result: list[list[int]] = []
    for row in rows:
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
        result.append(row)
    filled = [[*row, *[pad_id] * (longest - len(row))] for row in result]
    return on_device(filled, ids.device), on_device([len(row) for row in result], ids.device)
