"""What the size of COCO costs: 118,287 images and 591,753 captions, made up, with networks that cost nearly nothing.

    python benchmarks/coco_scale.py

makes the annotation files of train2017 and val2017 with captions drawn from a vocabulary, and tiny pictures (hard links
of 64 files), and measures on them

- start: seconds from the shell to the first step of `fit`, with caches from a first run, and the peak of memory;
- epoch: the order of an epoch, going on in the middle of one, and the tokens of all captions;
- features: a store that `data features` computes with a small CNN, and finding it again;
- regions: 36 regions of 16 numbers written and read by the region store (benchmarks/feature_store.py has full width);
- pseudo_labels: `predict` with the writer of pseudo-labels over all captions, a VisualBERT of one layer of 16.

    python benchmarks/coco_scale.py --parts teacher --images 24

measures the published teacher's size (12 layers of 768, 36 regions of 2048) on so many images, for the hours that its
pseudo-labels of COCO would take. One thread; times are those of the clock, in brackets those of the processor. "Memory"
is what belongs to no file (Linux: RssAnon).
"""

import argparse
import itertools
import json
import logging
import os
import random
import resource
import shutil
import string
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from callbacks.pseudo_labels import PseudoLabelWriter
from datamodules.coco import COCOCaptions
from datamodules.loading.samplers import EpochSampler
from datamodules.socratis import EMOTIONS
from lightning_modules import EmotionLabeller

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VAL = 118_287, 5_000
CAPTIONS = 591_753
_FILES = 64
"""Different pictures; a file system allows some 65,000 links of one."""
_WORDS = 25_000
_PROBE = "CAPTION_COCO_SCALE_PROBE"


class Clock:
    """Time since it was made: that of the clock, and in brackets that of the processor, which others do not share."""

    def __init__(self) -> None:
        self.start, self.used = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Both times."""
        return time.perf_counter() - self.start, time.process_time() - self.used

    def __str__(self) -> str:
        passed, used = self.seconds()
        return f"{passed:.1f} s ({used:.1f} s)"


class FirstStep(Callback):
    """Notes when the first optimiser step is done, for a `fit` that this benchmark starts."""

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Writes the time, the processor time so far and the peak of memory in MB."""
        path = Path(os.environ[_PROBE])
        if not path.exists():
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            path.write_text(f"{time.time()} {time.process_time()} {peak}")


class Watch(Callback):
    """Seconds and memory of every so many batches of a prediction.

    Args:
        every: batches.
    """

    def __init__(self, every: int) -> None:
        self.every, self.clock = every, Clock()
        self.seen: list[tuple[int, str, float]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.clock = Clock()

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Looks at the memory."""
        batch = kwargs.get("batch_idx", args[4] if len(args) > 4 else 0)
        if (batch + 1) % self.every == 0:
            self.seen.append((batch + 1, str(self.clock), memory()))


class Images(COCOCaptions):
    """COCO whose teacher's labels are known, as a checkpoint knows them."""

    label_names = EMOTIONS  # type: ignore[assignment]


def memory() -> float:
    """Memory of this process in MB, without pages of files."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def make(root: Path, images: int) -> None:
    """Writes the data set: annotations, and pictures of 32 x 24."""
    draw = random.Random(0)
    words = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4)][:_WORDS]
    shares = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
    start = 0
    for split, count in (("train2017", images), ("val2017", min(VAL, images))):
        (root / split).mkdir(parents=True)
        names = [f"{number:012d}.jpg" for number in range(start, start + count)]
        for number in range(min(_FILES, count)):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / names[number])
        for number in range(_FILES, count):
            os.link(root / split / names[number % _FILES], root / split / names[number])
        total = round(count * CAPTIONS / TRAIN)
        places = [number % count for number in range(total)]
        texts = (" ".join(draw.choices(words, cum_weights=shares, k=draw.randint(7, 14))) for _ in places)
        document = {
            "images": [
                {"id": start + place, "file_name": name, "height": 24, "width": 32} for place, name in enumerate(names)
            ],
            "annotations": [
                {"id": number, "image_id": start + place, "caption": text}
                for number, (place, text) in enumerate(zip(places, texts, strict=True))
            ],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(document))
        start += count


def data(root: Path, **options: Any) -> Images:
    """The data module that all parts but `start` read it with."""
    return Images(root=str(root), image_size=32, num_workers=0, batch_size=64, **options)


def measure_start(root: Path, images: int) -> None:
    """Times `fit` up to its first step, twice: the first run fills the caches."""
    command = [
        *(sys.executable, str(ROOT / "cli.py"), "fit", "--config", "experiments/offline/dual_transfer.yaml"),
        *("--data.class_path=datamodules.coco.COCOCaptions", f"--data.init_args.root={root}"),
        *("--data.init_args.image_size=32", "--data.init_args.num_workers=0", "--trainer.max_steps=1"),
        *("--data.init_args.batch_size=8", "--trainer.limit_val_batches=0", "--wandb=off"),
        "--trainer.callbacks+=benchmarks.coco_scale.FirstStep",
    ]
    for what in ("cold", "warm"):
        probe, run = root / "probe", root / f"run-{time.time_ns()}"
        probe.unlink(missing_ok=True)
        environment = {
            **os.environ,
            _PROBE: str(probe),
            "CAPTION_CACHE": str(root / "cache"),
            "CAPTION_REPORT": "off",
            "OMP_NUM_THREADS": "1",
        }
        start = time.time()
        subprocess.run([*command, f"--run_dir={run}"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        done, used, peak = map(float, probe.read_text().split())
        clock = f"{done - start:5.1f} s ({used:.1f} s of processor time)"
        print(f"start    {images:7,} images, {what}: first step after {clock}, peak {peak:,.0f} MB", flush=True)


def measure_epoch(root: Path, images: int) -> None:
    """Times what an epoch needs besides pictures and network."""
    before, clock = memory(), Clock()
    module = data(root)
    examples = module.examples("train")
    print(f"read     {len(examples):7,} images: {clock}, {memory() - before:+,.0f} MB")
    sampler, clock = EpochSampler(images, shuffle=True), Clock()
    first, second = list(sampler), [index for index, _ in _from(sampler, 1, 0)]
    passed = f"two orders {clock}"
    assert sorted(second) == list(range(images)), "every image once"
    assert [index for index, _ in first] != second, "in another order"
    clock = Clock()
    rest = [index for index, _ in _from(sampler, 1, images // 2)]
    print(f"epoch    {images:7,} images: {passed}, going on in the middle {clock}")
    assert rest == second[images // 2 :], "where it was"
    before, clock = memory(), Clock()
    tokenizer = module.tokenizer
    built = f"vocabulary of {tokenizer.vocab_size:,} {clock}"
    captions, clock = [text for example in examples for text in example.captions], Clock()
    tokens = sum(len(tokenizer.encode(text)) for text in captions)
    print(f"tokens   {len(captions):7,} captions: {tokens:,} tokens {clock}, {built}, {memory() - before:+,.0f} MB")


def _from(sampler: EpochSampler, epoch: int, place: int) -> EpochSampler:
    """The sampler as a run finds it that goes on."""
    sampler.position = lambda: (epoch, place)
    return sampler


def measure_features(root: Path, images: int) -> None:
    """Times a feature store of all images, and finding it again."""
    for what in ("computed", "found"):
        module = data(root, encoder="small-conv")
        module.examples("train")
        before, clock = memory(), Clock()
        store = module.features("train")
        assert store is not None, "there is an encoder"
        size = f"{store.shape[1]} x {store.shape[2]}"
        print(f"features {len(store):7,} images, {size}, {what}: {clock}, {memory() - before:+,.0f} MB")


def measure_regions(root: Path, images: int) -> None:
    """Times the store of 36 regions, narrow ones: what counts here is the number of images."""
    from feature_store import measure

    for part in (4, 2, 1):
        measure(images // part, root / f"regions{part}", 36, 16)


def measure_pseudo_labels(root: Path, images: int) -> None:
    """Times a prediction over all captions: it may neither grow nor become slower."""
    module = data(root, encoder="small-conv", evaluate_on="train", max_tokens=16)
    sizes = {"layers": 1, "heads": 2, "bert_dim": 16}
    predict(module, sizes, root / "pseudo_labels", "pseudo")


def measure_teacher(root: Path, images: int) -> None:
    """Times the published teacher's size on so many images, and says what COCO would take."""
    rows = np.random.default_rng(0).standard_normal((36, 2048)).astype(np.float32)
    (root / "boxes").mkdir()
    for example in data(root).examples("train"):
        np.savez(root / "boxes" / Path(example.image_name).with_suffix(".npz").name, features=rows)
    module = data(root, regions=str(root / "boxes"), evaluate_on="train", max_tokens=32)
    hours = predict(module, {"layers": 12, "heads": 12, "bert_dim": 768}, root / "teacher", "teacher")
    passed, used = (seconds / images * TRAIN / 3600 for seconds in hours)
    print(f"teacher  all {CAPTIONS:,} captions of COCO: {passed:.0f} h ({used:.0f} h) on this machine, one thread")


def predict(module: Images, sizes: dict[str, int], folder: Path, what: str) -> tuple[float, float]:
    """Predicts with random weights and the writer of pseudo-labels; returns seconds and those of the processor."""
    facts = {"num_labels": len(EMOTIONS), "vocab_size": module.vocab_size, "feature_dim": module.feature_dim}
    model = EmotionLabeller(architecture="visual_bert", **facts, **sizes)
    examples = module.examples("train")
    module.features("train")
    watch = Watch(every=max(1, len(examples) // module.batch_size // 6))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[PseudoLabelWriter(folder=str(folder)), watch],
    )  # fmt: skip
    trainer.predict(model, datamodule=module)
    clock = watch.clock.seconds()
    captions = sum(len(example.captions) for example in examples)
    for batches, passed, used in watch.seen:
        print(f"{what:8} {min(batches * module.batch_size, len(examples)):7,} images: {passed}, {used:,.0f} MB")
    print(f"{what:8} {len(examples):7,} images, {captions:,} captions: {clock[0]:.1f} s ({clock[1]:.1f} s)")
    return clock


PARTS: dict[str, Callable[[Path, int], None]] = {
    "start": measure_start,
    "epoch": measure_epoch,
    "features": measure_features,
    "regions": measure_regions,
    "pseudo_labels": measure_pseudo_labels,
    "teacher": measure_teacher,
}


def main() -> None:
    """Makes the data and measures the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=TRAIN, help="images of train2017")
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=[name for name in PARTS if name != "teacher"]
    )
    parser.add_argument("--folder", type=Path, default=None, help="where the data is made; a temporary folder")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # spinning threads would count as processor time
    root = Path(tempfile.mkdtemp(dir=options.folder))
    os.environ["CAPTION_CACHE"] = str(root / "cache")
    try:
        start = time.perf_counter()
        make(root / "coco", options.images)
        print(f"made     {options.images:7,} images in {time.perf_counter() - start:.0f} s", flush=True)
        for name in options.parts:
            PARTS[name](root / "coco", options.images)
            sys.stdout.flush()
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
