"""Parquet tables that no honest program writes, made by code."""

import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BOMB, ROWS = 1 << 20, 1 << 10
"""Bytes of a value that is there once, and in how many rows it stands."""


def written(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", **options)
    return file.getvalue()


def repeated(value: pa.Array, count: int) -> pa.Array:
    """The same value many times, which the file has once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), value)


def not_text(count: int) -> pa.Array:
    """Bytes that are no UTF-8, in a column of text."""
    buffers = pa.array([b"\xff\xfe"] * count, pa.binary()).buffers()
    return pa.StringArray.from_buffers(count, buffers[1], buffers[2])


def columns_of_another_kind(count: int) -> dict[str, pa.Array]:
    numbers = list(range(count))
    return {
        "nulls": pa.nulls(count),
        "null text": pa.nulls(count, pa.string()),
        "whole numbers": pa.array(numbers),
        "not-a-numbers": pa.array([float("nan")] * count),
        "infinities": pa.array([float("inf")] * count),
        "truth values": pa.array([True] * count),
        "bytes": pa.array([b"\xff\x00"] * count),
        "text that is none": not_text(count),
        "empty text": pa.array([""] * count),
        "text with NULs": pa.array(["x\0y\n\x1b[31m"] * count),
        "paths out": pa.array(["../../../../etc/passwd"] * count),
        "a device": pa.array(["/dev/zero"] * count),
        "lists": pa.array([[n] for n in numbers]),
        "nested lists": pa.array([[[[[[[[n]]]]]]] for n in numbers]),
        "records": pa.array([{"a": n} for n in numbers]),
        "records of numbers": pa.array([{"bytes": n, "path": n} for n in numbers]),
        "records of nothing": pa.array([{"bytes": None, "path": None}] * count),
        "dates": pa.array([(1 << 62) + n for n in numbers], pa.timestamp("us")),
        "decimals": pa.array(numbers).cast(pa.decimal128(38)),
        "maps": pa.array([[("a", n)] for n in numbers], pa.map_(pa.string(), pa.int64())),
    }


def forgeries(table: pa.Table, runs: Any) -> Iterator[tuple[str, bytes]]:
    """Tables like an honest one.

    Args:
        table: the honest one, of texts and numbers.
        runs: an object that would do something if it were unpickled.
    """
    count = table.num_rows
    for place, name in enumerate(table.column_names):
        for kind, values in columns_of_another_kind(count).items():
            changed = table.set_column(place, name, values).replace_schema_metadata(table.schema.metadata)
            yield f"{name} of {kind}", written(changed)
        yield f"no {name}", written(table.drop_columns([name]))
        yield f"{name} twice", written(table.append_column(name, table[name]))
        rows = {one: pa.nulls(ROWS, table.schema.field(one).type) for one in table.column_names}
        rows |= {name: repeated(pa.array(["x" * BOMB]), ROWS), "of some size": np.random.default_rng(0).random(ROWS)}
        yield f"{name} of 1 GB", written(pa.table(rows), store_schema=False)
    yield "no rows", written(table.slice(0, 0))
    yield "no columns", written(table.select([]))
    many = 1 << 20
    yield (
        "many rows",
        written(pa.table({one: pa.nulls(many, table.schema.field(one).type) for one in table.column_names})),
    )
    fields = [field.with_metadata(_unpickled(runs)) for field in table.schema]
    yield "a type that is unpickled", written(table.cast(pa.schema(fields)))
    yield "a schema that is none", written(table.replace_schema_metadata({"ARROW:schema": "x" * 1000}))


def _unpickled(runs: Any) -> dict[str, bytes]:
    return {
        "ARROW:extension:name": b"arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(runs),
    }
