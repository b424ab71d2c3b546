"""Multi-label classification of images: a CNN, or its stored features, and a small head, trained in two phases.

The published classifier of UCM-Captions' 17 labels is ResNet-50 with a head 2048-1000-100-17: 10 epochs in which
everything learns at 1e-5, then 20 in which the head alone learns at 1e-3. Here both phases are one run.

Letters: B images, C labels.
"""

from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from core.text import visible
from lightning_modules.classification import ClassificationModule
from lightning_modules.parts.encoder import ImageEncoderOptions
from lightning_modules.parts.optimisation import ParameterGroup
from networks.classifiers.image import ImageClassifier
from networks.encoders.base import ImageEncoder
from networks.encoders.torchvision import TorchvisionEncoder
from networks.layers.dihedral import random_dihedral
from networks.layers.pooling import Pooling


class MultiLabel(ImageEncoderOptions, ClassificationModule):
    """A classifier of images into several labels at once.

    The CNN learns at `lr_pretrained`, whatever its weights start from; `lr` is the head's rate while it learns alone.
    Warm-up and schedule apply to each phase.

    Args:
        hidden_dims: widths of the head's hidden layers (published: 1000 and 100); none: a linear classifier.
        pooling: how the regions become one vector (published: ``mean``); see `networks.layers.pooling`.
        normalize: LayerNorm in front of the head.
        dropout: share dropped behind every hidden layer.
        input_dropout: share of the pooled features dropped.
        dihedral: in training every image is turned and mirrored into one of its 8 dihedral views, at random: for images
            taken from above, which have no up.
        views: 8: scored in all 8 dihedral views, probabilities averaged; 1: as they are.
        mixup: parameter of the Beta distribution that two images of a batch and their labels are mixed by (Zhang et al.
            2018); 0: not mixed.
        fine_tune_epochs: epochs, from the first on, in which the CNN learns, too; from then on it is frozen to the last
            bit. 0: from the start; None: it never is.
        fine_tune_blocks: only so many of the CNN's last blocks learn (torchvision's networks), which costs less, since
            the blocks before them need no gradients; None: all.
        lr_first: peak learning rate of the head while the CNN learns; None: `lr_pretrained`, as published.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not match.
    """

    method: ClassVar[str] = "multilabel"
    cnn: ClassVar[str | None] = "classifier.encoder."
    classifier: ImageClassifier

    def __init__(
        self,
        *,
        hidden_dims: list[int] = [1000, 100],  # noqa: B006  # never changed; the command line shows it as the default
        pooling: Pooling = "mean",
        normalize: bool = False,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        dihedral: bool = False,
        views: int = 1,
        mixup: float = 0.0,
        fine_tune_epochs: int | None = 0,
        fine_tune_blocks: int | None = None,
        lr_first: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dihedral, self.mixup, self.lr_first = dihedral, mixup, lr_first
        self.fine_tune_epochs = fine_tune_epochs
        encoder = self.new_encoder(fine_tune_epochs=fine_tune_epochs != 0, dihedral=dihedral)
        if fine_tune_epochs is not None and fine_tune_epochs < 0:
            raise UserError(f"fine_tune_epochs is {fine_tune_epochs}: expected 0 or more, or null for all")
        if mixup < 0:
            raise UserError(f"mixup is {mixup}: expected 0 or more")
        self.classifier = ImageClassifier(
            num_labels=max(1, self.num_labels or 0),  # data without labels are refused in `setup`
            encoder=encoder,
            feature_dim=self.feature_dim or 1,
            hidden_dims=hidden_dims,
            pooling=pooling,
            normalize=normalize,
            dropout=dropout,
            input_dropout=input_dropout,
            views=views,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        self.choose_learning(_last_blocks(encoder, fine_tune_blocks))
        self.let_encoder_learn(self._learns_in(0))

    @property
    def own_encoder(self) -> ImageEncoder | None:
        """The classifier's CNN."""
        return self.classifier.encoder

    def setup(self, stage: str) -> None:
        """Refuses what several processes cannot do; see `ClassificationModule.setup` for the rest.

        Raises:
            UserError: several processes and a CNN that is frozen in mid-run: its gradients would be waited for.
        """
        if stage == "fit" and self.fine_tune_epochs and self.trainer.world_size > 1:
            raise UserError(
                f"fine_tune_epochs is {self.fine_tune_epochs} with {self.trainer.world_size} processes: train with "
                "fine_tune_epochs=null first, then start a second run with init_from and fine_tune_epochs=0"
            )
        super().setup(stage)

    # two phases

    def _learns_in(self, epoch: int) -> bool:
        return self.own_encoder is not None and (self.fine_tune_epochs is None or epoch < self.fine_tune_epochs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enters the phase of this epoch; here, since an epoch resumed in its middle has no other beginning."""
        super().on_train_batch_start(batch, batch_idx)
        if self._encoder_learns and self.own_encoder is not None and not self._learns_in(self.current_epoch):
            self.let_encoder_learn(False)
            rank_zero_info(visible(f"epoch {self.current_epoch}: the image encoder is frozen from now on"))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Head and CNN, each with its rate in both phases.

        A phase ends with an epoch, but rates are functions of the optimiser step, the first of which is asked for while
        the optimiser is made: the batches of an epoch have to be counted by then. That is what Lightning's
        `estimated_stepping_batches` does by the same call, unless only max_steps is given.
        """
        self.trainer.fit_loop.setup_data()
        total = int(self.trainer.estimated_stepping_batches)
        steps = -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)
        end = total if self.fine_tune_epochs is None else min(total, self.fine_tune_epochs * steps)
        factors = {
            "new": lambda step: self._head_factor(step, end, total),
            "pretrained": lambda step: self.rate_factor(step, end) if step < end else 0.0,
        }
        groups = super().parameter_groups()
        return [
            ParameterGroup(name=group.name, parameters=group.parameters, lr=group.lr, factor=factors[group.name])
            for group in groups
        ]

    def _head_factor(self, step: int, end: int, total: int) -> float:
        """Learning rate of the head as a share of `lr`."""
        if self.own_encoder is None or step >= end:
            begun = 0 if self.own_encoder is None else end
            return self.rate_factor(step - begun, total - begun)
        first = self.lr_pretrained if self.lr_first is None else self.lr_first
        return first / self.lr * self.rate_factor(step, end) if self.lr else 0.0

    # steps

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss per label, of images in random views and mixed at random."""
        if self.dihedral:
            batch = {**batch, "image": random_dihedral(batch["image"])}
        if self.mixup:
            batch = mixed(batch, self.mixup)
        return super().step_loss(batch)


def mixed(batch: Batch, parameter: float) -> Batch:
    """Mixes every image of a batch, or its features, with another one, and their labels alike.

    Args:
        batch: with ``labels`` and ``image`` or ``features``.
        parameter: that of the Beta distribution; the larger part is the image's own.
    """
    images = len(batch["labels"])
    beta = torch.distributions.Beta(torch.tensor(parameter), torch.tensor(parameter))
    share = beta.sample((images,)).to(batch["labels"])
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(images).to(share.device)

    def mix(values: Tensor) -> Tensor:
        own = share.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        return own * values + (1 - own) * values[other]

    result: Batch = {**batch, "labels": mix(batch["labels"])}
    if "features" in batch:
        result["features"] = mix(batch["features"])
    else:
        result["image"] = mix(batch["image"])
    return result


def _last_blocks(encoder: ImageEncoder | None, count: int | None) -> tuple[nn.Module, ...]:
    """The part of a CNN that may learn.

    Raises:
        UserError: its blocks are not known, or there are not so many.
    """
    if encoder is None:
        return ()
    if count is None:
        return (encoder,)
    if not isinstance(encoder, TorchvisionEncoder):
        raise UserError(
            f"fine_tune_blocks is {count}: only torchvision's networks have blocks to choose; set it to null"
        )
    if not 1 <= count <= len(encoder.blocks):
        raise UserError(f"fine_tune_blocks is {count}: expected 1 to {len(encoder.blocks)}, or null for all")
    return tuple(encoder.blocks[-count:])
