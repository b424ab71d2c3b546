"""The folder of a job: what the job is, and its parts, Parquet files with a fixed range of rows each.

A part appears under its name when it is complete, and holds the same bytes whoever writes it, so a job that was killed
or divided goes on by writing what is missing.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from core.files import replacing, write_json
from core.inputs import damage, open_regular, read_object, shown
from core.shards import Shard

FACTS = "job.json"
_SIZES = ("rows_per_part", "batch_size")
_NAME = re.compile(r"part-(\d{6,})\.parquet")
_KEY = b"job"
_MOST = 1 << 48
"""Pictures of a job."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job is. Two with equal facts give the same rows.

    Attributes:
        command: caption, label or tag.
        settings: what its rows depend on besides model and pictures.
        model: digest of the model.
        source: kind of the source and digest of its names.
        pictures: how many there are.
        rows_per_part: pictures of a part.
        batch_size: pictures of a batch; the last digits of a probability may depend on it.
        columns: name and type of each.
    """

    command: str
    settings: Mapping[str, Any]
    model: str
    source: str
    pictures: int
    rows_per_part: int
    batch_size: int
    columns: list[str]

    @property
    def digest(self) -> str:
        """Digest of the facts, noted in every part."""
        text = json.dumps(vars(self), sort_keys=True, ensure_ascii=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.pictures // self.rows_per_part)

    def rows(self, part: int) -> range:
        """Rows of a part."""
        return range(part * self.rows_per_part, min(self.pictures, (part + 1) * self.rows_per_part))

    def parts_of(self, shard: Shard) -> range:
        """The parts of a shard; each begins where a part does."""
        rows = shard.rows(self.pictures, self.rows_per_part)
        return range(rows.start // self.rows_per_part, -(-rows.stop // self.rows_per_part))

    def batches(self, part: int) -> Iterator[range]:
        """Rows of the batches of a part; a picture meets the same others whatever else is done in the same call."""
        rows = self.rows(part)
        for start in range(rows.start, rows.stop, self.batch_size):
            yield range(start, min(start + self.batch_size, rows.stop))


def read_job(folder: Path) -> Job:
    """The job of a folder.

    Raises:
        UserError: it holds none.
    """
    path = folder / FACTS
    if not path.is_file():
        raise UserError(f"'{folder}' holds no job: expected the folder of caption, label or tag with --out")
    way_out = "remove the folder and begin again"
    found = read_object(path, way_out, tuple(Job.__dataclass_fields__))
    with damage(path, "the facts of a job", way_out):
        job = Job(**{name: found[name] for name in Job.__dataclass_fields__})
        _check_kinds(job)
        _ = job.digest
    return job


def _check_kinds(job: Job) -> None:
    """Makes sure that facts from a file are of the right kinds.

    Raises:
        ValueError: one is not.
    """
    numbers = {name: getattr(job, name) for name in ("pictures", *_SIZES)}
    for name, number in numbers.items():
        if type(number) is not int or not 0 < number < _MOST:
            raise ValueError(f"{name} is {shown(number)}")
    if not isinstance(job.settings, dict) or not all(
        isinstance(text, str) for text in (job.command, job.model, job.source)
    ):
        raise ValueError("a value of the wrong kind")
    if not isinstance(job.columns, list) or (job.columns[:1], job.columns[-1:]) != (
        ["image: string"],
        ["error: string"],
    ):
        raise ValueError(f"columns is {shown(job.columns)}")


def open_job(folder: Path, job: Job) -> None:
    """Notes a job in its folder, or makes sure that the folder holds the same one.

    Raises:
        UserError: it holds another one, or files of somebody else.
    """
    if not (folder / FACTS).is_file():
        if any(folder.glob("part-*.parquet")):
            raise UserError(f"'{folder}' has parts of a job and no {FACTS}: give another --out")
        write_json(folder / FACTS, vars(job))
    other = read_job(folder)
    if differences := list(_differences(other, job)):
        raise UserError(
            f"'{folder}' holds a job with {'; '.join(differences[:3])}: give another --out, or remove the folder"
        )


def _differences(old: Job, new: Job) -> Iterator[str]:
    """What differs between two jobs, in words."""
    if old.command != new.command:
        yield f"another command ({old.command}, now {new.command})"
        return
    if old.model != new.model:
        yield "another model"
    if (old.source, old.pictures) != (new.source, new.pictures):
        counts = f"{old.pictures:,} of them, now {new.pictures:,}" if old.pictures != new.pictures else "other names"
        yield f"other pictures ({counts})"
    if old.columns != new.columns:
        yield "other columns"
    pairs: dict[str, tuple[Any, Any]] = {name: (getattr(old, name), getattr(new, name)) for name in _SIZES}
    names = sorted({*old.settings, *new.settings})
    pairs |= {name: (old.settings.get(name), new.settings.get(name)) for name in names}
    for name, (before, now) in pairs.items():
        if before != now:
            yield f"another {name.replace('_', ' ')} ({shown(before)}, now {shown(now)})"


def columns_of(schema: pa.Schema) -> list[str]:
    """Name and type of each column."""
    return [f"{field.name}: {field.type}" for field in schema]


def part_path(folder: Path, part: int) -> Path:
    """File of a part."""
    return folder / f"part-{part:06d}.parquet"


def part_number(path: Path) -> int | None:
    """Number of a part's file; None: it is called otherwise."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def is_done(folder: Path, job: Job, part: int) -> bool:
    """Whether a part is there.

    Raises:
        UserError: its file is damaged, or of another job.
    """
    path = part_path(folder, part)
    if not path.exists():
        return False
    check_part(path, job, part)
    return True


def check_part(path: Path, job: Job, part: int) -> None:
    """Makes sure that a file is a part of a job, by what it says of itself.

    Raises:
        UserError: it is damaged, or of another job.
    """
    with damage(path, "a part of a job", "remove it and call the job again"), open_regular(path) as file:
        found = pq.read_metadata(file)
        noted = (found.metadata or {}).get(_KEY)
        columns = columns_of(found.schema.to_arrow_schema())
    if noted != _note(job, part) or columns != job.columns:
        raise UserError(f"{path}: is no part {part} of this job; remove it and call the job again")
    if found.num_rows != len(job.rows(part)):
        raise UserError(f"{path}: has {found.num_rows:,} rows, expected {len(job.rows(part)):,}; remove it")


def write_part(folder: Path, job: Job, part: int, table: pa.Table) -> None:
    """Writes a part whole, unless somebody else has, and takes away what killed processes left of it.

    Raises:
        OSError: it cannot be written.
    """
    path = part_path(folder, part)
    noted = table.replace_schema_metadata({_KEY: _note(job, part)})
    try:
        with replacing(path, durable=True) as file:
            write_table(noted, file)
    except FileNotFoundError:  # another process has written the same part and cleaned up
        if not path.exists():
            raise
    for left in folder.glob(f"{path.name}.tmp*"):
        with contextlib.suppress(OSError):
            left.unlink()


def write_table(table: pa.Table, file: Any) -> None:
    """Writes a table as one group of rows, with checksums."""
    with pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))


def _note(job: Job, part: int) -> bytes:
    return f"{job.digest} {part}".encode()
