"""What goes to Weights & Biases and to TensorBoard: figures, tables, texts, summaries.

Both get the same pictures and texts. Other loggers are skipped, so nothing here fails without a dashboard.
"""

import contextlib
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from core.text import visible
from metrics.names import METRICS
from reporting.background import Background, Work
from reporting.pictures import Pixels, as_bytes, png_of, png_of_image

if TYPE_CHECKING:  # half a second, for those who draw
    from matplotlib.figure import Figure

    from reporting.pictures import ImageArray

AXIS = "trainer/global_step"
"""What curves are drawn over: optimiser steps."""
Cell = str | float | int | bool | None | Pixels
_Sent = str | float | int | bool | None | bytes
_FOLDER, _MODE = "WANDB_DATA_DIR", "WANDB_MODE"
_INPUTS = "_detect_and_apply_job_inputs"
_OWN_FOLDER = "CAPTION_WANDB_DATA_DIR"
"""The same folder where it was set here: a run that this process, or one that it starts, begins later has its own."""
_SHOWN = 2000
"""Characters of a cell in TensorBoard's texts."""


class WandbRun(WandbLogger):
    """Lightning's, in a run whose settings, axes and goals are described, and whose steps are optimiser steps.

    Args:
        settings: settings of the run, flat.
        first_step: W&B's own count begins here.
        options: options of Lightning's logger.
    """

    def __init__(self, *, settings: Mapping[str, Any], first_step: int = 0, **options: Any) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # twenty lines a run otherwise
        super().__init__(**options)
        self.settings, self.first_step = dict(settings), first_step
        # Lightning passes on an argument that W&B no longer has, which costs a warning in every run
        self._wandb_init.pop("anonymous", None)
        if options.get("offline") is not None:
            self._wandb_init.setdefault("mode", "offline" if options["offline"] else "online")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun and described when it is first asked for."""
        if self._experiment is not None:
            return super().experiment
        self._keep_files_in_run()
        mode = os.environ.get(_MODE)
        with _without_launcher():
            run = super().experiment
        _set_back(_MODE, mode)  # Lightning writes there, for all runs and processes after this one
        run.config.update(self.settings, allow_val_change=True)
        for item in METRICS:
            if item.direction != "none":
                run.define_metric(f"val/{item.key}", step_metric=AXIS, summary=f"{item.direction},last")
        run.define_metric("train/loss", step_metric=AXIS, summary="min,last")
        return run

    def _keep_files_in_run(self) -> None:
        """Pictures of tables lie in the home folder else, and a run folder that is moved loses them."""
        given = os.environ.get(_FOLDER)
        if given is None or given == os.environ.get(_OWN_FOLDER):
            own = str(Path(self._save_dir or ".").resolve() / "wandb" / "data")
            os.environ |= {_FOLDER: own, _OWN_FOLDER: own}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds to the row of a step: W&B's own count is that of the optimiser, so a resumed run continues its rows."""
        run = self.experiment
        values = dict(metrics) if step is None else {**metrics, AXIS: step}
        run.log(values, step=max(step or 0, self.first_step, run.step))


@contextlib.contextmanager
def _without_launcher() -> Iterator[None]:
    """Inside, a run begins without importing W&B's launcher of jobs, which takes a second of processor time.

    W&B does it for the case that somebody has left inputs there for the run, which takes an import.
    """
    from wandb.sdk.wandb_run import Run

    apply = getattr(Run, _INPUTS, None)
    if apply is None or "wandb.sdk.launch" in sys.modules:
        yield
        return
    setattr(Run, _INPUTS, lambda run: None)
    try:
        yield
    finally:
        setattr(Run, _INPUTS, apply)


def _set_back(name: str, value: str | None) -> None:
    """Gives an environment variable the value that it had; None: there was none."""
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value


def _send(loggers: Iterable[Logger], wandb: Work | None, board: Work | None) -> None:
    """Does something with W&B's loggers and something with TensorBoard's."""
    for logger in loggers:
        inner = logger.inner if isinstance(logger, Background) else logger
        work = wandb if isinstance(inner, WandbLogger) else board if isinstance(inner, TensorBoardLogger) else None
        if work is not None and isinstance(inner, WandbLogger):
            work = partial(_with_folder, work)
        if work is not None and isinstance(logger, Background):
            logger.submit(work)
        elif work is not None:
            work(logger)


def _with_folder(work: Work, logger: Any) -> None:
    """Does something with W&B, whose temporary folder a run of days, or the end of a forked process, may have lost."""
    from wandb.sdk.data_types._private import MEDIA_TMP

    Path(MEDIA_TMP.name).mkdir(parents=True, exist_ok=True)
    work(logger)


def has_dashboard(loggers: Iterable[Logger]) -> bool:
    """Whether any of the loggers shows pictures: nothing need be drawn for the others."""
    inner = (logger.inner if isinstance(logger, Background) else logger for logger in loggers)
    return any(isinstance(logger, (WandbLogger, TensorBoardLogger)) for logger in inner)


def log_figure(
    loggers: Iterable[Logger], key: str, figure: "Figure | bytes", step: int, caption: str | None = None
) -> None:
    """Sends a figure.

    Args:
        loggers: loggers of the trainer.
        key: name in the logger, such as ``val/codes``.
        figure: drawn with matplotlib, or its PNG file.
        step: optimiser steps so far.
        caption: below the figure, in W&B.
    """
    loggers = list(loggers)
    if not has_dashboard(loggers):
        return
    png = figure if isinstance(figure, bytes) else png_of(figure)
    captions = {} if caption is None else {"caption": [visible(caption)]}

    def wandb(logger: Any) -> None:
        with _files([png]) as paths:
            logger.log_image(key, paths, step, **captions)

    _send(loggers, wandb, lambda logger: _add_png(logger.experiment, key, png, step))


@contextlib.contextmanager
def _files(pictures: Sequence[bytes]) -> Iterator[list[str]]:
    """Paths of PNG files, for W&B: it copies a file as it is, and encodes anything else anew."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.png") for number in range(len(pictures))]
        for path, content in zip(paths, pictures, strict=True):
            path.write_bytes(content)
        yield list(map(str, paths))


def _add_png(writer: Any, key: str, png: bytes, step: int) -> None:
    """Adds a PNG file to TensorBoard as it is; its `add_image` takes pixels only, and encodes them."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]  # publishes no types

    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=key, image=image)]), step)


def log_captioned_images(
    loggers: Iterable[Logger], stage: str, images: "Sequence[ImageArray]", captions: Sequence[str], step: int
) -> None:
    """Sends images with their captions.

    Args:
        loggers: loggers of the trainer.
        stage: val or test; the keys are ``STAGE/samples`` and ``STAGE/captions``.
        images: `(H, W, 3)` each, 0 to 1.
        captions: one per image.
        step: optimiser steps so far.
    """
    loggers = list(loggers)
    if not has_dashboard(loggers):
        return
    shown = [visible(caption) for caption in captions]
    pixels = [as_bytes(image) for image in images]

    def wandb(logger: Any) -> None:
        with _files([png_of_image(one) for one in pixels]) as paths:
            logger.log_image(f"{stage}/samples", paths, step, caption=shown)

    def board(logger: Any) -> None:
        logger.experiment.add_images(f"{stage}/samples", np.stack(pixels), step, dataformats="NHWC")
        # TensorBoard reads Markdown, in which indented lines are shown as they are
        logger.experiment.add_text(f"{stage}/captions", "\n".join(f"    {caption}" for caption in shown), step)

    _send(loggers, wandb, board)


def log_rows(
    loggers: Iterable[Logger], key: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
) -> None:
    """Sends a table; TensorBoard gets its texts as lines, and its pictures one by one.

    Args:
        loggers: loggers of the trainer.
        key: name in the logger.
        columns: headings.
        rows: rows of cells; arrays are pictures.
        step: optimiser steps so far.
    """
    loggers = list(loggers)
    if not has_dashboard(loggers):
        return
    shown = [[_sent(cell) for cell in row] for row in rows]

    def wandb(logger: Any) -> None:
        from wandb import Image as Picture
        from wandb import Table

        with _files([cell for row in shown for cell in row if isinstance(cell, bytes)]) as paths:
            left = iter(paths)
            data: list[Any] = [
                [Picture(next(left)) if isinstance(cell, bytes) else cell for cell in row] for row in shown
            ]
            logger.log_metrics({key: Table(columns=list(columns), data=data, allow_mixed_types=True)}, step)

    def board(logger: Any) -> None:
        texts = [name for place, name in enumerate(columns) if not _is_picture(shown, place)]
        places = [columns.index(name) for name in texts]
        lines = [" | ".join(_text(row[place]) for place in places) for row in shown]
        logger.experiment.add_text(key, "\n".join(f"    {line}" for line in [" | ".join(texts), *lines]), step)
        for place, name in enumerate(columns):
            for number, row in enumerate(shown):
                if isinstance(cell := row[place], bytes):
                    _add_png(logger.experiment, f"{key}_{name.replace(' ', '_')}/{number}", cell, step)

    _send(loggers, wandb, board)


def _sent(cell: Cell) -> _Sent:
    """What the loggers get of a cell; of a picture a PNG file, which is made once for all of them."""
    if isinstance(cell, np.ndarray):
        return png_of_image(cell)
    return visible(cell) if isinstance(cell, str) else cell


def _is_picture(rows: Sequence[Sequence[_Sent]], place: int) -> bool:
    return any(isinstance(row[place], bytes) for row in rows)


def _text(cell: _Sent) -> str:
    text = f"{cell:.4f}" if isinstance(cell, float) else "" if cell is None else str(cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def log_values(loggers: Iterable[Logger], values: Mapping[str, float], step: int) -> None:
    """Sends figures that have curves in dashboards and no column in ``metrics.csv``, such as those of every label."""

    def board(logger: Any) -> None:
        logger.log_metrics(values, step)

    _send(loggers, lambda logger: logger.log_metrics(values, step), board)


def log_summary(loggers: Iterable[Logger], values: Mapping[str, float | str], step: int) -> None:
    """Sends what a run has come to: W&B's summary, by which runs are sorted; TensorBoard's curves of one point.

    Args:
        loggers: loggers of the trainer.
        values: figures and texts by their name.
        step: optimiser steps so far.
    """
    shown = {key: visible(value) if isinstance(value, str) else value for key, value in values.items()}

    def board(logger: Any) -> None:
        for key, value in shown.items():
            if isinstance(value, str):
                logger.experiment.add_text(key, f"    {value}", step)
            else:
                logger.experiment.add_scalar(key, value, step)

    _send(loggers, lambda logger: logger.experiment.summary.update(shown), board)


def log_scores(loggers: Iterable[Logger], stage: str, rows: Mapping[str, Mapping[str, float]], step: int) -> None:
    """Sends the figures of an evaluation and those of its baselines.

    Args:
        loggers: loggers of the trainer.
        stage: beginning of their names: ``STAGE/METRIC``, ``STAGE/baselines/ROW/METRIC``.
        rows: name to metric to value; the first is the model.
        step: optimiser steps so far.
    """
    values: dict[str, float | str] = {}
    for place, (name, row) in enumerate(rows.items()):
        prefix = f"{stage}/baselines/{name}" if place else stage
        values |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    log_summary(loggers, values, step)


def log_settings(loggers: Iterable[Logger], values: Mapping[str, Any]) -> None:
    """Adds to the settings of the run, in W&B."""
    _send(loggers, lambda logger: logger.experiment.config.update(dict(values), allow_val_change=True), None)


def log_warning(loggers: Iterable[Logger], kind: str, text: str, step: int) -> None:
    """Marks a run: an alert and an entry in the summary of W&B, a text in TensorBoard.

    Args:
        loggers: loggers of the trainer.
        kind: what it is about, a word; the key is ``health/KIND``.
        text: one line.
        step: optimiser steps so far.
    """
    shown = visible(text)

    def wandb(logger: Any) -> None:
        logger.experiment.alert(title=f"health: {kind}", text=f"step {step}: {shown}", level="WARN")
        logger.experiment.summary.update({f"health/{kind}": f"step {step}: {shown}"})

    _send(loggers, wandb, lambda logger: logger.experiment.add_text(f"health/{kind}", f"    {shown}", step))


def log_file(loggers: Iterable[Logger], name: str, kind: str, path: Path) -> None:
    """Sends a file as an artifact of W&B.

    Args:
        loggers: loggers of the trainer.
        name: name of the artifact.
        kind: W&B groups artifacts by it.
        path: the file.
    """

    def wandb(logger: Any) -> None:
        from wandb import Artifact

        artifact = Artifact(name, type=kind)
        artifact.add_file(str(path))
        logger.experiment.log_artifact(artifact)

    _send(loggers, wandb, None)
