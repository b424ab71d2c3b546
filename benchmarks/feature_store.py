"""Feature store at the size of COCO: time per image and memory while writing, rows per second while reading.

    python benchmarks/feature_store.py --images 118287

writes that many rows of 49 x 1024 (11.9 GB for COCO's) through the store's own writer, with a stand-in for the encoder,
then reads batches of 64 in random order, as training does. "Memory" is what belongs to no file (Linux: RssAnon).
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from datamodules.loading.dataset import stack_features
from datamodules.stored_features.files import Half, write_store
from datamodules.stored_features.store import EncoderSpec, StoreSpec

REGIONS, WIDTH, BATCH = 49, 1024, 64


def memory() -> float:
    """Memory of this process in MB, without pages of files."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def measure(images: int, folder: Path) -> None:
    """Writes and reads one store and prints a line for each."""
    rows = np.random.default_rng(0).standard_normal((BATCH, REGIONS, WIDTH)).astype(np.float16)
    most = 0.0

    def batches(start: int) -> Iterator[Half]:
        nonlocal most
        for begin in range(start, images, BATCH):
            most = max(most, memory())
            yield rows[: images - begin]

    before, start = memory(), time.perf_counter()
    key = StoreSpec(EncoderSpec("stand-in"), {}, "grid", [f"{i:012d}.jpg\t1\t2" for i in range(images)]).key()
    keyed = time.perf_counter() - start
    store = write_store(folder / key, (images, REGIONS, WIDTH), {}, batches)
    seconds = time.perf_counter() - start
    size = images * REGIONS * WIDTH * 2 / 1e9
    print(
        f"write {images:7d} images, {size:5.2f} GB: {seconds:6.1f} s, {1e3 * seconds / images:.3f} ms an image "
        f"(key {keyed:.2f} s), memory {most - before:+.0f} MB"
    )
    before, start, count = memory(), time.perf_counter(), 100
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        places = torch.randint(images, (BATCH,), generator=generator).tolist()
        stack_features([store[place] for place in places])
    seconds = time.perf_counter() - start
    print(
        f"read  {count} random batches of {BATCH}: {1e3 * seconds / count:.1f} ms a batch, {memory() - before:+.0f} MB"
    )


def main() -> None:
    """Measures a quarter, a half and all of the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287, help="rows of the largest store")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are written; a temporary folder")
    options = parser.parse_args()
    for part in (4, 2, 1):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            measure(options.images // part, folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
