"""Captioning through a code: the image codes of distillation and the decoder of the text autoencoder, fine-tuned.

Control without distillation: `image_from` is a classifier, or null. Show and Tell: ``entry: first_word`` and
`text_from` null. With an attention, the decoder also attends to the regions; ``decoder: attention_rnn`` is then that of
the attention RNN, which starts from the code.

Letters: B images, N captions, D code width, C labels.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.readers.records import Split
from lightning_modules.base import Stage
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.distillation import Distillation
from lightning_modules.multilabel import MultiLabel
from lightning_modules.parts.codes import ImageCodeOptions, SentenceCodeOptions
from lightning_modules.parts.handover import (
    check_same_settings,
    check_same_words,
    load_image_codes,
    load_submodule,
    part_of,
    read_stage,
)
from lightning_modules.parts.sampling import SamplingOptions
from lightning_modules.text_autoencoder import TextAutoencoding
from metrics.distinct import DistinctCaptions
from networks.captioners.code import CodeCaptioner, CodeEntry
from networks.classifiers.image_code import ImageCoder
from networks.decoders.attention import AttentionDecoder
from networks.decoders.base import RecurrentDecoder
from networks.decoders.code import CodeDecoder
from networks.generation.settings import DecodingSettings
from networks.layers.attention import AttentionName, RegionProjection, build_attention
from networks.layers.sequences import CaptionOutput, Memory

DecoderName = Literal["code", "attention_rnn"]


class CodeCaptioning(SamplingOptions, SentenceCodeOptions, ImageCodeOptions, CaptioningModule):
    """Image to code to caption.

    Logged besides what all captioners log: ``val/distinct``, how many different captions were written.

    Sentence-code options are those of `text_from`, image-code options those of `image_from`. Scheduled sampling reads
    the most probable words of decoder ``code``, step by step for the whole batch; draws of ``attention_rnn``, word by
    word.

    Args:
        text_from: run of the text autoencoder whose decoder this run starts from (of ``attention_rnn``'s, the
            embeddings); None: the decoder is new. Read when a run starts, as the next.
        image_from: run of the distillation (or classifier) that the image codes start from; None: they are new.
        entry: the code is the decoder's initial ``state``, or, projected to a word's width, its ``first_word`` (Show
            and Tell).
        decoder: ``code``: the text autoencoder's, see `networks.decoders.code`; ``attention_rnn``: the attention RNN's,
            see `networks.decoders.attention`, whose initial state is made of the code and which must attend to
            something (`attention` or `attend_code`).
        decoder_dim: width of the recurrent layer of ``attention_rnn``; None: `hidden_dim`.
        attention: the decoder also attends to the regions: ``uniform``, ``bahdanau``, ``dot`` or ``multi_head``; None:
            only to the code.
        attend_code: the decoder attends in every step to what the code is made of, too: the hidden layer that
            distillation has shaped. Without an attention it is all that there is; with one it is one more region.
        attention_dim: width that regions are projected to, and in which they are compared.
        pooled_side: the regions that it attends to are averaged to this many rows and columns.
        image_dropout: share dropped behind every hidden layer of the image head.
        dropout: share dropped from words, between layers and before the vocabulary layer.
        word_dropout: share of the words read that are masked in training; of decoder ``code``.
        code_dropout: share of the code dropped.
        val_beams: beam width in validation, which chooses the checkpoint; with `mbr_reranking` as in testing.

    Raises:
        UserError: values do not match.
    """

    method: ClassVar[str] = "code_captioning"
    captioner: CodeCaptioner

    def __init__(
        self,
        *,
        text_from: str | None = None,
        image_from: str | None = None,
        entry: CodeEntry = "state",
        decoder: DecoderName = "code",
        decoder_dim: int | None = None,
        attention: AttentionName | None = None,
        attend_code: bool = False,
        attention_dim: int = 128,
        pooled_side: int | None = None,
        image_dropout: float = 0.5,
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        code_dropout: float = 0.0,
        val_beams: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.text_from, self.image_from, self.entry = text_from, image_from, entry
        self.decoder, self.decoder_dim = decoder, decoder_dim
        self.attention, self.attend_code, self.attention_dim = attention, attend_code, attention_dim
        self.dropout, self.word_dropout, self.val_beams = dropout, word_dropout, val_beams
        encoder = self.new_encoder()
        width = self.feature_dim or 1 if encoder is None else encoder.grid_dim
        writer, code_dim = self._new_decoder()
        coder = self.new_coder(code_dim, image_dropout, encoder)
        regions = summary = None
        if attention is not None:
            regions = RegionProjection(
                feature_dim=width, region_dim=attention_dim, pooled_side=pooled_side, dropout=dropout
            )
        if attend_code:
            summary = RegionProjection(
                feature_dim=coder.project.in_features, region_dim=attention_dim, pooled_side=None, dropout=dropout
            )
        self.captioner = CodeCaptioner(
            coder=coder,
            decoder=writer,
            regions=regions,
            summary=summary,
            entry=entry,
            code_dropout=code_dropout,
            **self.token_ids,
        )
        self.complete_captioner()
        self.choose_learning()
        self.let_encoder_learn(True)

    def _new_decoder(self) -> tuple[RecurrentDecoder, int]:
        """The decoder that is wanted, and the width of the codes that it starts from."""
        reader = self.new_reader(self.vocab_size)
        code_dim = self.hidden_dim * (self.layers if self.code == "states" else 1)
        code_dim = reader.out_features if self.entry == "first_word" else code_dim
        attends = None
        if self.attention is not None or self.attend_code:
            state_dim = self.hidden_dim if self.decoder == "code" else self.decoder_dim or self.hidden_dim
            attends = build_attention(
                self.attention or "uniform",
                region_dim=self.attention_dim,
                hidden_dim=state_dim,
                attention_dim=self.attention_dim,
            )
        _check_decoder(self)
        if self.decoder == "code":
            code_decoder = CodeDecoder(
                vocab_size=self.vocab_size,
                words=reader,
                hidden_dim=self.hidden_dim,
                layers=self.layers,
                cell=self.cell,
                dropout=self.dropout,
                word_dropout=self.word_dropout,
                attention=attends,
                gradient_checkpointing=self.gradient_checkpointing,
            )
            return code_decoder, code_dim
        assert attends is not None
        attention_decoder = AttentionDecoder(
            attention=attends,
            vocab_size=self.vocab_size,
            start_dim=code_dim,
            cell=self.cell,
            word_dim=self.word_dim,
            dropout=self.dropout,
            never_read=(self.bos_id, self.eos_id, self.pad_id),
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return attention_decoder, code_dim

    @property
    def own_coder(self) -> ImageCoder:
        """The captioner's image codes."""
        return self.captioner.coder

    def decoding(self, stage: Stage) -> DecodingSettings:
        """Settings of the search, with reranking if wanted; validation has a beam width of its own, no retrieval."""
        settings = super().decoding("test")
        beams = self.val_beams if stage == "val" else settings.beams
        return replace(
            settings,
            beams=beams,
            mbr_reranking=self.mbr_reranking and beams > 1,
            control_rerank=0.0 if stage == "val" else settings.control_rerank,
            # the index is that of the last checkpoint, and it is checkpoints that validation chooses
            retrieval_images=0 if stage == "val" else settings.retrieval_images,
        )

    def load_pretrained(self) -> None:
        """Loads the decoder, the image codes and the CNN's weights.

        Raises:
            UserError: something does not match.
        """
        super().load_pretrained()
        if (path := self.text_from) is not None:
            checkpoint = read_stage(path, "text_from", (TextAutoencoding.method,))
            check_same_words(checkpoint, self.inference, "text_from", path)
            weights = part_of(checkpoint["state_dict"], "autoencoder.decoder.")
            decoder = self.captioner.decoder
            if isinstance(decoder, AttentionDecoder):
                check_same_settings(checkpoint, self.hparams, ("word_input", "word_dim"), "text_from", path)
                load_submodule(decoder.embedding, part_of(weights, "words.embedding."), "text_from", path)
            else:
                names = ("word_input", "word_dim", "hidden_dim", "layers", "cell", "code")
                check_same_settings(checkpoint, self.hparams, names, "text_from", path)
                load_submodule(decoder, weights, "text_from", path, "attention. look.")
        if self.image_from is not None:
            coder, methods = self.captioner.coder, (MultiLabel.method, Distillation.method)
            load_image_codes(coder, self.hparams, self.inference, "image_from", self.image_from, methods)

    # steps

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; in training some words read are the decoder's own."""
        memory = self.captioner.encode(batch)
        return memory, self.captioner(*self.captions_of(batch, memory), self.sampling_share())

    def training_loss(self, batch: Batch, memory: Memory, output: CaptionOutput) -> Tensor:
        """Cross-entropy of the words and, where wanted, of the labels."""
        loss = super().training_loss(batch, memory, output)
        if self.label_weight:
            logits = self.captioner.coder.labels(memory["hidden"]).float()
            loss = loss + self.label_weight * F.binary_cross_entropy_with_logits(logits, batch["labels"])
        return loss

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Also the number of different captions."""
        return {**super().evaluation_metrics(stage, split), "distinct": DistinctCaptions()}

    def update_metrics(self, batch: Batch, memory: Memory, output: CaptionOutput | None, written: Generated) -> None:
        """Counts different captions."""
        super().update_metrics(batch, memory, output, written)
        self.metrics["distinct"].update(written["captions"])


def _check_decoder(module: CodeCaptioning) -> None:
    """The attention RNN's decoder attends to something, reads embeddings and has no words hidden.

    Raises:
        UserError: an unknown decoder, or settings that it cannot have.
    """
    name = module.decoder
    if name not in get_args(DecoderName):
        raise UserError(f"decoder is {name!r}: expected one of {', '.join(get_args(DecoderName))}")
    if name == "code":
        if module.decoder_dim is not None:
            raise UserError(f"decoder_dim is {module.decoder_dim} with decoder=code: set hidden_dim instead")
        return
    if module.attention is None and not module.attend_code:
        raise UserError("decoder is attention_rnn without anything to attend to: set attention, or attend_code=true")
    wanted = {"word_input": "embedding", "word_dropout": 0.0, "entry": "state"}
    for key, value in wanted.items():
        if (given := getattr(module, key)) != value:
            raise UserError(f"{key} is {given!r} with decoder=attention_rnn: expected {value!r}")
