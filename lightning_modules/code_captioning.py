"""Captioning through a code: the image codes of distillation and the decoder of the text autoencoder, fine-tuned.

Control without distillation: `image_from` is a classifier, or null. Show and Tell: ``entry: first_word`` and
`text_from` null. With an attention, the decoder also looks at the regions; ``decoder: attention_rnn`` is then that of
the attention RNN, which starts from the code.

Letters: B images, N captions, D code width, C labels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from lightning_modules.base import Schedule, Stage
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.parts.handover import (
    check_labels,
    check_same_settings,
    check_same_words,
    load_cnn,
    load_image_codes,
    load_submodule,
    part_of,
    read_stage,
)
from lightning_modules.parts.settings import check_one_encoder, scheduled_share
from metrics.distinct import DistinctCaptions
from networks.captioners.code import CodeCaptioner, CodeEntry, RegionProjection
from networks.captioners.text_autoencoder import CodeKind
from networks.classifiers.base import Classifier
from networks.classifiers.image_code import ImageCoder
from networks.decoders.attention import AttentionDecoder
from networks.decoders.base import RecurrentDecoder
from networks.decoders.code import CodeDecoder, WordInput, WordReader
from networks.encoders.build import build_encoder
from networks.encoders.freezing import parameters_of_map
from networks.generation.search import DecodingSettings
from networks.layers.attention import Attention, AttentionName, build_attention
from networks.layers.pooling import Pooling
from networks.layers.recurrent import CellName
from networks.layers.sequences import CaptionOutput, Memory

DecoderName = Literal["code", "attention_rnn"]


class CodeCaptioning(CaptioningModule):
    """Image to code to caption.

    Logged besides what all captioners log: ``val/distinct``, how many different captions were written.

    Args:
        text_from: run of the text autoencoder whose decoder is taken over (of ``attention_rnn``'s, the embeddings);
            None: the decoder is new. Read when a run starts, as the next.
        image_from: run of the distillation (or classifier) that the image codes start from; None: they are new.
        entry: the code is the decoder's initial ``state``, or, projected to a word's width, its ``first_word`` (Show
            and Tell).
        decoder: ``code``: the text autoencoder's, see `networks.decoders.code`; ``attention_rnn``: the attention RNN's,
            see `networks.decoders.attention`, whose initial state is made of the code and which must have something to
            look at (`attention` or `attend_code`).
        decoder_dim: width of the recurrent layer of ``attention_rnn``; None: `hidden_dim`.
        attention: the decoder also looks at the regions: ``uniform``, ``bahdanau``, ``dot`` or ``multi_head``; None:
            only at the code.
        attend_code: the decoder looks in every step at what the code is made of, too: the hidden layer that
            distillation has
            shaped. Without an attention it is all that there is to look at; with one it is one more region.
        attention_dim: width that regions are projected to, and in which they are compared.
        pooled_side: the regions that it looks at are averaged to this many rows and columns.
        label_weight: weight of the cross-entropy of the labels, which are learnt along; 0: they are not.
        image_encoder: CNN that belongs to this module and learns; None: the data module's frozen one gives features.
        image_weights: its weights: a published name, a local file, or None.
        gradient_checkpointing: keep no activations inside the CNN's blocks.
        hidden_dims: as in `image_from`, as these five: widths of the hidden layers between pooled features and code.
        pooling: how regions become one vector.
        normalize: LayerNorm in front of the head.
        image_dropout: share dropped behind every hidden layer.
        input_dropout: share of the pooled features dropped.
        word_input: as in `text_from`, as these six: ``embedding`` or ``one_hot``.
        word_dim: width of embeddings.
        hidden_dim: width of a recurrent layer.
        layers: recurrent layers.
        cell: ``lstm`` or ``gru``.
        code: ``states`` or ``output``.
        dropout: share dropped from words, between layers and before the vocabulary layer.
        word_dropout: share of the words read that are hidden in training; of decoder ``code``.
        code_dropout: share of the code dropped.
        scheduled_sampling: share of the words read in training that are the decoder's own: ``code``'s most probable
            ones, step by step for the whole batch; draws of ``attention_rnn``, word by word.
        scheduled_sampling_epochs: epochs in which that probability grows from 0; 0: it is there from the first epoch
            on.
        lr: peak learning rate.
        lr_pretrained: peak learning rate of the CNN.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        label_smoothing: share of the target probability spread over all tokens.
        val_images: pictures captioned in every validation; None = all.
        val_beams: beam width in validation, which chooses the checkpoint; with `mbr_reranking` as in testing.
        beams: beam width in testing and prediction.
        length_penalty: see `networks.generation.search`.
        no_repeat_ngram_size: likewise.
        mbr_reranking: rank the captions of the beam search by their agreement, see `networks.generation.consensus`.
        retrieval_images: training pictures whose captions have a voice in the consensus, except in validation (see
            `networks.generation.retrieval`); the checkpoint carries all training captions then. 0: none.
        retrieval_weight: part of the consensus that is theirs, in [0, 1].
        max_tokens: longest generated caption in tokens, EOS included.
        init_from: run or checkpoint whose weights this run starts from.
        vocab_size: tokens of the data module's tokeniser.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling behind captions.
        num_labels: labels of the data.
        feature_dim: width of the data module's features, None when it gives pictures.

    Raises:
        UserError: values do not fit together.
    """

    method: ClassVar[str] = "code_captioning"
    captioner: CodeCaptioner

    def __init__(
        self,
        text_from: str | None = None,
        image_from: str | None = None,
        entry: CodeEntry = "state",
        decoder: DecoderName = "code",
        decoder_dim: int | None = None,
        attention: AttentionName | None = None,
        attend_code: bool = False,
        attention_dim: int = 128,
        pooled_side: int | None = None,
        label_weight: float = 0.0,
        image_encoder: str | None = None,
        image_weights: str | None = None,
        gradient_checkpointing: bool = False,
        hidden_dims: list[int] = [512],  # noqa: B006  # never changed; the command line shows it as the default
        pooling: Pooling = "mean_max",
        normalize: bool = True,
        image_dropout: float = 0.5,
        input_dropout: float = 0.0,
        word_input: WordInput = "embedding",
        word_dim: int = 300,
        hidden_dim: int = 1024,
        layers: int = 2,
        cell: CellName = "lstm",
        code: CodeKind = "states",
        dropout: float = 0.5,
        word_dropout: float = 0.0,
        code_dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        scheduled_sampling_epochs: int = 0,
        lr: float = 1e-3,
        lr_pretrained: float = 1e-5,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        label_smoothing: float = 0.0,
        val_images: int | None = 1000,
        val_beams: int = 1,
        beams: int = 3,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        mbr_reranking: bool = False,
        retrieval_images: int = 0,
        retrieval_weight: float = 0.7,
        max_tokens: int = 36,
        init_from: str | None = None,
        vocab_size: int = 10_000,
        bos_id: int = 1,
        eos_id: int = 2,
        pad_id: int = 0,
        num_labels: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_one_encoder(image_encoder, feature_dim, {"image_weights": image_weights is not None})
        encoder = None
        if image_encoder is not None:
            # random weights here: published ones come in `load_pretrained`, so that serving never looks for them
            encoder = build_encoder(image_encoder, None, gradient_checkpointing=gradient_checkpointing)
        width = feature_dim or 1 if encoder is None else encoder.grid_dim
        reader = WordReader(word_input=word_input, vocab_size=vocab_size, word_dim=word_dim)
        code_dim = reader.out_features if entry == "first_word" else hidden_dim * (layers if code == "states" else 1)
        looks: Attention | None = None
        if attention is not None or attend_code:
            width_of_state = hidden_dim if decoder == "code" else decoder_dim or hidden_dim
            looks = build_attention(
                attention or "uniform", region_dim=attention_dim, hidden_dim=width_of_state, attention_dim=attention_dim
            )
        _check_decoder(self.hparams)
        writer: RecurrentDecoder
        if decoder == "code":
            writer = CodeDecoder(
                vocab_size=vocab_size,
                words=reader,
                hidden_dim=hidden_dim,
                layers=layers,
                cell=cell,
                dropout=dropout,
                word_dropout=word_dropout,
                attention=looks,
            )
        else:
            assert looks is not None
            special = (bos_id, eos_id, pad_id)
            writer = AttentionDecoder(
                attention=looks,
                vocab_size=vocab_size,
                start_dim=code_dim,
                cell=cell,
                word_dim=word_dim,
                dropout=dropout,
                never_read=special,
            )
        coder = ImageCoder(
            code_dim=code_dim,
            num_labels=num_labels or 0,
            encoder=encoder,
            feature_dim=width,
            hidden_dims=hidden_dims,
            pooling=pooling,
            normalize=normalize,
            dropout=image_dropout,
            input_dropout=input_dropout,
        )
        self.captioner = CodeCaptioner(
            coder=coder,
            decoder=writer,
            regions=RegionProjection(
                feature_dim=width, region_dim=attention_dim, pooled_side=pooled_side, dropout=dropout
            )
            if attention is not None
            else None,
            summary=RegionProjection(
                feature_dim=coder.project.in_features, region_dim=attention_dim, pooled_side=None, dropout=dropout
            )
            if attend_code
            else None,
            entry=entry,
            code_dropout=code_dropout,
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=pad_id,
        )
        self.add_retrieval()
        self.extra.update({f"{stage}/distinct": DistinctCaptions() for stage in ("val", "test")})
        if not label_weight:
            coder.classifier.head[-1].requires_grad_(False)
        if encoder is not None:
            learning = set(parameters_of_map(encoder))
            for name, parameter in encoder.named_parameters():
                parameter.requires_grad_(name in learning)

    def update_extra(self, batch: Batch, written: Generated) -> None:
        """Counts different captions."""
        del batch
        metric = self.own_metrics()[f"{'test' if self.trainer.testing else 'val'}/distinct"]
        metric.update(written["captions"])

    def decoding(self, stage: Stage) -> DecodingSettings:
        """Settings of the search, with consensus if wanted; validation has a beam width of its own, no neighbours."""
        settings, values = super().decoding("test"), self.hparams
        beams = values["val_beams"] if stage == "val" else settings.beams
        return replace(
            settings,
            beams=beams,
            mbr_reranking=values["mbr_reranking"] and beams > 1,
            # the bank is that of the last checkpoint, and it is checkpoints that validation chooses
            retrieval_images=0 if stage == "val" else settings.retrieval_images,
        )

    def image_classifier(self) -> Classifier | None:
        """The classifier that shares the hidden layers, if it learns along (`label_weight`)."""
        return self.captioner.coder.classifier if self.hparams["label_weight"] else None

    def scheduled_sampling(self) -> float:
        """Share of the decoder's own words in this epoch's training."""
        return scheduled_share(self.hparams, self.current_epoch)

    def load_pretrained(self) -> None:
        """Takes over the decoder, the image codes and the CNN's weights.

        Raises:
            UserError: something does not fit.
        """
        settings = self.hparams
        check_labels(settings)
        load_cnn(self.captioner.coder, settings["image_encoder"], settings["image_weights"])
        if (path := settings["text_from"]) is not None:
            checkpoint = read_stage(path, "text_from", ("text_autoencoder",))
            check_same_words(checkpoint, self.inference, "text_from", path)
            weights = part_of(checkpoint["state_dict"], "autoencoder.decoder.")
            decoder = self.captioner.decoder
            if isinstance(decoder, AttentionDecoder):
                check_same_settings(checkpoint, settings, ("word_input", "word_dim"), "text_from", path)
                load_submodule(decoder.embedding, part_of(weights, "words.embedding."), "text_from", path)
            else:
                names = ("word_input", "word_dim", "hidden_dim", "layers", "cell", "code")
                check_same_settings(checkpoint, settings, names, "text_from", path)
                load_submodule(decoder, weights, "text_from", path, "attention. look.")
        if settings["image_from"] is not None:
            path = settings["image_from"]
            load_image_codes(self.captioner.coder, settings, self.inference, "image_from", path)

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CNN."""
        encoder = self.captioner.coder.encoder
        return () if encoder is None else encoder.parameters()

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; in training some words read are the decoder's own."""
        memory = self.captioner.encode(batch)
        output: CaptionOutput = self.captioner(
            memory,
            batch["caption_ids"],
            batch["caption_lengths"],
            batch["image_index"],
            self.scheduled_sampling() if self.training else 0.0,
        )
        self._hidden = memory["hidden"] if self.training else None  # for `training_loss`
        return memory, output

    def training_loss(self, batch: Batch, output: CaptionOutput) -> Tensor:
        """Cross-entropy of the words and, where wanted, of the labels."""
        loss = super().training_loss(batch, output)
        hidden, self._hidden = self._hidden, None
        if weight := self.hparams["label_weight"]:
            assert hidden is not None
            logits = self.captioner.coder.labels(hidden).float()
            loss = loss + weight * F.binary_cross_entropy_with_logits(logits, batch["labels"])
        return loss


def _check_decoder(settings: Mapping[str, Any]) -> None:
    """The attention RNN's decoder looks at something, reads embeddings and has no words hidden.

    Raises:
        UserError: an unknown decoder, or settings that it cannot have.
    """
    name = settings["decoder"]
    if name not in get_args(DecoderName):
        raise UserError(f"decoder is {name!r}: expected one of {', '.join(get_args(DecoderName))}")
    if name == "code":
        if settings["decoder_dim"] is not None:
            raise UserError(f"decoder_dim is {settings['decoder_dim']} with decoder=code: set hidden_dim instead")
        return
    if settings["attention"] is None and not settings["attend_code"]:
        raise UserError("decoder is attention_rnn without anything to look at: set attention, or attend_code=true")
    wanted = {"word_input": "embedding", "word_dropout": 0.0, "entry": "state"}
    for key, value in wanted.items():
        if settings[key] != value:
            raise UserError(f"{key} is {settings[key]!r} with decoder=attention_rnn: expected {value!r}")
