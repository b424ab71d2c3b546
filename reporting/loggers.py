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
from typing import Any, Literal

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
