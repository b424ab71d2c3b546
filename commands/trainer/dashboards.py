"""What the command line tells W&B and TensorBoard of a run: settings to filter by, group, kind and tags."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from callbacks.dashboard import Artifacts
from commands.comparison.results import flat
from commands.trainer import runs
from commands.trainer.memory import batch_size_in
from core.text import visible
from reporting.loggers import Dashboards, WandbMode, read_facts

_OWN = "dashboard"
"""Where ``run.json`` notes group, kind and tags, which an evaluation must not change."""
_LEFT_OUT = ("config", "wandb", "tensorboard", "ckpt_path", "run_dir", "trust", "report", "quiet", "json_lines")
"""Options that say nothing of a result, and those that begin with one of them and an underscore."""


def add_dashboard_options(parser: LightningArgumentParser) -> None:
    """Adds the options of W&B and TensorBoard, and of what is printed."""
    add = parser.add_argument
    add("--wandb", type=WandbMode, default="auto", help="W&B: auto is offline unless an account is configured")
    add("--wandb_project", type=str, default="captioners", help="W&B project")
    add("--wandb_group", type=str | None, default=None, help="W&B group; by default the name of the experiment")
    add("--wandb_tags", type=list[str], default=[], help="W&B tags besides method, data set and seed: [a,b]")
    add("--wandb_artifacts", type=Artifacts, default="none", help="files that W&B gets at the end")
    add("--tensorboard", type=bool, default=False, help="also write TensorBoard files")
    add("--quiet", type=bool, default=False, help="only the run folder, warnings and errors")
    add("--json_lines", type=bool, default=False, help="standard output: a JSON object a line, all else elsewhere")


def dashboards_of(config: Mapping[str, Any], run: Path, configs: list[str], *, off: bool = False) -> Dashboards:
    """How a run is found in dashboards.

    Args:
        config: configuration of the command. The environment counts as well, which recipes use.
        run: folder of the training run; group, kind and tags that it notes stay.
        configs: experiment files.
        off: no W&B.
    """
    settings = settings_of(config, runs.experiment(configs))
    given = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    own = [str(settings["method"]), str(settings["dataset"]), f"seed-{settings['seed']}"]
    found = {
        "group": visible(config["wandb_group"] or os.environ.get("WANDB_RUN_GROUP") or settings["experiment"]),
        "job_type": os.environ.get("WANDB_JOB_TYPE") or "fit",
        "tags": [visible(tag) for tag in dict.fromkeys([*config["wandb_tags"], *given, *own])],
    } | (read_facts(run).get(_OWN) or {})
    return Dashboards(
        wandb="off" if off else config["wandb"],
        wandb_project=config["wandb_project"],
        tensorboard=config["tensorboard"],
        settings=settings,
        group=found["group"],
        job_type=found["job_type"],
        tags=tuple(found["tags"]),
    )


def labels_of(dashboards: Dashboards) -> dict[str, Any]:
    """What ``run.json`` notes of them."""
    return {"group": dashboards.group, "job_type": dashboards.job_type, "tags": list(dashboards.tags)}


def settings_of(config: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """The whole configuration of a run, flat, and by short names what runs are filtered by.

    >>> settings_of({"seed_everything": 1, "model": {"class_path": "a.B", "init_args": {"lr": 0.1}}}, "x")["model/lr"]
    0.1
    """
    trainer = config.get("trainer") or {}
    values = {
        name.replace(".init_args.", ".").replace(".", "/"): value
        for name, value in flat(dict(config)).items()
        if not any(name == option or name.startswith(f"{option}_") for option in _LEFT_OUT)
    }
    names = {part: str((config.get(part) or {}).get("class_path", "")).rpartition(".")[2] for part in ("model", "data")}
    return values | {
        "experiment": experiment,
        "method": names["model"],
        "dataset": names["data"],
        "seed": config.get("seed_everything"),
        "precision": str(trainer.get("precision") or "32-true"),
        "batch_size": batch_size_in(config),
        "commit": runs.commit(),
    }
