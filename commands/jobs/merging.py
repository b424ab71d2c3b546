"""One table of the parts of a job, and the proof that nothing is missing or there twice."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from commands.jobs.parts import Job, check_part, part_number, read_job
from core.errors import UserError, command
from core.files import replacing
from core.inputs import damage, open_regular
from core.parquet import open_table, read_rows
from core.text import say

_LISTED = 8


def merge(folders: Sequence[Path], out: Path | None, *, verify: bool) -> None:
    """Puts the parts of a job together, one after the other, in bounded memory.

    Args:
        folders: with the parts; of the same job.
        out: table to write, or None.
        verify: read every row even if nothing is written, and say which images are there more than once.

    Raises:
        UserError: they are of different jobs, or parts are missing, damaged or different in two folders.
    """
    job = _same_job(folders)
    files = _files(folders, job)
    digests, bad = [], 0
    schema = _read(files[0]).schema
    with _writing(out, job, schema) as write:
        for path in files:
            table = _read(path, schema)
            write(table)
            bad += table.num_rows - table["error"].null_count
            digests.append(_digests(table) if verify else np.zeros(0, np.uint64))
    where = "" if out is None else f", in {out}"
    say(f"{job.command}: {job.pictures:,} images in {job.parts:,} parts{where}, {bad:,} of them with an error")
    if verify:
        _say_doubled(files, job, np.concatenate(digests))


@contextlib.contextmanager
def _writing(out: Path | None, job: Job, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Function that adds rows to a table, which appears when the block ends well; without a file it does nothing."""
    if out is None:
        yield lambda table: None
        return
    noted = schema.with_metadata({b"job": job.digest.encode(), b"command": job.command.encode()})
    with (
        replacing(out, durable=True) as file,
        pq.ParquetWriter(file, noted, compression="zstd", write_page_checksum=True) as writer,
    ):
        yield lambda table: writer.write_table(table.cast(noted), row_group_size=table.num_rows)


def _same_job(folders: Sequence[Path]) -> Job:
    """The job of all folders."""
    job = read_job(folders[0])
    for folder in folders[1:]:
        if read_job(folder) != job:
            raise UserError(f"'{folder}' holds another job than '{folders[0]}': merge the folders of one job")
    return job


def _files(folders: Sequence[Path], job: Job) -> list[Path]:
    """The file of every part.

    Raises:
        UserError: some are missing, or there twice and different.
    """
    found: dict[int, Path] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob("part-*.parquet")):
            part = part_number(path)
            if part is None or part >= job.parts:
                raise UserError(f"{path}: is no part of this job of {job.parts:,} parts; take it away")
            check_part(path, job, part)
            other = found.setdefault(part, path)
            if other != path and other.read_bytes() != path.read_bytes():
                raise UserError(f"{path} and {other} are the same part and differ: remove the wrong one")
    if gaps := _gaps(sorted(found), job.parts):
        missing = job.parts - len(found)
        rows = job.pictures - sum(len(job.rows(part)) for part in found)
        where, again = ", ".join(map(str, folders)), "as before (without --shard, or with those that have not ended)"
        raise UserError(
            f"{where}: {missing:,} of {job.parts:,} parts are missing ({gaps}), {rows:,} images: call "
            f"{command(job.command)} again {again}"
        )
    return [found[part] for part in range(job.parts)]


def _gaps(numbers: Sequence[int], end: int) -> str:
    """What is missing between 0 and an end, as ranges.

    >>> _gaps([3, 4, 6], 8)
    '0-2, 5, 7'
    """
    pairs = [(before + 1, number - 1) for before, number in pairwise([-1, *numbers, end]) if number > before + 1]
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in pairs[: _LISTED + 1]]
    return ", ".join(shown[:_LISTED]) + (" ..." if len(shown) > _LISTED else "")


def _read(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """All rows of a part, with its checksums compared; in the types of a schema, which may say that none is missing."""
    with damage(path, "a part of a job", "remove it and call the job again"), open_regular(path) as file:
        found = read_rows(open_table(file), file).combine_chunks()
        return found if schema is None else found.cast(schema)


def _digests(table: pa.Table) -> NDArray[np.uint64]:
    """Eight bytes for each name of a picture."""
    names = table["image"].to_pylist()
    digest = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digest, np.uint64)


def _say_doubled(files: Sequence[Path], job: Job, digests: NDArray[np.uint64]) -> None:
    """Says which pictures are there more than once: the source names them so."""
    order = np.argsort(digests, kind="stable")
    again = order[1:][digests[order][1:] == digests[order][:-1]]
    if not len(again):
        say("nothing is missing, and no image is there twice")
        return
    names: list[str] = []
    for row in sorted(again.tolist())[:_LISTED]:
        part, place = divmod(row, job.rows_per_part)
        names.append(str(_read(files[part])["image"][place]))
    say(f"nothing is missing; {len(again):,} images are there again, as the source has them: {', '.join(names)}")
