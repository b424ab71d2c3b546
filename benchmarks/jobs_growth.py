"""How time and memory of jobs grow with the number of pictures: `label` over tar archives, `merge`, and lists of names.

    python benchmarks/jobs_growth.py --counts 10000 30000 100000 --names 100000 1000000

The pictures are noise of 24 x 24 pixels and the classifier is tiny, so that what a job itself costs is seen. Memory is
the peak of the largest process, a line is fitted through the counts.
"""

import argparse
import io
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PER_ARCHIVE = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    what: str
    pictures: int
    seconds: float
    megabytes: float


def main() -> None:
    """Prints a row for each measurement, and the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--names", type=int, nargs="+", default=[100_000, 1_000_000])
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        # in a process of its own: the peak of a process that this one starts counts from this one's size
        process = multiprocessing.get_context("spawn").Process(target=write_model, args=(folder / "model.ckpt",))
        process.start()
        process.join()
        for count in options.names:
            (folder / "names.txt").write_text("".join(f"some/folder/{number:012d}.jpg\n" for number in range(count)))
            code = "from datamodules.sources.find import find_source as f; import sys; f(sys.argv[1:]).digest()"
            rows.append(measured("list of names", count, ["-c", code, str(folder / "names.txt")]))
        for count in options.counts:
            shards = write_archives(folder / "shards", count)
            words = ["--out", str(folder / f"{count}"), "--batch-size", "64", "--workers", "1", "--device", "cpu"]
            line = ["cli.py", "label", "--ckpt", str(folder / "model.ckpt"), *shards, *words]
            rows.append(measured("label", count, line))
            table = ["--out", str(folder / "table.parquet"), "--verify"]
            rows.append(measured("merge --verify", count, ["cli.py", "merge", str(folder / f"{count}"), *table]))
    for what in dict.fromkeys(row.what for row in rows):
        own = [row for row in rows if row.what == what]
        if len(own) > 1:
            print(f"{what}: {line_of(own)}")


def line_of(rows: list[Row]) -> str:
    """The lines through the measurements, in words."""
    pictures = [row.pictures for row in rows]
    slope, start = np.polyfit(pictures, [row.seconds for row in rows], 1)
    memory, least = np.polyfit(pictures, [row.megabytes for row in rows], 1)
    time_text = f"{start:.1f} s + {slope * 1e3:.3f} ms a picture"
    return f"{time_text}, {least:.0f} MB + {memory * 1e6:.0f} bytes a picture"


def measured(what: str, pictures: int, words: list[str]) -> Row:
    """Runs a command and prints how long it took, and its peak memory."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what} ended with {process.returncode}")
    row = Row(what, pictures, time.perf_counter() - began, usage.ru_maxrss / 1024)
    print(f"{row.what}: {row.pictures:,} pictures, {row.seconds:.1f} s, {row.megabytes:.0f} MB", flush=True)
    return row


def write_model(path: Path) -> None:
    """Writes a tiny classifier that was never trained."""
    import torch

    from datamodules.scenes import SceneCaptions
    from lightning_modules import MultiLabel

    torch.manual_seed(0)
    scenes = SceneCaptions(num_train=4, num_val=2, num_test=2)
    module = MultiLabel(image_encoder="small-conv", hidden_dims=[8], num_labels=scenes.num_labels)
    module.inference = {"method": module.method, **scenes.describe()}
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)


def write_archives(folder: Path, count: int) -> list[str]:
    """Tar archives with so many pictures; those that are there are used again."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(count)
    paths = [folder / f"{start:09d}.tar" for start in range(0, count, PER_ARCHIVE)]
    for path in paths:
        if path.exists():
            continue
        with tarfile.open(path, "w") as archive:
            for number in range(PER_ARCHIVE):
                file = io.BytesIO()
                coarse = Image.fromarray(draw.integers(0, 256, (3, 3, 3), np.uint8))
                coarse.resize((24, 24), Image.Resampling.NEAREST).save(file, "PNG", compress_level=1)
                member = tarfile.TarInfo(f"{int(path.stem) + number:09d}.png")
                member.size = file.tell()
                file.seek(0)
                archive.addfile(member, file)
    return list(map(str, paths))


if __name__ == "__main__":
    main()
