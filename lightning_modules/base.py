"""What every Lightning module shares: optimiser, randomness per step, evaluation loop, checkpoint contents."""

import inspect
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, cast

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from core.batch import Batch
from core.checkpoints import read_checkpoint
from core.errors import UserError
from core.seeds import derive_seed, global_seed
from core.text import visible
from datamodules.base import CaptionDataModule
from datamodules.readers.records import Split
from lightning_modules.parts.handover import cnn_of_features, names_that_differ
from lightning_modules.parts.optimisation import ParameterGroup, Schedule, make_scheduler, rate_factor
from lightning_modules.parts.pooling import fit_pooling
from lightning_modules.parts.sharding import shards_weights, share_buffers, whole_weights
from networks.classifiers.base import Labeller
from networks.layers.checkpointing import recomputing

Stage = Literal["train", "val", "test"]

METHODS: dict[str, type["BaseModule"]] = {}
"""Methods of this package by the name that their checkpoints carry; filled when a class is defined."""


class BaseModule(LightningModule):
    """Base of all methods.

    A subclass builds its networks in `__init__`, scores a batch in `step_loss`, evaluates one in `evaluate` and names
    its metrics in `evaluation_metrics`. Its own options are keyword-only and plain (numbers, text, lists of them);
    all others are passed on by ``**kwargs``.

    Class attributes:
        method: name under which a checkpoint finds its class again.
        monitor: metric that chooses the best checkpoint; its line in `metrics.names` says whether more of it is better.
        cnn: prefix of the tensors of an image encoder of its own, if the method also works on stored features.

    Args:
        lr: peak learning rate.
        lr_pretrained: peak learning rate of parts that start from pretrained weights.
        weight_decay: decoupled weight decay.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: what the learning rate does after the warm-up.
        init_from: run or checkpoint whose weights this run starts from.
        gradient_checkpointing: recompute activations in the backward pass instead of keeping them: less memory, more
            time.
    """

    method: ClassVar[str] = ""
    monitor: ClassVar[str] = "val/loss"
    cnn: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method" in cls.__dict__ and cls.__module__.startswith("lightning_modules."):
            METHODS[cls.method] = cls

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        lr_pretrained: float = 1e-5,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        init_from: str | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.lr_pretrained, self.weight_decay = lr, lr_pretrained, weight_decay
        self.warmup_steps, self.schedule = warmup_steps, schedule
        self.init_from, self.gradient_checkpointing = init_from, gradient_checkpointing
        self.inference: dict[str, Any] = {}
        """Plain values that serve an image without the data set; part of every checkpoint."""
        self.trained_steps = 0
        """Optimiser steps behind the weights of the checkpoint that was loaded."""
        self.metrics: dict[str, Metric] = {}
        """Metrics of the evaluation epoch that is running, see `evaluation_metrics`."""

    @classmethod
    def options(cls) -> set[str]:
        """Names of all options of a method, those of its bases included."""
        inits = [base.__dict__["__init__"] for base in cls.__mro__ if "__init__" in base.__dict__]
        own = inits[: inits.index(BaseModule.__dict__["__init__"]) + 1]
        kinds = inspect.Parameter.KEYWORD_ONLY
        return {name for init in own for name, p in inspect.signature(init).parameters.items() if p.kind == kinds}

    @classmethod
    def for_data(cls, data: CaptionDataModule, **options: Any) -> Self:
        """Builds a module for a data module, whose facts (sizes and special tokens) it uses.

        Args:
            data: such as `datamodules.scenes.SceneCaptions`.
            options: options of the method; they win over the facts.
        """
        facts = {name: getattr(data, name) for name in DATA_FACTS if name in cls.options() and name not in options}
        return cls(**facts, **options)

    # start of a run

    @property
    def data(self) -> CaptionDataModule:
        """The data module of the run."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        assert isinstance(datamodule, CaptionDataModule), "modules train on data modules of this project"
        return datamodule

    @property
    def is_new_run(self) -> bool:
        """Whether the weights to start from are still to be loaded: no checkpoint will be."""
        return self.trainer.ckpt_path is None

    def setup(self, stage: str) -> None:
        """Reads the facts of the data module and, in a new run, loads the weights to start from."""
        if isinstance(self.trainer.datamodule, CaptionDataModule):  # type: ignore[attr-defined]  # set at run time
            self.inference = {"method": self.method, **self.data.describe()}
        self.check_settings()
        if stage == "fit" and self.is_new_run:
            self.load_pretrained()
            if self.init_from:
                self.load_stage(self.init_from)

    def check_settings(self) -> None:
        """Checks options that would otherwise fail late or not at all.

        Raises:
            UserError: one is out of its range.
        """
        for name in ("lr", "lr_pretrained", "weight_decay", "warmup_steps"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"model.init_args.{name} is {value}: expected 0 or more")

    def load_pretrained(self) -> None:
        """Loads the pretrained weights that the options name; not called on resume or for serving."""

    def load_stage(self, path: str) -> None:
        """Starts from the weights of an earlier run.

        A run on stored features has no image encoder of its own; a module that has one gets the one that made these
        features.

        Args:
            path: a run folder or a checkpoint.

        Raises:
            UserError: no such run, or its weights do not match.
        """
        checkpoint = read_checkpoint(path)
        weights = self.complete_weights(checkpoint)
        encoder = self.hparams.get("image_encoder")
        if self.cnn is not None and encoder is not None:
            found = cnn_of_features(checkpoint, path, encoder)
            weights |= {self.cnn + name: tensor for name, tensor in found.items()}
        self.resize_buffers(weights)
        if wrong := names_that_differ(self.state_dict(), weights):
            raise UserError(
                f"init_from '{path}' does not match this model: {len(wrong)} tensors differ, first '{wrong[0]}'"
            )
        self.load_state_dict(weights)

    def resize_buffers(self, weights: Mapping[str, Tensor]) -> None:
        """Gives tensors whose size belongs to the data the size that they have in a state dict."""

    def on_fit_start(self) -> None:
        """Lets covariance pooling find its directions, see `lightning_modules.parts.pooling`.

        Also says so where gradient checkpointing is wanted and nothing that learns has activations to recompute.
        """
        if self.gradient_checkpointing and not self.recomputed_parts():
            remark = f"has no effect: nothing that learns in this {type(self).__name__} can be recomputed"
            rank_zero_warn(visible(f"gradient_checkpointing=true {remark} in the backward pass"))
        if isinstance(self.trainer.datamodule, CaptionDataModule):  # type: ignore[attr-defined]  # set at run time
            with whole_weights(self.trainer):
                fit_pooling(self, self.pooling_forward, self.data, self.device)

    def pooling_forward(self, batch: Batch) -> object:
        """Passes a batch through everything that pools regions; a method without pooling does not need it."""

    def recomputed_parts(self) -> list[str]:
        """Names of the parts that learn and whose activations are recomputed in the backward pass."""
        return [f"{name}.{part}".rstrip(".") for name, child in self.named_children() for part in recomputing(child)]

    # what learns

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Parts that do not learn; they stay in evaluation mode."""
        return ()

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.set_modes(mode)
        return self

    def set_modes(self, mode: bool) -> None:
        """Corrects the modes of parts after all of them were set to `mode`."""
        del mode
        for module in self.frozen_modules():
            module.eval()

    def pretrained_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that learn at `lr_pretrained`."""
        return ()

    def own_groups(self) -> list[ParameterGroup]:
        """Groups of parameters that learn at neither `lr` nor `lr_pretrained`."""
        return []

    def parameter_groups(self) -> list[ParameterGroup]:
        """Who learns at which rate; parameters that require no gradients are left out."""
        own = self.own_groups()
        apart = {id(parameter) for group in own for parameter in group.parameters}
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        learning = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        new = [parameter for parameter in learning if id(parameter) not in pretrained]
        old = [parameter for parameter in learning if id(parameter) in pretrained]
        return [
            ParameterGroup(name="new", parameters=new, lr=self.lr),
            ParameterGroup(name="pretrained", parameters=old, lr=self.lr_pretrained),
            *own,
        ]

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW, which is Adam when `weight_decay` is 0.

        Fused (one pass over the weights instead of several) on CPU and CUDA, but not where gradients are clipped in
        mixed precision, which cannot be done with it.
        """
        single = self.trainer.precision == "32-true"
        return torch.optim.AdamW(
            groups,
            lr=self.lr,
            weight_decay=self.weight_decay,
            fused=self.trainer.strategy.root_device.type in ("cpu", "cuda")
            and (single or (self.trainer.precision == "bf16-mixed" and not self.trainer.gradient_clip_val)),
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of all groups, with linear warm-up and the chosen schedule."""
        groups = [group for group in self.parameter_groups() if group.parameters]
        optimizer = self.make_optimizer([group.options() for group in groups])
        steps = 0 if self.schedule == "constant" else int(self.trainer.estimated_stepping_batches)
        scheduler = make_scheduler(optimizer, groups, lambda step: self.rate_factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips gradients; the norm of sharded ones is known to their wrapper only."""
        if gradient_clip_val and shards_weights(self.trainer) and gradient_clip_algorithm != "value":
            cast(Any, self.trainer.strategy.model).clip_grad_norm_(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def rate_factor(self, step: int, length: int) -> float:
        """Learning rate as a share of its peak, `step` steps into a run or phase of `length` steps."""
        return rate_factor(step, self.warmup_steps, self.schedule, length)

    # steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout of this step by (seed, batches so far, rank), so that a run can be resumed exactly."""
        del batch, batch_idx
        share_buffers(self)
        position = self.trainer.fit_loop.epoch_loop.total_batch_idx
        seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed  # slow
        seed(derive_seed(global_seed(), position, self.global_rank))

    def step_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """What is optimised on a batch, a scalar, and over how many terms it is a mean."""
        raise NotImplementedError(f"{type(self).__name__} has no step_loss")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        del batch_idx
        loss, count = self.step_loss(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        return loss

    def evaluate(self, batch: Batch, stage: Stage) -> Any:
        """Updates `metrics` with a batch; returns what callbacks write, if there is something."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluate")

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        """Metrics of a batch, see `evaluate`."""
        del batch_idx
        return self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        """Metrics of a batch, see `evaluate`."""
        del batch_idx
        return self.evaluate(batch, "test")

    # evaluation epochs

    def evaluation_metrics(self, stage: Stage, split: Split) -> dict[str, Metric]:
        """Metrics of an epoch over a split by their key.

        A metric that computes several figures has the key "" or a prefix of their names. Keys get ``val/`` or
        ``test/`` in front unless they have a slash. A metric without an update is not logged.
        """
        raise NotImplementedError(f"{type(self).__name__} has no evaluation_metrics")

    def baselines(self, split: Split) -> dict[str, dict[str, float]]:
        """Scores that this module's figures must be read against: row to metric to value."""
        return self.data.baselines(split)

    def on_validation_epoch_start(self) -> None:
        """Resets the metrics."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Resets the metrics."""
        self._start_evaluation("test")

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self.end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the whole split."""
        self.end_evaluation("test")

    def _start_evaluation(self, stage: Stage) -> None:
        share_buffers(self)
        metrics = self.evaluation_metrics(stage, self.data.evaluation_split("val" if stage == "val" else "test"))
        self.metrics = {key: metric.to(self.device) for key, metric in metrics.items()}
        for metric in self.metrics.values():
            metric.reset()

    def end_evaluation(self, stage: Stage) -> dict[str, Any]:
        """Computes and logs the figures of an epoch; returns them by their logged keys."""
        values: dict[str, Any] = {}
        for key, metric in self.metrics.items():
            if metric.update_called:
                value = metric.compute()
                values |= {key + name: one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        logged = {key if "/" in key else f"{stage}/{key}": value for key, value in values.items()}
        self.log_dict(logged)  # the metrics have already been reduced over the ranks
        return logged

    # serving and checkpoints

    def labeller(self) -> Labeller | None:
        """What labels images or captions, for `label`; None: there is none, or it has not been trained."""
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the `inference` entry: everything that one file needs to serve an image."""
        checkpoint["inference"] = self.inference

    def complete_weights(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights of a checkpoint; a method adds those that its checkpoints leave out.

        Raises:
            UserError: these cannot be had.
        """
        return dict(checkpoint.get("state_dict", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint's tensors match and its tokens mean the same as the data module's."""
        self.trained_steps = int(checkpoint.get("global_step", 0))
        saved = checkpoint.get("inference", {})
        wrong = []
        if "state_dict" in checkpoint:  # else the strategy has loaded the weights, part by part
            weights = checkpoint["state_dict"] = self.complete_weights(checkpoint)
            self.resize_buffers(weights)
            wrong = names_that_differ(self.state_dict(), weights)
        if self.inference and saved.get("tokenizer") != self.inference.get("tokenizer"):
            run = (self._trainer and self._trainer.ckpt_path) or "RUN"
            raise UserError(
                "the checkpoint was trained with another tokenizer or vocabulary than this data module has: use its "
                f"own with --data.init_args.tokenizer={shlex.quote(str(run))}, or start a new run "
                "with init_from"
            )
        if wrong and self.strict_loading:
            raise UserError(
                f"the checkpoint does not match this model: {len(wrong)} tensors differ, first '{wrong[0]}': use the "
                "model settings of its run (config.yaml in the run folder) and the version of the code that wrote it "
                "(commit in its run.json)"
            )
        if not self.inference:
            self.inference = saved


DATA_FACTS = ("vocab_size", "bos_id", "eos_id", "pad_id", "num_labels", "num_conditions", "feature_dim", "feature_grid")
"""Options of modules that a data module knows; the command line links them."""
