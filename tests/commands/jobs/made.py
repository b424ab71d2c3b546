"""Calling jobs, and looking at what they have written."""

import pyarrow.parquet as pq

import cli


def job(command, runs, source, out, *words):
    """Calls a command with small parts and batches, in this process."""
    run = runs / ("classifier.ckpt" if command == "label" else "captioner.ckpt")
    sources = source if isinstance(source, list) else [source]
    sizes = ["--rows-per-part=4", "--batch-size=3", "--workers=0"]
    return cli.main([command, "--ckpt", str(run), *map(str, sources), "--out", str(out), *sizes, *map(str, words)])


def merged(*folders, to):
    assert cli.main(["merge", *map(str, folders), "--out", str(to)]) == 0
    return to.read_bytes()


def rows(path):
    return pq.read_table(path).to_pylist()


def parts(folder):
    """Contents of all files of a job's folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
