"""Loggers: a CSV file always, Weights & Biases quietly, TensorBoard on request."""

import contextlib
import csv
import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from core.checkpoints import way_on
from core.errors import UserError
from core.files import replacing, write_json
from core.inputs import read_object
from core.metric_rows import read_metric_rows
from core.text import visible
from reporting.figures import ImageArray

WandbMode = Literal["auto", "online", "offline", "off"]


class CSVFile(Logger):
    """Writes ``metrics.csv`` into the run folder, a row per logged step, and continues it after a resume.

    Lightning's own CSV logger deletes the file of the run that it continues. A resumed run
    takes out the rows that it is about to write again (`resume_at`).

    Args:
        folder: run folder.
        flush_every: rows kept in memory at most.
    """

    def __init__(self, folder: str | Path, flush_every: int = 1) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_every = flush_every
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._started = False
        self._resume_step: int | None = None
        self._resume_row: tuple[int, dict[str, float]] | None = None

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
        old = [] if self._started or not self.path.is_file() else self._read(self._resume_step)
        new_columns = [key for row in [*old, *self._rows] for key in row if key not in self._columns]
        try:
            if new_columns or not self._started:
                if self._started:
                    old = self._read()
                self._columns += list(dict.fromkeys(new_columns))
                with replacing(self.path, "w", newline="") as file:
                    self._writer(file).writeheader()
                    self._writer(file).writerows([*old, *self._rows])
            else:
                self._append()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): what it held before is intact; free some space, "
                f"then {way_on(self.path.parent)}"
            ) from error
        self._started, self._rows = True, []

    def finalize(self, status: str) -> None:
        """Writes what is left."""
        del status
        self.save()

    def resume_at(self, step: int, row: tuple[int, dict[str, float]] | None = None) -> None:
        """Tells the logger where the run resumes: rows of that step and later will be written again.

        Args:
            step: optimiser steps made.
            row: step and figures of the checkpoint's last step, which the file may lack.

        Raises:
            UserError: the file is damaged.
        """
        self._resume_step, self._resume_row = step, row
        if self.path.is_file():
            self._read(step)  # what is wrong with it is said now, not after the first steps

    def _read(self, before: int | None = None) -> list[dict[str, Any]]:
        """Rows of the file, only those before a step if one is given."""
        _, rows = read_metric_rows(self.path)
        kept: list[dict[str, Any]] = [
            row for row in rows if before is None or not row["step"] or int(row["step"]) < before
        ]
        if before is not None and self._resume_row is not None:
            step, figures = self._resume_row
            if not any(row["step"] == str(step) and all(row.get(name) for name in figures) for row in kept):
                kept.append({"step": step, **figures})
        return kept

    def _append(self) -> None:
        """Adds the waiting rows; after a failed write the file ends where it ended before."""
        before = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                self._writer(file).writerows(self._rows)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, before)
            raise

    def _writer(self, file: IO[str]) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, restval="")


def wandb_account_configured() -> bool:
    """Whether this user has given W&B a key: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def make_loggers(
    run_dir: Path, wandb: WandbMode = "auto", wandb_project: str = "captioners", tensorboard: bool = False
) -> list[Logger]:
    """Makes the loggers of a run; all of them write into its folder and continue there after a resume.

    Args:
        run_dir: run folder.
        wandb: "auto" is online when an account is configured and offline otherwise, without asking.
        wandb_project: project name shown by W&B.
        tensorboard: also write TensorBoard event files.
    """
    loggers: list[Logger] = [CSVFile(run_dir)]
    mode = os.environ.get("WANDB_MODE", "") if wandb == "auto" else wandb
    if mode not in ("off", "disabled"):
        offline = mode == "offline" or (mode != "online" and not wandb_account_configured())
        os.environ.setdefault("WANDB_SILENT", "true")  # twenty lines a run otherwise
        run_id = f"{run_dir.parent.name}-{run_dir.name}"
        logger = WandbLogger(
            project=wandb_project, name=run_id, id=_wandb_id(run_dir), resume="allow", save_dir=run_dir, offline=offline
        )
        # Lightning passes on an argument that W&B no longer has, which costs a warning in every run
        logger._wandb_init.pop("anonymous", None)
        loggers.append(logger)
    if tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard"))
    return loggers


def log_figure(loggers: Iterable[Logger], key: str, figure: Figure, step: int, caption: str | None = None) -> None:
    """Sends a figure to W&B and TensorBoard.

    Args:
        loggers: of the trainer; others are skipped.
        key: name in the logger, such as ``val/codes``.
        figure: drawn with matplotlib.
        step: optimiser steps so far.
        caption: below the figure, in W&B.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            captions = {} if caption is None else {"caption": [visible(caption)]}
            logger.log_image(key, [figure], step, **captions)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(key, figure, step)


def log_captioned_images(
    loggers: Iterable[Logger], stage: str, images: Sequence[ImageArray], captions: Sequence[str], step: int
) -> None:
    """Sends images with their captions to W&B and TensorBoard.

    Args:
        loggers: of the trainer; others are skipped.
        stage: val or test; the keys are ``STAGE/samples`` and ``STAGE/captions``.
        images: `(H, W, 3)` each, 0 to 1.
        captions: one per image.
        step: optimiser steps so far.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            # bytes: W&B would cut floats from 0 to 1 off to black; and no table, whose images it keeps elsewhere
            pixels = [(image * 255).round().astype(np.uint8) for image in images]
            logger.log_image(f"{stage}/samples", pixels, step, caption=[visible(caption) for caption in captions])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_images(f"{stage}/samples", np.stack(images), step, dataformats="NHWC")
            # TensorBoard reads Markdown, in which indented lines are shown as they are
            listed = "\n".join(f"    {visible(caption)}" for caption in captions)
            logger.experiment.add_text(f"{stage}/captions", listed, step)


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
            run.finish(exit_code=int(failed))


def _open_wandb_run() -> Any:
    """W&B's run of this process; None when there is none, without importing W&B to look."""
    return getattr(sys.modules.get("wandb"), "run", None)


def _wandb_id(run_dir: Path) -> str:
    """The run's W&B id: noted in the folder of a resumed run, else a new one."""
    return str(read_facts(run_dir).get("wandb_id") or secrets.token_hex(4))


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
