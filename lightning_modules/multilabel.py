"""Multi-label classification of pictures: a CNN, or its stored features, and a small head, trained in two phases.

The published classifier of UCM-Captions' 17 labels is ResNet-50 with a head 2048-1000-100-17: 10 epochs in which
everything learns at 1e-5, then 20 in which the head alone learns at 1e-3. Here both phases are one run.

Letters: B images, C labels.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from core.batch import Batch
from core.errors import UserError
from lightning_modules.base import Schedule, rate_factor
from lightning_modules.classification import ClassificationModule
from lightning_modules.parts.settings import check_one_encoder
from networks.classifiers.image import ImageClassifier
from networks.layers.dihedral import random_dihedral
from networks.encoders.base import ImageEncoder
from networks.encoders.build import build_encoder
from networks.encoders.freezing import parameters_of_map
from networks.encoders.torchvision import TorchvisionEncoder
from networks.layers.pooling import Pooling
from networks.losses.labels import LabelLoss


class MultiLabel(ClassificationModule):
    """A classifier of pictures into several labels at once.

    Args:
        image_encoder: CNN that belongs to this module, see `networks.encoders.build.build_encoder`; None: the data
            module's frozen `encoder` gives features.
        image_weights: its weights: a published name, a local file, or None = random.
        gradient_checkpointing: keep no activations inside the CNN's blocks.
        hidden_dims: widths of the head's hidden layers (published: 1000 and 100); none: a linear classifier.
        pooling: how the regions become one vector (published: ``mean``); see `networks.layers.pooling`.
        normalize: LayerNorm in front of the head.
        dropout: share dropped behind every hidden layer.
        input_dropout: share of the pooled features dropped.
        dihedral: in training every picture is laid in one of 8 positions, at random: for pictures taken from above,
            which have no up.
        views: 8: scored in all 8 positions, probabilities averaged; 1: as they are.
        mixup: parameter of the Beta distribution that two pictures of a batch and their labels are mixed by (Zhang et
            al. 2018); 0: not mixed.
        fine_tune_epochs: epochs, from the first on, in which the CNN learns, too; from then on it is frozen to the last
            bit. 0: from the start; None: it never is.
        fine_tune_blocks: only so many of the CNN's last blocks learn (torchvision's networks), which costs less, since
            the blocks before them need no gradients; None: all.
        lr_pretrained: peak learning rate of the CNN, whatever its weights start from.
        lr_first: peak learning rate of the head while the CNN learns; None: `lr_pretrained`, as published.
        lr: peak learning rate of the head while it learns alone.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up of each phase.
        schedule: what the learning rate does after it, until the phase ends.
        loss: ``bce``, or ``balanced_bce``, in which positives and negatives of every label weigh the same.
        threshold: a label is predicted from this probability on (published: 0.6); None: chosen on the validation split.
        init_from: run or checkpoint whose weights this run starts from; with an `image_encoder` it may have been
            trained on stored features of the same one, frozen.
        num_labels: labels of the data.
        feature_dim: width of the data module's features, None when it gives pictures.

    Raises:
        UserError: neither or both of data module and this module have an encoder, or values do not fit together.
    """

    method: ClassVar[str] = "multilabel"
    cnn: ClassVar[str | None] = "classifier.encoder."
    classifier: ImageClassifier

    def __init__(
        self,
        image_encoder: str | None = None,
        image_weights: str | None = None,
        gradient_checkpointing: bool = False,
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
        lr_pretrained: float = 1e-5,
        lr_first: float | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        loss: LabelLoss = "bce",
        threshold: float | None = None,
        init_from: str | None = None,
        num_labels: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__(num_labels)
        self.save_hyperparameters()
        own = {
            "image_weights": image_weights is not None,
            "fine_tune_epochs": fine_tune_epochs != 0,
            "dihedral": dihedral,
        }
        check_one_encoder(image_encoder, feature_dim, own)
        if fine_tune_epochs is not None and fine_tune_epochs < 0:
            raise UserError(f"fine_tune_epochs is {fine_tune_epochs}: expected 0 or more, or null for all")
        if mixup < 0:
            raise UserError(f"mixup is {mixup}: expected 0 or more")
        encoder = None
        if image_encoder is not None:
            # random weights here: published ones come in `load_pretrained`, so that serving never looks for them
            encoder = build_encoder(image_encoder, None, gradient_checkpointing=gradient_checkpointing)
        self.classifier = ImageClassifier(
            num_labels=max(1, num_labels or 0),  # data without labels are refused in `setup`, where they are known
            encoder=encoder,
            feature_dim=feature_dim or 1,
            hidden_dims=hidden_dims,
            pooling=pooling,
            normalize=normalize,
            dropout=dropout,
            input_dropout=input_dropout,
            views=views,
        )
        self._map_parameters = () if encoder is None else parameters_of_map(encoder)
        self._learning = _last_blocks(encoder, fine_tune_blocks)
        self._encoder_learns = False
        self._let_encoder_learn(self._learns_in(0))

    def load_pretrained(self) -> None:
        """Loads the CNN's weights.

        Raises:
            UserError: they cannot be reached or do not fit.
        """
        settings, encoder = self.hparams, self.classifier.encoder
        if encoder is not None and settings["image_weights"] is not None:
            loaded = build_encoder(settings["image_encoder"], settings["image_weights"])
            encoder.load_state_dict(loaded.state_dict())

    def setup(self, stage: str) -> None:
        """Refuses what several processes cannot do; see `ClassificationModule.setup` for the rest.

        Raises:
            UserError: several processes and a CNN that is frozen in mid-run: its gradients would be waited for.
        """
        epochs = self.hparams["fine_tune_epochs"]
        if stage == "fit" and epochs and self.trainer.world_size > 1:
            raise UserError(
                f"fine_tune_epochs is {epochs} with {self.trainer.world_size} processes: train with "
                "fine_tune_epochs=null first, then start a second run with init_from and fine_tune_epochs=0"
            )
        super().setup(stage)

    # two phases

    def _learns_in(self, epoch: int) -> bool:
        epochs = self.hparams["fine_tune_epochs"]
        return self.classifier.encoder is not None and (epochs is None or epoch < epochs)

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CNN's learning blocks that make its map."""
        if self.classifier.encoder is not None:
            chosen = {id(parameter) for block in self._learning for parameter in block.parameters()}
            names = set(self._map_parameters)
            for name, parameter in self.classifier.encoder.named_parameters():
                if name in names and id(parameter) in chosen:
                    yield parameter

    def _let_encoder_learn(self, learns: bool) -> None:
        """Frozen means: no gradients, evaluation mode, and so no update."""
        self._encoder_learns = learns
        if self.classifier.encoder is not None:
            self.classifier.encoder.requires_grad_(False)
            for parameter in self.pretrained_parameters():
                parameter.requires_grad_(learns)
                parameter.grad = None  # an optimiser passes over what has none
            self.train(self.training)

    def train(self, mode: bool = True) -> "MultiLabel":
        """Sets the mode; what is frozen of the CNN stays in evaluation mode."""
        super().train(mode)
        if self.classifier.encoder is not None:
            self.classifier.encoder.eval()
            for block in self._learning:
                block.train(mode and self._encoder_learns)
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enters the phase of this epoch; here, since an epoch resumed in its middle has no other beginning."""
        super().on_train_batch_start(batch, batch_idx)
        if self._encoder_learns and not self._learns_in(self.current_epoch):
            self._let_encoder_learn(False)
            rank_zero_info(f"epoch {self.current_epoch}: the image encoder is frozen from now on")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of `BaseModule`; rates are a function of the step, by phase."""
        config = super().configure_optimizers()
        assert isinstance(config, dict)
        optimizer = config["optimizer"]
        total = int(self.trainer.estimated_stepping_batches)
        steps = -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)
        epochs = self.hparams["fine_tune_epochs"]
        end = total if epochs is None else min(total, epochs * steps)
        factors = {
            "new": lambda step: self._head_factor(step, end, total),
            "pretrained": lambda step: self._factor(step, end) if step < end else 0.0,
        }
        lambdas = [factors[group["name"]] for group in optimizer.param_groups]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambdas)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, step: int, length: int) -> float:
        return rate_factor(step, self.hparams["warmup_steps"], self.hparams["schedule"], length)

    def _head_factor(self, step: int, end: int, total: int) -> float:
        """Learning rate of the head as a share of `lr`."""
        if self.classifier.encoder is None or step >= end:
            begun = 0 if self.classifier.encoder is None else end
            return self._factor(step - begun, total - begun)
        settings = self.hparams
        first = settings["lr_pretrained"] if settings["lr_first"] is None else settings["lr_first"]
        return first / settings["lr"] * self._factor(step, end) if settings["lr"] else 0.0

    # steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss per label, of pictures laid down and mixed at random."""
        if self.hparams["dihedral"]:
            batch = {**batch, "image": random_dihedral(batch["image"])}
        if self.hparams["mixup"]:
            batch = mixed(batch, self.hparams["mixup"])
        return super().training_step(batch, batch_idx)


def mixed(batch: Batch, parameter: float) -> Batch:
    """Mixes every image of a batch, or its features, with another one, and their labels alike.

    Args:
        batch: with ``labels`` and ``image`` or ``features``.
        parameter: of the Beta distribution; the larger part is the image's own.
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
