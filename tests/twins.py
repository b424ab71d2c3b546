"""Every method made tiny from its offline twin, so that a new method is tested without a line of its own."""

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule

from core.batch import Batch
from datamodules.base import CaptionDataModule
from lightning_modules import METHODS
from lightning_modules.base import BaseModule
from lightning_modules.loading import load_module
from scripts.smoke import OFFLINE, STAGES, commands

WIDTH = 16
SCENES = {"num_train": 12, "num_val": 6, "num_test": 6, "batch_size": 6, "num_workers": 0}
DRAWING = ("callbacks.attention_maps.AttentionMaps", "callbacks.code_projection.CodeProjection")
"""Callbacks that take longer than such a run, and have tests of their own."""
STORED = {
    "image_encoder": None,
    "image_weights": None,
    "unfreeze_epoch": None,
    "fine_tune_epochs": 0,
    "positions": False,
}
"""What needs an own image encoder, or a grid without gaps, switched off; only options that a method has are used."""
FREEZING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "unfreeze_epoch": ({"unfreeze_epoch": None}, {"unfreeze_epoch": 0}),
    "fine_tune_epochs": ({"fine_tune_epochs": 0}, {"fine_tune_epochs": None}),
    "text_lr_factor": ({"text_lr_factor": 0}, {"text_lr_factor": 1.0}),
    "head_only": ({"head_only": True}, {"head_only": False}),
    "freeze_transferred": (
        {"freeze_transferred": True, "cut_depth": None},
        {"freeze_transferred": False, "cut_depth": None},
    ),
}
"""Options that freeze something: values that do, and values that do not. New options `freeze_...` need no entry."""


@dataclass(frozen=True)
class Case:
    """A method as its twin has it, or a variant of that.

    Attributes:
        twin: name of the file in experiments/offline.
        method: class of the method.
        options: of the model, small.
        data: section of the data module, small.
        variant: what differs from the twin.
    """

    twin: str
    method: type[BaseModule]
    options: dict[str, Any] = field(hash=False)
    data: dict[str, Any] = field(hash=False)
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.twin}-{self.variant}" if self.variant else self.twin

    def make(self, data: CaptionDataModule) -> BaseModule:
        """The module, with everything that it has in a run but the trainer."""
        torch.manual_seed(0)
        module = self.method.for_data(data, **self.options)
        module.inference = {"method": module.method, **data.describe()}
        return module


def read(twin: str) -> dict[str, Any]:
    """The settings of a twin, small."""
    settings: dict[str, Any] = yaml.safe_load((OFFLINE / f"{twin}.yaml").read_text())
    method = method_of(settings)
    settings["model"]["init_args"] = small_options(method, settings["model"].get("init_args", {}))
    settings["data"] = small_data(settings["data"])
    callbacks = [name for name in settings["trainer"].get("callbacks", []) if name not in DRAWING]
    settings["trainer"] |= {
        "max_epochs": 1,
        "callbacks": callbacks,
        "enable_progress_bar": False,
        "num_sanity_val_steps": 0,
    }
    settings["trainer"] |= {"check_val_every_n_epoch": 1, "log_every_n_steps": 1, "enable_model_summary": False}
    return settings


def method_of(settings: dict[str, Any]) -> type[BaseModule]:
    """Class that an experiment names."""
    name = settings["model"]["class_path"].removeprefix("lightning_modules.")
    return next(method for method in METHODS.values() if method.__name__ == name)


def small_options(method: type[BaseModule], given: dict[str, Any]) -> dict[str, Any]:
    """Options of a twin with every width small and nothing dropped at random."""
    return {
        **given,
        **{
            name: small(name, value)
            for name, value in {**defaults(method), **given}.items()
            if small(name, value) != value
        },
    }


def small(name: str, value: Any) -> Any:
    """Value of an option in a small network."""
    if isinstance(value, float) and name.endswith("dropout"):
        return 0.0
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("_dim"):
        return WIDTH
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        return [WIDTH] * len(value)
    return value


def defaults(method: type[BaseModule]) -> dict[str, Any]:
    """Defaults of all options of a method."""
    found: dict[str, Any] = {}
    for base in reversed(method.__mro__):
        if base.__module__.startswith("lightning_modules.") and "__init__" in base.__dict__:
            parameters = inspect.signature(base.__dict__["__init__"]).parameters.values()
            found |= {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    return found


def small_data(section: dict[str, Any]) -> dict[str, Any]:
    """Section of a data module, and of those inside it, with few scenes."""
    init = {
        name: small_data(value) if isinstance(value, dict) and "class_path" in value else value
        for name, value in section.get("init_args", {}).items()
    }
    few = SCENES if section["class_path"].endswith(".SceneCaptions") else {}
    return {**section, "init_args": {**init, **few}}


def make_data(section: dict[str, Any], **changes: Any) -> CaptionDataModule:
    """The data module of a section; of one whose labels another run makes, the one that they are meant for."""
    init = section["init_args"]
    inner = [value for value in init.values() if isinstance(value, dict) and "class_path" in value]
    if inner:
        return make_data(inner[-1], **changes)
    package, _, name = section["class_path"].rpartition(".")
    kind = getattr(__import__(package, fromlist=[name]), name)
    data: CaptionDataModule = kind(**{**init, **changes})
    return data


@contextlib.contextmanager
def data_maker(cache: Path, captions_per_image: int) -> Iterator[Callable[[Case], CaptionDataModule]]:
    """Makes the data modules of cases, once for all that have the same data; features are cached in a folder."""
    known: dict[str, CaptionDataModule] = {}

    def make(case: Case) -> CaptionDataModule:
        key = str(case.data)
        if key not in known:
            known[key] = make_data(case.data, captions_per_image=captions_per_image)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTION_CACHE", str(cache))
        yield make


@contextlib.contextmanager
def batch_maker(cache: Path, captions_per_image: int) -> Iterator[Callable[[Case], tuple[CaptionDataModule, Batch]]]:
    """As `data_maker`, with a training batch of each."""
    known: dict[str, tuple[CaptionDataModule, Batch]] = {}
    with data_maker(cache, captions_per_image) as data_of:

        def make(case: Case) -> tuple[CaptionDataModule, Batch]:
            key = str(case.data)
            if key not in known:
                data = data_of(case)
                data.prepare_data()
                known[key] = data, next(iter(data.train_dataloader()))
            return known[key]

        yield make


def fitting_twins(method: type[BaseModule]) -> list[str]:
    """Twins of a method that train."""
    names = sorted(path.stem for path in OFFLINE.glob("*.yaml"))
    trains = [name for name in names if STAGES.get(name, ("fit",))[0] == "fit"]
    return [name for name in trains if method_of(yaml.safe_load((OFFLINE / f"{name}.yaml").read_text())) is method]


def cases() -> list[Case]:
    """All methods as their twins have them, on stored features where they can, looking at regions, parts frozen."""
    found = []
    for method in METHODS.values():
        for twin in fitting_twins(method):
            settings = read(twin)
            options, data = settings["model"]["init_args"], settings["data"]
            found.append(Case(twin, method, options, data))
            if options.get("image_encoder") and "feature_dim" in method.options():
                stored = {**options, **{name: value for name, value in STORED.items() if name in method.options()}}
                section = {**data, "init_args": {**data["init_args"], "encoder": "small-conv"}}
                found.append(Case(twin, method, stored, section, "stored"))
            if "region_heads" in method.options():
                found.append(Case(twin, method, {**options, "region_heads": 2}, data, "regions"))
            for name, (frozen, learning) in freezing(method).items():
                found.append(Case(twin, method, {**options, **frozen}, data, name))
                found.append(Case(twin, method, {**options, **learning}, data, f"no-{name}"))
    return found


def freezing(method: type[BaseModule]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Options of a method that freeze something, see `FREEZING`."""
    new = {name: ({name: True}, {name: False}) for name in method.options() if name.startswith("freeze_")}
    return {name: values for name, values in sorted({**new, **FREEZING}.items()) if name in method.options()}


def write_twins(folder: Path) -> dict[str, list[str]]:
    """Writes small copies of all twins; the command line of each, in an order in which each finds what it needs.

    Args:
        folder: of the copies and, in ``runs``, of the run folders.
    """
    lines = commands([path.stem for path in OFFLINE.glob("*.yaml")], folder / "runs")
    for name, line in lines.items():
        copy = folder / f"{name}.yaml"
        copy.write_text(json.dumps(read(name)))
        line[line.index("--config") + 1] = str(copy)
    return lines


def predicts(method: type[BaseModule]) -> bool:
    """Whether a method has something to predict."""
    return method.predict_step is not LightningModule.predict_step


def saved_and_loaded(module: BaseModule, path: Path) -> BaseModule:
    """A module after a way through a file that is read without executing anything."""
    entries = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save({**entries, "inference": module.inference}, path)
    return load_module(path)


def with_padding(batch: Batch, pad_id: int) -> tuple[Batch, Batch]:
    """Two batches that differ in their padding alone: in how much there is, and in what stands there."""
    one, other = batch.copy(), batch.copy()
    if "caption_ids" in batch:
        ids = torch.nn.functional.pad(batch["caption_ids"], (0, 4), value=pad_id)
        behind = torch.arange(ids.shape[1]) >= batch["caption_lengths"].unsqueeze(1)
        other["caption_ids"] = ids.masked_fill(behind, 5)
    if "features" in batch:
        mask, features = batch["feature_mask"].clone(), batch["features"].clone()
        half = features.shape[1] // 2
        mask[:, half:], features[:, half:] = False, 7.0
        one["feature_mask"], one["features"] = mask[:, :half], features[:, :half]
        other["feature_mask"], other["features"] = mask, features
    return one, other
