"""Reading Parquet tables that anybody may have written, in bounded memory.

A few bytes of a table can stand for any number of equal values, which `pyarrow` writes out.
"""

import os
from collections.abc import Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError

_EXPANSION, _SLACK = 1000, 1 << 26
"""Bytes in memory for each byte of a file, and further ones; texts that repeat themselves take less than a fifth."""
_MOST = 1 << 32
"""Bytes in memory of what is read at once."""
_BATCH = 4096
"""Most rows of a step."""


def open_table(file: IO[bytes]) -> pq.ParquetFile:
    """Opens a table; its pages will be compared with their checksums, if they have some.

    Args:
        file: open for reading.

    Raises:
        DataError: it claims more rows than it has bytes, or its groups have others.
        Exception: one of many types, when it is damaged.
    """
    # reading ahead would take memory, and locks that a forked process never gets
    table = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
    facts, size = table.metadata, _size(file)
    groups = [facts.row_group(number).num_rows for number in range(facts.num_row_groups)]
    if facts.num_rows > size or facts.num_rows != sum(groups) or min(groups, default=0) < 0:
        raise DataError(f"claims {facts.num_rows:,} rows in {size:,} bytes and {len(groups):,} groups; get it again")
    return table


def read_rows(
    table: pq.ParquetFile, file: IO[bytes], *, columns: Sequence[str] | None = None, group: int | None = None
) -> pa.Table:
    """Reads a table step by step, so that it is noticed when it becomes too large.

    Args:
        table: one from `open_table`.
        file: of it.
        columns: their names, in the order of the result; None: all.
        group: group of rows; None: all.

    Raises:
        DataError: it takes too much memory, or has fewer rows than it claims.
        Exception: one of many types, when it is damaged.
    """
    most = min(_MOST, _EXPANSION * _size(file) + _SLACK)
    found, taken, expected = [], 0, 0
    for number in range(table.metadata.num_row_groups) if group is None else [group]:
        claimed = table.metadata.row_group(number)
        if claimed.total_byte_size > most:
            raise DataError(f"a group of rows has {claimed.total_byte_size:,} bytes; write it with smaller row groups")
        # no value is longer than its group, unless the file lies
        rows = min(_BATCH, max(1, most // max(1, claimed.total_byte_size)))
        for batch in table.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False):
            taken += batch.nbytes
            if taken > most:
                raise DataError(f"unpacks to more than {most:,} bytes; get it again")
            found.append(batch)
        expected += claimed.num_rows
    whole = pa.Table.from_batches(found) if found else table.schema_arrow.empty_table()
    if whole.num_rows != expected:
        raise DataError(f"has {whole.num_rows:,} rows and claims {expected:,}; get it again")
    whole.validate(full=True)  # text that is not UTF-8
    return whole if columns is None else whole.select(list(columns))


def _size(file: IO[bytes]) -> int:
    """Bytes of a file, which may be somewhere else than on the disk."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size
