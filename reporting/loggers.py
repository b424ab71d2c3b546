"""Loggers: a CSV file always, Weights & Biases quietly, TensorBoard on request."""

import contextlib
import csv
import os
import secrets
import sys
import threading
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from core.checkpoints import way_on
from core.errors import UserError
from core.files import replacing, write_json
from core.inputs import read_object
from core.metric_rows import read_metric_rows
from core.text import say
from reporting.background import Background
from reporting.dashboards import WandbRun

WandbMode = Literal["auto", "online", "offline", "off"]
_PATIENCE = 120.0
"""Seconds that the end of a command waits for W&B, which uploads what is left."""


class CSVFile(Logger):
    """Writes ``metrics.csv`` into the run folder, a row per logged step, and continues it after a resume.

    Lightning's own CSV logger deletes the file of the run that it continues. A resumed run
    takes out the rows that it is about to write again, see `resume_at`.

    Args:
        folder: run folder.
        flush_every: rows kept in memory at most.
    """

    def __init__(self, folder: str | Path, *, flush_every: int = 1) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_every = flush_every
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """Name of the experiment: the folder above the run."""
        return self.path.parent.parent.name

    @property
    def version(self) -> str:
        """Name of the run: its folder."""
        return self.path.parent.name

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        self._rows.append({"step": step, **{key: float(value) for key, value in metrics.items()}})
        if len(self._rows) >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Appends the waiting rows; writes the file anew when columns have been added."""
        if not self._rows:
            return
        known = all(key in self._columns for row in self._rows for key in row)
        with self._told():
            if known and self.path.is_file():
                self._append()
            else:
                self._replace([*self._read(), *self._rows])
        self._rows = []

    def finalize(self, status: str) -> None:
        """Writes what is left."""
        del status
        self.save()

    @rank_zero_only
    def resume_at(self, step: int, row: tuple[int, dict[str, float]] | None = None) -> None:
        """Takes out the rows of a step and later, which will be written again, and adds one that may be missing.

        At once: when the process dies before its next row, the next checkpoint no longer carries the missing one.

        Args:
            step: optimiser steps made where the run begins or resumes.
            row: step and figures of the checkpoint's last step, which the file may lack.

        Raises:
            UserError: the file is damaged.
        """
        kept = [old for old in self._read() if not old["step"] or int(old["step"]) < step]
        if row is not None:
            figures = {name: str(float(value)) for name, value in row[1].items()}
            if not any(old["step"] == str(row[0]) and figures.items() <= old.items() for old in kept):
                kept.append({"step": row[0], **row[1]})
        if kept or self.path.is_file():
            with self._told():
                self._replace(kept)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns a failing write into the user's error."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): what it held before is intact; free some space, "
                f"then {way_on(self.path.parent)}"
            ) from error

    def _read(self) -> list[dict[str, Any]]:
        """Rows of the file, but for half a row at its end; none where there is no file."""
        if not self.path.is_file():
            return []
        columns, rows = read_metric_rows(self.path)
        self._columns = list(dict.fromkeys([*columns, *self._columns]))
        return list(rows)

    def _replace(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the file anew, with a column for every figure."""
        columns = list(dict.fromkeys([*self._columns, *(key for row in rows for key in row)]))
        with replacing(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns  # only now: the file of before has fewer

    def _append(self) -> None:
        """Adds the waiting rows; after a write that fails, or a signal inside, the file ends where it ended before."""
        before = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, restval="").writerows(self._rows)
        except BaseException:
            with contextlib.suppress(OSError):
                os.truncate(self.path, before)
            raise


def wandb_account_configured() -> bool:
    """Whether this user has given W&B a key: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboards:
    """Which dashboards a run writes to, and how it is found there.

    Attributes:
        wandb: "auto" is online when an account is configured and offline otherwise, without asking.
        wandb_project: project name shown by W&B.
        tensorboard: also write TensorBoard event files.
        settings: settings of the run, flat; W&B filters by them.
        group: W&B shows the runs of a group together.
        job_type: kind of the run within its group.
        tags: tags of the run.
    """

    wandb: WandbMode = "auto"
    wandb_project: str = "captioners"
    tensorboard: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()


def make_loggers(run_dir: Path, dashboards: Dashboards | None = None) -> list[Logger]:
    """Makes the loggers of a training run; all of them write into its folder and continue there after a resume.

    A new run takes the W&B id of the environment: an agent of ``wandb sweep`` chooses it, and W&B ignores others.

    Args:
        run_dir: run folder.
        dashboards: what is written beside ``metrics.csv``.
    """
    dashboards = dashboards or Dashboards()
    noted = read_facts(run_dir).get("wandb_id")
    wandb_id = str(noted or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    found = _dashboards(run_dir, dashboards, wandb_id, first_step=0)
    return [CSVFile(run_dir), *(Background(logger) for logger in found)]


def evaluation_loggers(run_dir: Path, dashboards: Dashboards) -> list[Logger]:
    """Makes the loggers of an evaluation, which writes to the dashboards of the training run.

    Args:
        run_dir: folder of the training run; without a W&B run noted there, none is begun.
        dashboards: dashboards of the evaluation.
    """
    wandb_id = read_facts(run_dir).get("wandb_id")
    if wandb_id is None:
        dashboards = replace(dashboards, wandb="off")
    dashboards = replace(dashboards, settings={})  # those of the training stay
    # W&B's own count of steps only grows; offline it begins in every process anew
    records = len([*run_dir.glob(f"wandb/*run-*-{wandb_id}")])
    found = _dashboards(run_dir, dashboards, str(wandb_id), first_step=_logged_steps(run_dir) + records)
    return [Background(logger, measures=False) for logger in found]


def _dashboards(run_dir: Path, dashboards: Dashboards, wandb_id: str, first_step: int) -> list[Logger]:
    loggers: list[Logger] = []
    mode = os.environ.get("WANDB_MODE", "") if dashboards.wandb == "auto" else dashboards.wandb
    if mode not in ("off", "disabled"):
        offline = mode == "offline" or (mode != "online" and not wandb_account_configured())
        loggers.append(
            WandbRun(
                settings=dashboards.settings,
                first_step=first_step,
                project=dashboards.wandb_project,
                name=f"{run_dir.parent.name}-{run_dir.name}",
                id=wandb_id,
                resume="allow",
                save_dir=run_dir,
                offline=offline,
                group=dashboards.group,
                job_type=dashboards.job_type,
                tags=dashboards.tags or None,
            )
        )
    if dashboards.tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard"))
    return loggers


def _logged_steps(run_dir: Path) -> int:
    """One more than the last step in ``metrics.csv``; 0 without one."""
    path = run_dir / "metrics.csv"
    if not path.is_file() or not path.stat().st_size:
        return 0
    _, rows = read_metric_rows(path)
    return 1 + max((int(row["step"]) for row in rows if row["step"]), default=-1)


def wandb_id_of(loggers: Iterable[Logger]) -> str | None:
    """Id of the W&B run that loggers write to; None: they write to none."""
    inner = (logger.inner if isinstance(logger, Background) else logger for logger in loggers)
    return next((str(logger.version) for logger in inner if isinstance(logger, WandbLogger)), None)


@contextlib.contextmanager
def own_wandb_run() -> Iterator[None]:
    """Ends the W&B run that is begun inside.

    W&B has one run for a process and hands it to every logger that asks, so the next training run of the same process
    (a notebook, a sweep's function) would write into the folder and the curves of this one. A run that the caller had
    begun before stays open.
    """
    before = _open_wandb_run()
    failed = True
    try:
        yield
        failed = False
    finally:
        run = _open_wandb_run()
        if run is not None and run is not before:
            finish = threading.Thread(target=run.finish, kwargs={"exit_code": int(failed)}, daemon=True)
            finish.start()
            finish.join(_PATIENCE)
            if finish.is_alive():
                say(f"warning: W&B has not finished within {_PATIENCE:.0f} seconds and is left alone", err=True)


def _open_wandb_run() -> Any:
    """W&B's run of this process; None when there is none, without importing W&B to look."""
    return getattr(sys.modules.get("wandb"), "run", None)


def add_facts(run_dir: Path, **facts: Any) -> None:
    """Adds facts to ``run.json`` of a run folder, if it has one.

    Raises:
        UserError: the file is broken.
    """
    if known := read_facts(run_dir):
        write_json(run_dir / "run.json", known | facts, indent=2)


def read_facts(run_dir: Path) -> dict[str, Any]:
    """What ``run.json`` of a run folder notes; empty when there is none.

    Raises:
        UserError: it is broken.
    """
    path = run_dir / "run.json"
    if not path.is_file():
        return {}
    return read_object(
        path, "or remove it: then the run continues with the default number of threads and a new W&B run"
    )
