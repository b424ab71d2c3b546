"""Dual-transfer captioning: a pretrained image network and a pretrained language model, merged by a small MLP.

After "Dual Transfer Learning for Caption Generation" (X. Reyes Tejedor, 2020), with its defects repaired: the loss
counts real tokens only, an image is encoded once however many captions it has, BOS, EOS and PAD are three tokens, and
captions are scored as generated, by words. `as_published` brings the paper's own loss and figures back, beside the
correct ones and under names that say so.

Letters: B images, N captions, T tokens, M scored tokens, V vocabulary.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torchmetrics import MeanMetric

from core.batch import Batch
from core.errors import UserError
from lightning_modules.base import Schedule
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.parts.settings import check_one_encoder
from metrics.character_bleu import character_bleu
from networks.captioners.dual_transfer import DualTransferCaptioner
from networks.decoders.language import GPT2_SIZES, build_language_model
from networks.decoders.merging import MergingVariant
from networks.encoders.build import build_encoder
from networks.layers.pooling import Pooling
from networks.layers.sequences import CaptionOutput, Memory
from networks.losses.tokens import token_loss


class DualTransfer(CaptioningModule):
    """Image network + language model + merging network, all trained.

    Args:
        image_encoder: ``efficientnet-b4`` (published), ``timm/NAME``, ``torchvision/NAME`` or ``small-conv``; None: the
            data module's frozen `encoder` gives features, see `pooling`.
        image_weights: name of published weights, a local file, or None = random; None without an image encoder.
        language_model: a GPT-2 size, or another causal language model's folder or hub id.
        language_weights: hub id, local folder or file, or None = random.
        merging: merging network, see `networks.decoders.merging`.
        language_layers: blocks of the language model; None = as its name says.
        language_heads: attention heads, likewise.
        language_dim: hidden width, likewise.
        dropout: dropout of the language model; None = as its name says.
        gradient_checkpointing: keep no activations inside the blocks of both towers.
        freeze_image: the image network does not learn.
        pooling: how the data module's features become one vector, see `networks.layers.pooling`; an image network here
            makes its own.
        lr: peak learning rate of what starts from random weights.
        lr_pretrained: peak learning rate of towers with pretrained weights.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after it.
        label_smoothing: share of the target probability spread over all tokens.
        as_published: train on the paper's padded loss and also log its two figures of merit.
        val_images: pictures captioned in every validation; None = all.
        beams: beam width in testing and prediction.
        length_penalty: see `networks.generation.search`.
        no_repeat_ngram_size: likewise.
        mbr_reranking: rank the captions of the beam search by their agreement, see `networks.generation.consensus`.
        retrieval_images: training pictures whose captions have a voice in the consensus (see
            `networks.generation.retrieval`); the checkpoint carries all training captions then. 0: none.
        retrieval_weight: part of the consensus that is theirs, in [0, 1].
        max_tokens: longest generated caption in tokens, EOS included.
        init_from: run or checkpoint whose weights this run starts from.
        vocab_size: tokens of the data module's tokeniser.
        bos_id: token before the first word.
        eos_id: token after the last word.
        pad_id: filling behind captions.
        language_config: architecture as saved in a checkpoint; overrides `language_model`.
        feature_dim: width of the data module's features, None when it gives pictures.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not fit together.
    """

    method: ClassVar[str] = "dual_transfer"
    captioner: DualTransferCaptioner

    def __init__(
        self,
        image_encoder: str | None = "efficientnet-b4",
        image_weights: str | None = "advprop",
        language_model: str = "gpt2",
        language_weights: str | None = "gpt2",
        merging: MergingVariant = "mlp",
        language_layers: int | None = None,
        language_heads: int | None = None,
        language_dim: int | None = None,
        dropout: float | None = None,
        gradient_checkpointing: bool = False,
        freeze_image: bool = False,
        pooling: Pooling = "mean",
        lr: float = 3e-5,
        lr_pretrained: float = 3e-5,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        label_smoothing: float = 0.0,
        as_published: bool = False,
        val_images: int | None = 1000,
        beams: int = 5,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 2,
        mbr_reranking: bool = False,
        retrieval_images: int = 0,
        retrieval_weight: float = 0.7,
        max_tokens: int = 36,
        init_from: str | None = None,
        vocab_size: int = 50259,
        bos_id: int = 50257,
        eos_id: int = 50256,
        pad_id: int = 50258,
        language_config: dict[str, Any] | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_one_encoder(image_encoder, feature_dim, {"image_weights": image_weights is not None})
        if image_encoder is not None and pooling != "mean":
            raise UserError(
                f"pooling is {pooling}, but '{image_encoder}' makes a vector of its own: set it to mean, or "
                "image_encoder to null and name the network in data.init_args.encoder"
            )
        # Random weights here: pretrained ones come in `load_pretrained`, so that serving and resuming never look for
        # them. Only an architecture that is not known by name must be read from its weights the first time.
        known = language_model in GPT2_SIZES and not (language_weights and Path(language_weights).is_dir())
        self._language_is_loaded = language_config is None and language_weights is not None and not known
        self.captioner = DualTransferCaptioner(
            vocab_size=vocab_size,
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=pad_id,
            image_encoder=image_encoder,
            language_model=language_model,
            language_weights=language_weights if self._language_is_loaded else None,
            language_config=language_config,
            language_layers=language_layers,
            language_heads=language_heads,
            language_dim=language_dim,
            dropout=dropout,
            merging=merging,
            max_tokens=max_tokens,
            gradient_checkpointing=gradient_checkpointing,
            feature_dim=feature_dim,
            pooling=pooling,
        )
        self.hparams["language_config"] = self.captioner.language.config_dict()
        if freeze_image and self.captioner.encoder is not None:
            self.captioner.encoder.requires_grad_(False)
        self.add_retrieval()
        if as_published:
            names = ("loss_padded", *(f"bleu{order}_char" for order in range(1, 5)))
            self.extra.update({f"as_published/{name}": MeanMetric() for name in names})

    def load_pretrained(self) -> None:
        """Loads the towers' weights as the arguments name them.

        Raises:
            UserError: weights cannot be reached or do not fit.
        """
        settings = self.hparams
        if self.captioner.encoder is not None and settings["image_weights"] is not None:
            loaded = build_encoder(settings["image_encoder"], settings["image_weights"])
            self.captioner.encoder.load_state_dict(loaded.state_dict())
        if settings["language_weights"] is not None and not self._language_is_loaded:
            language = build_language_model(
                settings["language_model"],
                settings["language_weights"],
                vocab_size=settings["vocab_size"],
                bos_id=settings["bos_id"],
                eos_id=settings["eos_id"],
            )
            self.captioner.language.load_state_dict(language.state_dict())

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the towers that do not start from random weights."""
        if self.captioner.encoder is not None and self.hparams["image_weights"] is not None:
            yield from self.captioner.encoder.parameters()
        if self.hparams["language_weights"] is not None:
            yield from self.captioner.language.parameters()

    def train(self, mode: bool = True) -> "DualTransfer":
        """Sets the mode; a frozen image network stays in evaluation mode."""
        super().train(mode)
        if self.captioner.encoder is not None and self.hparams["freeze_image"]:
            self.captioner.encoder.eval()
        return self

    # the paper's own figures

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; with `as_published` in training, padding is a target like any other."""
        if self.hparams["as_published"] and self.training:
            memory = self.captioner.encode(batch)
            return memory, self._teacher_forced_padded(memory, batch)
        return super().teacher_forced(batch)

    def _teacher_forced_padded(self, memory: Memory, batch: Batch) -> CaptionOutput:
        """Captions filled up to `max_tokens` with token 0, all of which counts: the published loss."""
        ids, lengths = batch["caption_ids"], batch["caption_lengths"]
        padded = ids.new_zeros(len(ids), int(self.hparams["max_tokens"]))
        width = min(ids.shape[1], padded.shape[1])
        padded[:, :width] = ids[:, :width]
        padded[torch.arange(padded.shape[1], device=ids.device) >= lengths.unsqueeze(1)] = 0
        full = torch.full_like(lengths, padded.shape[1])
        output: CaptionOutput = self.captioner(memory, padded, full, batch["image_index"])
        return output

    def update_extra(self, batch: Batch, written: Generated) -> None:
        """Padded loss and character BLEU, only with `as_published`."""
        if not self.hparams["as_published"]:
            return
        own = self.own_metrics()
        if len(batch["caption_ids"]):
            padded = self._teacher_forced_padded(self.captioner.encode(batch), batch)
            own["as_published/loss_padded"].update(token_loss(padded.logits, padded.targets), len(padded.targets))
        references = dict(zip(batch["image_id"], batch["references"], strict=True))
        for image_id, caption in zip(written["image_id"], written["captions"], strict=True):
            if references[image_id]:
                for name, value in character_bleu({image_id: caption}, references).items():
                    own[name].update(value)
