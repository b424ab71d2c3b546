"""What is run: every method, small as its offline twin, under settings that change where a run stops and saves."""

import inspect
import json
from pathlib import Path
from typing import Any

from datamodules.base import CaptionDataModule
from datamodules.shards.index import INDEX
from datamodules.shards.writing import write_shards
from scripts.smoke import OFFLINE, STAGES, needs
from tests.twins import make_data, read

SCENES = {"num_train": 20, "num_val": 6, "num_test": 6, "batch_size": 4}
EPOCHS = 3
# 5 batches an epoch, 15 in all
_SAMPLES = {"class_path": "callbacks.samples.CaptionSamples", "init_args": {"count": 1}}
_EARLY = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "val/loss", "patience": 1, "mode": "min"},
}
_AVERAGING = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.8}}
# several files of several groups of rows
_LABELS = {
    "class_path": "callbacks.pseudo_labels.PseudoLabelWriter",
    "init_args": {"rows_per_file": 6, "rows_per_group": 4},
}
_SHARDED = {"class_path": "tests.distributed.CPUSharded", "init_args": {"state_dict_type": "sharded"}}

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "within epochs": {"val_check_interval": 0.4},
    "val_check_interval 3": {"val_check_interval": 3},
    "early stopping": {"callbacks": [_EARLY], "max_epochs": 5},
    "weight averaging": {"callbacks": [_AVERAGING]},
    "limits": {"limit_train_batches": 3, "limit_val_batches": 1},
    "half": {"limit_train_batches": 0.5},
    "max steps": {"max_epochs": -1, "max_steps": 12},
    "bf16": {"precision": "bf16-mixed"},
    "two workers": {"workers": 2},
    "accumulation": {"accumulate_grad_batches": 2},
    "every second epoch": {"check_val_every_n_epoch": 2, "max_epochs": 5},
    "rare rows": {"log_every_n_steps": 4},
    "samples": {"callbacks": [_SAMPLES]},
    "two processes": {"devices": 2, "strategy": "ddp"},
    "two processes on shards": {"devices": 2, "strategy": "ddp", "shards": True},
    "two processes in parts": {"devices": 2, "strategy": _SHARDED},
}
"""Settings of the trainer, and what else differs."""
PAIRED = tuple(name for name in SETTINGS if name.startswith("two processes"))
"""Those with two processes."""
TWINS = sorted(path.stem for path in OFFLINE.glob("*.yaml"))
TRAINED = [name for name in TWINS if STAGES.get(name, ("fit",))[0] == "fit"]
"""Twins that train."""


def write_config(folder: Path, twin: str, setting: str = "plain") -> Path:
    """Writes the experiment of a twin under a setting."""
    path = folder / f"{twin}, {setting}.yaml".replace(" ", "_")
    config, changes = read(twin), dict(SETTINGS[setting])
    _shrink(config["data"], changes.pop("workers", 0))
    if changes.pop("shards", False):
        config["data"] = sharded(config["data"], folder / "shards" / twin)
    options = config["model"]["init_args"]
    options |= {name: 0.2 for name, value in options.items() if name.endswith("dropout") and value == 0.0}
    if setting in PAIRED and "fine_tune_epochs" in options:  # which several processes cannot change in mid-run
        options["fine_tune_epochs"] = 0
    trainer = config["trainer"]
    trainer["callbacks"] = [
        _LABELS if name == _LABELS["class_path"] else name
        for name in trainer["callbacks"]
        if name != _SAMPLES["class_path"]
    ]
    trainer["callbacks"] += changes.pop("callbacks", [])
    trainer |= {"max_epochs": EPOCHS, **changes}
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _shrink(section: dict[str, Any], workers: int) -> None:
    """Few scenes in a data module and in those inside it."""
    init = section["init_args"]
    for value in init.values():
        if isinstance(value, dict) and "class_path" in value:
            _shrink(value, workers)
    if section["class_path"].endswith(".SceneCaptions"):
        init |= {**SCENES, "num_workers": workers}


def sharded(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The section of a data module that reads the same from shards, which are made unless they are there."""
    if not (folder / INDEX).is_file():
        folder.mkdir(parents=True)
        list(write_shards(make_data(section), folder, ("train", "val"), 3))
    known = inspect.signature(CaptionDataModule.__init__).parameters
    kept = {name: value for name, value in section["init_args"].items() if name in known}
    init = {**kept, "root": str(folder), "shuffle_buffer": 7}
    return {"class_path": "datamodules.shards.ShardedCaptions", "init_args": init}


def words_of(twin: str, config: Path, stages: Path) -> list[str]:
    """The command line of a twin, but for its run folder.

    Args:
        twin: its name.
        config: experiment file.
        stages: folder of the runs that others start from.
    """
    command, *options = STAGES.get(twin, ("fit",))
    folders = {name: str(stages / name) for name in TWINS}
    kept = [option.format_map(folders) for option in options if "num_train" not in option]
    words = [command, "--config", str(config), *kept]
    return words if command == "predict" else [*words, "--wandb=off", "--checkpoint_steps=2"]


def before(twin: str) -> list[str]:
    """Twins whose runs a twin needs, in their order."""
    found = [name for other in sorted(needs(twin)) for name in [*before(other), other]]
    return list(dict.fromkeys(found))
