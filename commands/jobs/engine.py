"""Running a job: missing part after missing part, each written whole."""

import argparse
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from callbacks.stop_signals import StopSignals
from commands.jobs.parts import Job, columns_of, is_done, open_job, part_path, write_part
from commands.jobs.progress import JobProgress
from commands.jobs.tasks import Columns, Task
from core.errors import Interrupted, UserError, command
from core.files import write_text
from core.shards import Shard
from core.text import say
from datamodules.sources.base import PictureSource
from datamodules.sources.decoding import decoding


def run_job(make: Callable[[], Task], source: PictureSource, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Writes the parts that are missing.

    Args:
        make: builds what is done with a batch; other processes may call it, too.
        source: the pictures.
        options: options of the job, as `commands.jobs.options.job_source` leaves them.
        words: the command line behind the command's name, for the way on.

    Returns:
        Exit code.

    Raises:
        UserError: the folder holds another job, a picture cannot be decoded and may not be skipped, or the disk is
            full.
        Interrupted: a signal came; what is complete stays.
    """
    task = make()
    job = Job(
        command=task.command,
        settings=task.settings,
        model=task.model_digest(),
        source=f"{source.kind} {source.digest()}",
        pictures=len(source),
        rows_per_part=options.rows_per_part,
        batch_size=options.batch_size,
        columns=columns_of(task.schema),
    )
    open_job(options.out, job)
    parts = job.parts_of(options.shard or Shard(1, 1))
    missing = [part for part in parts if not is_done(options.out, job, part)]
    total = sum(len(job.rows(part)) for part in parts)
    there = total - sum(len(job.rows(part)) for part in missing)
    progress = JobProgress(task.command, total=total, there=there)
    bad = kept = 0
    try:
        with StopSignals().installed(), progress.shown():
            for part, rows in _tables(
                job, _Work(make=make, task=task, source=source, missing=missing), options, progress
            ):
                if options.sidecars is not None:
                    kept += _write_sidecars(options.sidecars, task, rows)
                write_part(options.out, job, part, pa.table(rows, schema=task.schema))
                progress.written += len(rows["image"])
                bad += sum(error is not None for error in rows["error"])
    except Interrupted as stop:
        name = signal.Signals(stop.number).name
        progress.written = sum(len(job.rows(part)) for part in missing if part_path(options.out, part).exists())
        way_on = f"{progress.written_text()} are in {options.out}; go on with {command(task.command, *words)}"
        raise Interrupted(stop.number, message=f"interrupted by {name}: {way_on}") from stop
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        advice = "the memory may be too small: try fewer --workers"
        raise UserError(f"a process that decodes images was killed; {advice}; what is complete stays") from error
    _report(options, progress, bad, kept)
    return 0


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be done.

    Attributes:
        make: builds the task.
        task: one that is built.
        source: the pictures.
        missing: parts that are not there.
    """

    make: Callable[[], Task]
    task: Task
    source: PictureSource
    missing: Sequence[int]


def _tables(job: Job, work: _Work, options: argparse.Namespace, progress: JobProgress) -> Iterator[tuple[int, Columns]]:
    """The rows of each missing part."""

    def batches() -> Iterator[range]:
        for part in work.missing:
            yield from job.batches(part)

    with _results(work, batches, options) as results:
        for part in work.missing:
            rows: Columns = {name: [] for name in work.task.schema.names}
            for _ in job.batches(part):
                found = next(results)
                _check(found, options)
                for name, values in found.items():
                    rows[name] += values
                progress.advance(len(found["image"]))
            yield part, rows


@contextmanager
def _results(
    work: _Work, batches: Callable[[], Iterator[range]], options: argparse.Namespace
) -> Generator[Iterator[Columns], None, None]:
    """The columns of each batch, from the engine that is asked for."""
    if options.engine == "ray" and work.missing:
        from commands.jobs.on_ray import ray_results

        with ray_results(work.make, work.task, work.source, batches, options) as results:
            yield results
        return
    # a process that has nothing to do costs a tenth of a second
    workers = sum(1 for _ in zip(range(options.workers), batches(), strict=False))
    with decoding(work.source, batches, work.task.model.preparation, workers) as decoded:
        yield (work.task(batch) for batch in decoded)


def _check(found: Columns, options: argparse.Namespace) -> None:
    """Fails on the first picture that cannot be decoded unless such are skipped."""
    for name, error in zip(found["image"], found["error"], strict=True):
        if error is None:
            continue
        if options.on_bad_image == "error":
            raise UserError(f"{name}: {error}; --on-bad-image skip gives it a row with this reason and goes on")


def _write_sidecars(folder: Path, task: Task, rows: Mapping[str, Sequence[Any]]) -> int:
    """Writes a text file for each picture that has none; returns how many had one with other content."""
    kept = 0
    for values in zip(*rows.values(), strict=True):
        row = dict(zip(rows, values, strict=True))
        if row["error"] is not None:
            continue
        path = sidecar_path(folder, row["image"])
        text = task.text(row)
        if not path.exists():
            write_text(path, text)
        elif path.stat().st_size > 1 << 20 or path.read_bytes() != text.encode():
            kept += 1
    return kept


def sidecar_path(folder: Path, name: str) -> Path:
    """Text file of a picture, inside a folder whatever the picture is called.

    >>> sidecar_path(Path("texts"), "../../etc/one.jpg").as_posix()
    'texts/etc/one.txt'
    """
    parts = [part for part in PurePosixPath(name).parts if part.strip("/") not in ("", ".", "..")]
    inside = folder.joinpath(*parts)
    return inside.with_name(inside.name.rpartition(".")[0] or inside.name).with_name(f"{inside.stem}.txt")


def _report(options: argparse.Namespace, progress: JobProgress, bad: int, kept: int) -> None:
    shard = f", part {options.shard}" if options.shard else ""
    say(f"{progress.what}: {progress.written_text()} in {options.out}{shard}, {progress.written:,} of them now")
    if bad:
        say(f"{bad:,} images cannot be decoded: their rows have the reason in the column error", err=True)
    if kept:
        say(f"{kept:,} text files were there with other content and stay as they were", err=True)
    say(f"when all parts are there: {command('merge', options.out, '--out', f'{options.out}.parquet')}")
