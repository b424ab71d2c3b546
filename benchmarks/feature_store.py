"""Feature store at the size of COCO: time per image and memory while writing, rows per second while reading.

    python benchmarks/feature_store.py --images 118287

writes that many rows of 49 x 1024 (11.9 GB for COCO's; --regions and --width for others) through the store's own
writer, with a stand-in for the encoder, then reads batches of 64 in random order, as training does.

    python benchmarks/feature_store.py --encoder frcnn-vg --images 4

computes the features of pictures of COCO's size (640 x 480, noise) with an encoder instead; with --encoder_weights,
those of a folder. "Memory" is what belongs to no file (Linux: RssAnon). Hours and bytes for COCO's 118,287 training
images are extrapolated.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.loading.dataset import stack_features
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.stored_features import pictures, reading
from datamodules.stored_features.files import Half, write_store
from datamodules.stored_features.store import EncoderSpec, FrozenFeatures, StoreSpec

BATCH = 64
COCO = 118_287


def memory() -> float:
    """Memory of this process in MB, without pages of files."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def measure(images: int, folder: Path, regions: int, width: int) -> None:
    """Writes and reads one store and prints a line for each."""
    rows = np.random.default_rng(0).standard_normal((BATCH, regions, width)).astype(np.float16)
    most = 0.0

    def batches(start: int) -> Iterator[Half]:
        nonlocal most
        for begin in range(start, images, BATCH):
            most = max(most, memory())
            yield rows[: images - begin]

    before, start = memory(), time.perf_counter()
    key = StoreSpec(
        encoder=EncoderSpec(name="stand-in"),
        transform={},
        output="grid",
        images=[f"{i:012d}.jpg\t1\t2" for i in range(images)],
    ).key()
    keyed = time.perf_counter() - start
    store = write_store(folder / key, (images, regions, width), {}, batches)
    seconds = time.perf_counter() - start
    size = images * regions * width * 2 / 1e9
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


def compute(images: int, folder: Path, encoder: EncoderSpec) -> None:
    """Computes one store with an encoder and prints a line."""
    (folder / "pictures").mkdir()
    examples = []
    for index in range(images):
        path = folder / "pictures" / f"{index:012d}.jpg"
        pixels = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(path)
        examples.append(Example(image_id=index, image=ImageFile(str(path))))
    frozen = FrozenFeatures(
        encoder=encoder, transform=ImageTransform(size=224), output="grid", cache_dir=folder / "stores"
    )
    before, start, used = memory(), time.perf_counter(), time.process_time()
    most = before
    stack = pictures.stack_pictures

    def watched(items: Sequence[Tensor]) -> pictures.Pictures:
        nonlocal most
        most = max(most, memory())
        return stack(items)

    reading.stack_pictures = watched
    _, regions, width = frozen.store(examples).shape
    reading.stack_pictures = stack
    seconds, used = time.perf_counter() - start, time.process_time() - used
    print(
        f"compute {images:6d} images: {seconds:7.1f} s, {seconds / images:.3f} s an image ({used / images:.3f} s of "
        f"processor time), memory {most - before:+.0f} MB; COCO: {COCO * seconds / images / 3600:.1f} h "
        f"({COCO * used / images / 3600:.1f} h of processor time), {COCO * regions * width * 2 / 1e9:.2f} GB"
    )


def main() -> None:
    """Measures a quarter, a half and all of the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=COCO, help="rows of the largest store")
    parser.add_argument("--regions", type=int, default=49, help="of an image")
    parser.add_argument("--width", type=int, default=1024, help="of a region")
    parser.add_argument("--encoder", help="compute with this encoder instead of a stand-in")
    parser.add_argument("--encoder_weights", help="its weights")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are written; a temporary folder")
    options = parser.parse_args()
    for part in (4, 2, 1):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            if options.encoder is None:
                measure(options.images // part, folder, options.regions, options.width)
            else:
                compute(options.images // part, folder, EncoderSpec.of(options.encoder, options.encoder_weights))
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
