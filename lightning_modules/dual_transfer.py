"""Dual-transfer captioning: image network and language model, both pretrained, and a merging network between them.

Letters: B images, N captions, M target tokens.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from torchmetrics import MeanMetric, Metric

from core.batch import Batch
from core.errors import UserError
from datamodules.readers.records import Split
from lightning_modules.base import Stage
from lightning_modules.captioning import CaptioningModule, Generated
from lightning_modules.parts.encoder import ImageEncoderOptions
from lightning_modules.parts.language import LanguageModelOptions
from metrics.character_bleu import character_bleu
from networks.captioners.dual_transfer import DualTransferCaptioner
from networks.decoders.language import LanguageModel
from networks.decoders.merging import MergingVariant
from networks.encoders.base import ImageEncoder
from networks.encoders.source import check_own_options
from networks.layers.pooling import Pooling
from networks.layers.sequences import CaptionOutput, Memory
from networks.losses.tokens import token_loss


class DualTransfer(LanguageModelOptions, ImageEncoderOptions, CaptioningModule):
    """Image network + language model + merging network, all trained.

    Args:
        image_encoder: ``efficientnet-b4`` (published), ``timm/NAME``, ``torchvision/NAME`` or ``small-conv``; None: the
            data module's frozen `encoder` gives features, see `pooling`.
        image_weights: name of published weights, a local file, or None = random; None without an image encoder.
        merging: merging network, see `networks.decoders.merging`.
        freeze_image: the image network does not learn.
        pooling: how the data module's features become one vector, see `networks.layers.pooling`; an image network here
            makes its own.
        region_heads: heads by which every word also looks at the regions of the image (a grid, or a detector's boxes),
            see `networks.decoders.region_attention`; 0: the paper's one vector is all that is seen.
        region_positions: tell this attention where the regions are; a square grid.
        as_published: train on the paper's padded loss and also log its two figures of merit.
        lr: peak learning rate.
        lr_pretrained: peak learning rate of towers with pretrained weights.
        beams: beam width in testing and prediction.
        no_repeat_ngram_size: no n-gram of this many tokens occurs twice in a caption; 0: any may.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not match.
    """

    method: ClassVar[str] = "dual_transfer"
    captioner: DualTransferCaptioner

    def __init__(
        self,
        *,
        image_encoder: str | None = "efficientnet-b4",
        image_weights: str | None = "advprop",
        merging: MergingVariant = "mlp",
        freeze_image: bool = False,
        pooling: Pooling = "mean",
        region_heads: int = 0,
        region_positions: bool = False,
        as_published: bool = False,
        lr: float = 3e-5,
        lr_pretrained: float = 3e-5,
        beams: int = 5,
        no_repeat_ngram_size: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_encoder=image_encoder,
            image_weights=image_weights,
            lr=lr,
            lr_pretrained=lr_pretrained,
            beams=beams,
            no_repeat_ngram_size=no_repeat_ngram_size,
            **kwargs,
        )
        check_own_options(image_encoder, {"image_weights": image_weights is not None})
        if image_encoder is not None and pooling != "mean":
            raise UserError(
                f"pooling is {pooling}, but '{image_encoder}' makes a vector of its own: set it to mean, or "
                "image_encoder to null and name the network in data.init_args.encoder"
            )
        if region_positions and not region_heads:
            raise UserError("region_positions is true, but no word looks at regions: set region_heads, such as to 8")
        self.as_published = as_published
        self.captioner = DualTransferCaptioner(
            **self.token_ids,
            image_encoder=image_encoder,
            language_model=self.language_model,
            language_weights=self.language_weights if self.language_is_loaded else None,
            language_config=self.language_config,
            language_layers=self.language_layers,
            language_heads=self.language_heads,
            language_dim=self.language_dim,
            dropout=self.dropout,
            merging=merging,
            max_tokens=self.max_tokens,
            gradient_checkpointing=self.gradient_checkpointing,
            feature_dim=self.feature_dim,
            pooling=pooling,
        )
        if region_heads:
            self.captioner.add_region_attention(region_heads, positions=region_positions)
        self.complete_language_model()
        if freeze_image:
            self.let_encoder_learn(False)
        self.complete_captioner()

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The image network."""
        return self.captioner.encoder

    @property
    def own_language_model(self) -> LanguageModel:
        """The language tower."""
        return self.captioner.language

    def load_pretrained(self) -> None:
        """Loads the towers' weights as the options name them.

        Raises:
            UserError: weights cannot be reached or do not match.
        """
        super().load_pretrained()
        self.load_language_weights()

    def learning_parameters(self) -> Iterable[nn.Parameter]:
        """All of the image network's, which gives a vector and not only a map; at `lr` if they start at random."""
        return () if self.captioner.encoder is None else self.captioner.encoder.parameters()

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the towers that do not start from random weights."""
        random = set() if self.image_weights is not None else {id(value) for value in self.learning_parameters()}
        yield from (value for value in super().pretrained_parameters() if id(value) not in random)

    # the paper's own figures

    def teacher_forced(self, batch: Batch) -> tuple[Memory, CaptionOutput]:
        """Scores all captions; with `as_published` in training, padding is a target like any other."""
        if self.as_published and self.training:
            memory = self.captioner.encode(batch)
            return memory, self._teacher_forced_padded(memory, batch)
        return super().teacher_forced(batch)

    def _teacher_forced_padded(self, memory: Memory, batch: Batch) -> CaptionOutput:
        """Captions filled up to `max_tokens` with token 0, all of which counts: the published loss."""
        memory, ids, lengths, images = self.captions_of(batch, memory)
        padded = ids.new_zeros(len(ids), self.max_tokens)
        width = min(ids.shape[1], padded.shape[1])
        padded[:, :width] = ids[:, :width]
        padded[torch.arange(padded.shape[1], device=ids.device) >= lengths.unsqueeze(1)] = 0
        full = torch.full_like(lengths, padded.shape[1])
        output: CaptionOutput = self.captioner(memory, padded, full, images)
        return output

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Also the paper's two figures, with `as_published`."""
        names = ("loss_padded", *(f"bleu{order}_char" for order in range(1, 5))) if self.as_published else ()
        own = {f"as_published/{name}": MeanMetric() for name in names}
        return {**super().evaluation_metrics(stage, split), **own}

    def update_metrics(self, batch: Batch, memory: Memory, output: CaptionOutput | None, written: Generated) -> None:
        """Padded loss and character BLEU, only with `as_published`."""
        super().update_metrics(batch, memory, output, written)
        if not self.as_published:
            return
        if output is not None:
            padded = self._teacher_forced_padded(memory, batch)
            loss = token_loss(padded.logits, padded.targets)
            self.metrics["as_published/loss_padded"].update(loss, len(padded.targets))
        references = dict(zip(batch["image_id"], batch["references"], strict=True))
        for image_id, caption in zip(written["image_id"], written["captions"], strict=True):
            if references[image_id]:
                for name, value in character_bleu({image_id: caption}, references).items():
                    self.metrics[name].update(value)
