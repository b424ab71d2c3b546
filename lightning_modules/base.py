"""What every Lightning module shares: optimiser, randomness per step, hand-over between stages, checkpoint contents."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from core.batch import Batch
from core.checkpoints import read_checkpoint
from core.errors import UserError
from core.seeds import derive_seed, global_seed
from datamodules.base import CaptionDataModule
from lightning_modules.parts.pooling import fit_pooling
from networks.classifiers.base import Classifier

Schedule = Literal["constant", "linear", "cosine"]
Stage = Literal["train", "val", "test"]


METHODS: dict[str, type["BaseModule"]] = {}
"""Methods of this package by the name that their checkpoints carry; filled when a class is defined."""


class BaseModule(LightningModule):
    """Base of all methods.

    A subclass calls ``save_hyperparameters()`` with flat, plain arguments, among them those that this class reads:
    `lr`, `lr_pretrained`, `weight_decay`, `warmup_steps`, `schedule`, `init_from`.

    Class attributes:
        method: name under which a checkpoint finds its class again.
        monitor: metric that chooses the best checkpoint.
        monitor_mode: whether more or less of it is better.
        cnn: prefix of the tensors of a CNN of its own, if it can do without one, on stored features.
    """

    method: ClassVar[str] = ""
    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    cnn: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.method and "method" in cls.__dict__ and cls.__module__.startswith("lightning_modules."):
            METHODS[cls.method] = cls

    def __init__(self) -> None:
        super().__init__()
        self.inference: dict[str, Any] = {}
        """Plain values that serve a picture without the data set; part of every checkpoint."""

    def setup(self, stage: str) -> None:
        """Takes over what the data module says of itself and, in a new run, the weights to start from."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        if datamodule is not None and hasattr(datamodule, "describe"):
            self.inference = {"method": self.method, **datamodule.describe()}
        check_numbers(self.hparams)
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.load_pretrained()
            if self.hparams.get("init_from"):
                self.load_stage(self.hparams["init_from"])

    def load_pretrained(self) -> None:
        """Loads the weights that the towers' `weights` arguments name; not called on resume or for serving."""

    def load_stage(self, path: str) -> None:
        """Starts from the weights of an earlier run.

        A run on stored features has no CNN of its own; a module that has one gets the one that made these features.

        Args:
            path: a run folder or a checkpoint.

        Raises:
            UserError: no such run, or its weights do not fit.
        """
        from lightning_modules.loading import cnn_of_features

        checkpoint = read_checkpoint(path)
        weights: dict[str, Tensor] = dict(checkpoint["state_dict"])
        if self.cnn is not None and self.hparams["image_encoder"] is not None:
            found = cnn_of_features(checkpoint, path, self.hparams["image_encoder"])
            weights |= {self.cnn + name: tensor for name, tensor in found.items()}
        self.resize_buffers(weights)
        own = self.state_dict()
        wrong = sorted(set(own) ^ set(weights)) or [k for k in own if own[k].shape != weights[k].shape]
        if wrong:
            raise UserError(
                f"init_from '{path}' does not fit this model: {len(wrong)} tensors differ, first '{wrong[0]}'"
            )
        self.load_state_dict(weights)

    def resize_buffers(self, weights: Mapping[str, Tensor]) -> None:
        """Gives tensors whose size belongs to the data the one that they have in a state dict."""

    def on_fit_start(self) -> None:
        """Lets covariance pooling find its directions, see `lightning_modules.parts.pooling`."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        if isinstance(datamodule, CaptionDataModule):
            fit_pooling(self, self.pooling_forward, datamodule, self.device)

    def image_classifier(self) -> Classifier | None:
        """Network that labels pictures beside this method's own task; None: there is none, or it has not learnt to."""
        return None

    def pooling_forward(self, batch: Batch) -> object:
        """Passes a batch through everything that pools regions; a method without pooling does not need it."""

    # randomness: a function of (seed, batch), never of what happened before, so that a run can be resumed exactly

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout of this step by (seed, batches so far, rank)."""
        del batch, batch_idx
        position = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(derive_seed(global_seed(), position, self.global_rank))

    # optimisation

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that learn at `lr_pretrained`."""
        return ()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW (Adam when `weight_decay` is 0) with linear warm-up and the chosen schedule."""
        settings = self.hparams
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        groups: dict[str, list[nn.Parameter]] = {"new": [], "pretrained": []}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups["pretrained" if id(parameter) in pretrained else "new"].append(parameter)
        rates = {"new": settings["lr"], "pretrained": settings["lr_pretrained"]}
        optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "lr": rates[name], "name": name}
                for name, parameters in groups.items()
                if parameters
            ],
            lr=settings["lr"],
            weight_decay=settings["weight_decay"],
            # one pass over the weights instead of several; mixed precision cannot clip gradients with it
            fused=self.trainer.strategy.root_device.type == "cpu" and self.trainer.precision == "32-true",
        )
        steps = 0 if settings["schedule"] == "constant" else int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, settings["warmup_steps"], settings["schedule"], steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the `inference` entry: everything that one file needs to serve a picture."""
        checkpoint["inference"] = self.inference

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint's tensors fit and its tokens mean the same as the data module's."""
        saved = checkpoint.get("inference", {})
        weights = checkpoint.get("state_dict", {})
        self.resize_buffers(weights)
        wrong = names_that_differ(self.state_dict(), weights)
        if self.inference and saved.get("tokenizer") != self.inference.get("tokenizer"):
            raise UserError(
                "the checkpoint was trained with another tokenizer or vocabulary than this data module has: use the "
                "data settings of its run (config.yaml in the run folder), or start anew with init_from"
            )
        if wrong and self.strict_loading:
            raise UserError(
                f"the checkpoint does not fit this model: {len(wrong)} tensors differ, first '{wrong[0]}': use the "
                "model settings of its run (config.yaml in the run folder) and the version of the code that wrote it "
                "(commit in its run.json)"
            )
        if not self.inference:
            self.inference = saved


def names_that_differ(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors whose shapes differ, and of those that only one of two state dicts has."""
    shapes = [name for name in weights if name in own and own[name].shape != weights[name].shape]
    return shapes + sorted(set(own) ^ set(weights))


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Looks at hyper-parameters that would otherwise fail late or not at all.

    Raises:
        UserError: one is out of its range.
    """
    for name in ("lr", "lr_pretrained", "weight_decay", "warmup_steps"):
        if settings.get(name, 0) < 0:
            raise UserError(f"model.init_args.{name} is {settings[name]}: expected 0 or more")
    if not 0 <= settings.get("label_smoothing", 0) < 1:
        raise UserError(f"model.init_args.label_smoothing is {settings['label_smoothing']}: expected 0 to 1")
    if (images := settings.get("val_images")) is not None and images < 1:
        raise UserError(f"model.init_args.val_images is {images}: expected 1 or more, or null for all")


def rate_factor(step: int, warmup_steps: int, schedule: Schedule, total_steps: int) -> float:
    """Learning rate at an optimiser step as a share of its peak.

    Args:
        step: optimiser steps made so far.
        warmup_steps: steps of linear warm-up from 0 (exclusive) to 1.
        schedule: what comes behind the warm-up.
        total_steps: length of the run in optimiser steps; read by "linear" and "cosine", which end at 0.

    >>> [rate_factor(step, 2, "linear", 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
