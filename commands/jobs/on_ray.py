"""Ray Data as the engine of a job: decoding and the model on all machines of a cluster, the same class as without it.

Ray decodes batches in one pool of actors and gives them to another one, in which each actor has a model; what comes
back are the columns of the table, in order. Writing parts stays with the process that started the job.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from commands.jobs.tasks import Columns, Task
from core.errors import UserError
from datamodules.readers.transforms import ImageTransform
from datamodules.sources.base import PictureSource
from datamodules.sources.decoding import decode_pictures
from datamodules.stored_features.pictures import InProportion

_BATCHES = 1 << 16
"""Batches of one execution; their places and those of the blocks between the pools are in memory."""
_BLOCK = 16
"""Most batches that a decoding actor takes at once."""


class Decoder:
    """Decodes a batch; one of Ray's actors.

    Args:
        source: the pictures.
        prepare: what the model reads of a picture.
    """

    def __init__(self, *, source: PictureSource, prepare: ImageTransform | InProportion) -> None:
        self.source, self.prepare = source, prepare

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Rows of a batch, as `data`, to its arrays and, as JSON, names and errors."""
        start, stop = map(int, row["data"])
        batch = decode_pictures(self.source, range(start, stop), self.prepare)
        # one type in every block: a column of texts that are all missing would be another one
        facts = json.dumps({"image": batch["image"], "error": batch["error"]})
        arrays = {name: batch[name].numpy() for name in ("position", "pixels", "sizes")}
        return {"facts": facts, **arrays}


class Model:
    """Calls a task with each batch; one of Ray's actors.

    Args:
        make: builds the task, model included, where the actor is.
    """

    def __init__(self, *, make: Callable[[], Task]) -> None:
        self.task = make()

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[str]]:
        """Batches of pictures to their columns, as JSON."""
        found = []
        for facts, *arrays in zip(*(rows[name] for name in ("facts", "position", "pixels", "sizes")), strict=True):
            position, pixels, sizes = (np.array(array) for array in arrays)  # Ray's are read only
            batch = {**json.loads(facts), "position": position, "pixels": pixels, "sizes": sizes}
            found.append(json.dumps(self.task(batch)))
        return {"columns": found}


@contextmanager
def ray_results(
    make: Callable[[], Task],
    task: Task,
    source: PictureSource,
    batches: Callable[[], Iterator[range]],
    options: argparse.Namespace,
) -> Generator[Iterator[Columns], None, None]:
    """Does a job on Ray: on the cluster of ``RAY_ADDRESS``, else on this machine; it ends with the block.

    Args:
        make: builds the task.
        task: one that is built.
        source: the pictures.
        batches: the rows of each batch.
        options: `workers` actors decode, `actors` have a model.

    Yields:
        The columns of each batch, in order.

    Raises:
        UserError: Ray is not installed, or the cluster has too few processors.
    """
    # Ray tells its makers what it is used for, and its actors write what the one line of an error says again
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray, which is not installed: python -m pip install -e '.[ray]'") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    decoders, models = max(1, options.workers), options.actors
    cluster = "RAY_ADDRESS" in os.environ
    own = {} if cluster else {"address": "local", "num_cpus": max(decoders + models, os.cpu_count() or 1)}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", configure_logging=True, **own)
    try:
        there = ray.cluster_resources()
        if there.get("CPU", 0) < decoders + models:
            few = f"the cluster has {there.get('CPU', 0):g} processors"
            raise UserError(f"--workers {decoders} and --actors {models}: {few}, each takes one; give fewer")
        gpus = 1 if task.model.device.type == "cuda" and there.get("GPU", 0) else 0
        results = _rows(_data(make, task, source, decoders, models, gpus), batches())
        try:
            yield results
        finally:
            results.close()  # Ray's own iterator ends with it, and needs the cluster for that
    finally:
        ray.shutdown()


def _data(
    make: Callable[[], Task], task: Task, source: PictureSource, decoders: int, models: int, gpus: int
) -> Callable[[Sequence[range]], Iterator[Any]]:
    """Function that gives the rows of Ray for some batches."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False

    def rows(batches: Sequence[range]) -> Iterator[Any]:
        places = np.array([(batch.start, batch.stop) for batch in batches], np.int64)
        block = max(1, min(_BLOCK, len(places) // (2 * max(decoders, models))))
        data = ray.data.from_numpy([places[start : start + block] for start in range(0, len(places), block)])
        prepared = {"source": source, "prepare": task.model.preparation}
        pool = ray.data.ActorPoolStrategy
        data = data.map(Decoder, fn_constructor_kwargs=prepared, compute=pool(size=decoders), num_cpus=1)
        own = {"compute": pool(size=models), "num_cpus": 1, "num_gpus": gpus}
        found: Iterator[Any] = data.map_batches(
            Model, batch_size=1, fn_constructor_kwargs={"make": make}, **own
        ).iter_rows()
        return found

    return rows


def _rows(run: Callable[[Sequence[range]], Iterator[Any]], batches: Iterator[range]) -> Generator[Columns, None, None]:
    """The columns of all batches, one execution after the other.

    Raises:
        UserError: an actor raised one.
    """
    while some := [batch for _, batch in zip(range(_BATCHES), batches, strict=False)]:
        try:
            for row in run(some):
                yield json.loads(row["columns"])
        except Exception as error:
            if (cause := _user_error(error)) is None:
                raise
            raise cause from error


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's error among the causes of one of Ray's, which repeat the traceback of the actor."""
    while error is not None:
        if isinstance(error, UserError) and not hasattr(error, "cause"):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
