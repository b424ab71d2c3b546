import json
import multiprocessing
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import DataError, UserError
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from datamodules.scenes.image import SceneImage
from datamodules.stored_features import files as feature_files
from datamodules.stored_features import store as feature_store
from datamodules.stored_features.files import FeatureStore, RowWriter, write_store
from datamodules.stored_features.store import EncoderSpec, FrozenFeatures, StoreSpec
from networks.encoders.build import build_encoder

COCO = 118_287
SIZE = 16  # small-conv makes 2 x 2 regions of 128 numbers of it
reads_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: reads /proc/self")
forks = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: forks a process that has run torch")


def make_pictures(folder: Path, count: int) -> list[Example]:
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return [
        Example(image_id=index, image=ImageFile(str(folder / f"{index}.png")), captions=(f"picture {index}",))
        for index in range(count)
    ]


@dataclass(frozen=True)
class Watched(ImageFile):
    """A file that calls a function with its number when it is opened."""

    opened: Callable[[int], object]

    def open(self, min_side=0):
        self.opened(int(Path(self.path).stem))
        return ImageFile.open(self, min_side)


def watched(examples: list[Example], opened: Callable[[int], object]) -> list[Example]:
    return [replace(example, image=Watched(example.image.path, opened)) for example in examples]


def read(example: Example) -> Image.Image:
    return example.image.open()


def frozen(cache: Path, workers: int = 0) -> FrozenFeatures:
    return FrozenFeatures(
        encoder=EncoderSpec.of("small-conv", None),
        transform=ImageTransform(size=SIZE),
        output="grid",
        cache_dir=cache,
        num_workers=workers,
    )


def anonymous_memory() -> int:
    """Bytes of this process that are not pages of a file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_what_the_encoder_says_in_half_precision(tmp_path, workers):
    examples = make_pictures(tmp_path / "pictures", 40)
    features = frozen(tmp_path / "cache", workers)
    store = features.store(examples)
    images = torch.stack([features.transform(read(example)) for example in examples])
    with torch.no_grad():
        expected = features.encoder.build().grid(images)
    assert store.shape == (40, 4, 128)
    assert (store[:].float() - expected).abs().max() < 1e-3
    assert store[:].dtype == torch.float16
    assert np.allclose(store.means(), store[:].float().mean(1))


def test_vectors_are_one_region(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 3)
    features = replace(frozen(tmp_path / "cache"), output="vector")
    images = torch.stack([features.transform(read(example)) for example in examples])
    with torch.no_grad():
        expected = features.encoder.build().vector(images)
    store = features.store(examples)
    assert features.shape() == (512, (1, 1))
    assert store.shape == (3, 1, 512)
    assert (store[:, 0].float() - expected).abs().max() < 1e-3


@reads_proc
def test_a_row_is_a_piece_of_the_file_and_no_copy(tmp_path):
    store = frozen(tmp_path / "cache").store(make_pictures(tmp_path / "pictures", 3))
    assert store[2].data_ptr() - store[0].data_ptr() == 2 * 4 * 128 * 2
    assert store[2].untyped_storage().data_ptr() == store[0].untyped_storage().data_ptr()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(store.folder) in line]
    start, end = (int(part, 16) for part in mapped[0].split()[0].split("-"))
    assert start <= store[0].data_ptr() < end
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert torch.equal(again[1], store[1])


def test_a_second_opening_computes_nothing(tmp_path, monkeypatch):
    examples = make_pictures(tmp_path / "pictures", 3)
    first = frozen(tmp_path / "cache").store(examples)

    def refuse(*_):
        raise AssertionError("must not be called")

    monkeypatch.setattr(feature_store, "build_encoder", refuse)
    second = frozen(tmp_path / "cache").store(watched(examples, refuse))
    assert torch.equal(first[:], second[:])
    index = json.loads((second.folder / "index.json").read_text())
    assert index["images"][1].startswith(examples[1].image.path)
    assert index["shape"] == [3, 4, 128]


def test_whatever_the_features_depend_on_changes_the_key(tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(build_encoder("small-conv", None).state_dict(), weights)
    transform = ImageTransform(size=SIZE)
    base = StoreSpec(
        encoder=EncoderSpec.of("small-conv", str(weights)), transform=transform.spec(), output="grid", images=("a", "b")
    )
    others = [
        replace(base, encoder=EncoderSpec.of("timm/resnet18", str(weights))),
        replace(base, encoder=EncoderSpec.of("small-conv", None)),
        replace(base, encoder=EncoderSpec.of("small-conv", "imagenet")),
        replace(base, output="vector"),
        replace(base, images=("b", "a")),
        replace(base, images=("a",)),
        replace(base, images=("ab",)),
        replace(base, images=("a", "b", "")),
    ]
    for change in ({"size": 32}, {"normalization": "clip"}, {"resize": "squash"}, {"interpolation": "bilinear"}):
        others.append(replace(base, transform=replace(transform, **change).spec()))
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights.read_bytes())
    assert replace(base, encoder=EncoderSpec.of("small-conv", str(copy))).key() == base.key()
    torch.save(build_encoder("small-conv", None).state_dict(), weights)  # other numbers in the same place
    others.append(replace(base, encoder=EncoderSpec.of("small-conv", str(weights))))
    keys = [spec.key() for spec in (base, *others)]
    assert len(set(keys)) == len(keys)


def test_a_replaced_or_touched_picture_misses(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 3)
    features = frozen(tmp_path / "cache")
    before = features.store(examples)
    Image.new("RGB", (SIZE, SIZE), "red").save(examples[1].image.path)
    after = features.store(examples)
    assert before.folder != after.folder
    assert not torch.equal(before[1], after[1])
    assert torch.equal(before[2], after[2])
    os.utime(examples[2].image.path, ns=(1, 1))
    assert features.store(examples).folder not in (before.folder, after.folder)


def test_stores_of_the_version_before_are_found(tmp_path):
    """The key of a store and the texts that stand for images, as the version before computed them."""
    path = tmp_path / "1.png"
    Image.new("RGB", (2, 2)).save(path)
    status = path.stat()
    assert ImageFile(str(path)).stamp() == f"{path.absolute()}\t{status.st_size}\t{status.st_mtime_ns}"
    scene = '{"objects":[["circle","red","small",9,9,5]],"background":1}'
    assert SceneImage(scene, 64).stamp() == scene
    transform = {
        **ImageTransform(size=32, normalization="imagenet").spec(),
        "min_side": ImageTransform(size=32, normalization="imagenet").min_side,
    }
    spec = StoreSpec(
        encoder=EncoderSpec(name="timm/resnet18", weights="x", digest="0" * 64),
        transform=transform,
        output="grid",
        images=("/data/1.png\t10\t20", scene),
    )
    assert replace(spec, encoder=replace(spec.encoder, name="small-conv")).key() == "bb5fb8fa8ca2c5cade9c921a49b7b2d8"


def test_random_weights_are_always_the_same_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    one, two = (EncoderSpec.of("small-conv", None).build() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


@forks
def test_killed_in_the_middle_it_goes_on_behind_the_last_flush(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 600)
    whole = frozen(tmp_path / "whole").store(examples)

    def deadly(number):
        if number == 560:
            os.kill(os.getpid(), signal.SIGKILL)

    features = frozen(tmp_path / "cache")
    child = multiprocessing.get_context("fork").Process(target=features.store, args=(watched(examples, deadly),))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not (features.cache_dir / whole.folder.name).exists()  # nobody takes it for a finished one
    opened: list[int] = []
    store = features.store(watched(examples, opened.append))
    assert opened == list(range(512, 600))
    assert torch.equal(store[:], whole[:])


@forks
def test_of_two_processes_one_computes_and_both_see_the_finished_store(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 64)
    log = tmp_path / "log"

    def counted(number):
        with log.open("a") as file:
            file.write("x")

    features = frozen(tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=features.store, args=(watched(examples, counted),)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert log.read_text() == "x" * 64


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_in_one_line(tmp_path, workers):
    examples = make_pictures(tmp_path / "pictures", 3)
    Path(examples[1].image.path).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png: image cannot be decoded") as caught:
        frozen(tmp_path / "cache", workers).store(examples)
    assert "\n" not in str(caught.value)


def test_a_missing_picture_is_named_before_anything_is_computed(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such image file \(for record 7\)"):
        frozen(tmp_path / "cache").store([Example(image_id=0, image=ImageFile("gone.png"), origin="record 7")])


def test_a_picture_that_changes_meanwhile_is_an_error_and_leaves_nothing(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 3)

    def changing(number):
        os.utime(examples[0].image.path, ns=(1, 1))

    with pytest.raises(DataError, match="changed while its features were computed"):
        frozen(tmp_path / "cache").store(watched(examples, changing))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_too_little_room_is_told_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(feature_files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"11\.88 GB are needed, 1\.00 GB are free; .*CAPTION_CACHE") as caught:
        RowWriter(tmp_path / "store", (COCO, 49, 1024))
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_meanwhile_is_an_error_in_one_line(tmp_path, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="free some space") as caught:
            write_store(tmp_path / "store", (500, 1, 512), {}, lambda _: iter([np.zeros((250, 1, 512), "f2")] * 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_values_beyond_half_precision_are_refused(tmp_path, monkeypatch):
    encoder = build_encoder("small-conv", None).eval()
    with torch.no_grad():
        encoder.layers[3][1].weight.fill_(1e9)
    monkeypatch.setattr(feature_store, "build_encoder", lambda *_, **__: encoder)
    with pytest.raises(UserError, match=r"'small-conv' gives values up to .* beyond half precision"):
        frozen(tmp_path / "cache").store(make_pictures(tmp_path / "pictures", 2))


def test_a_cut_off_store_says_what_to_do(tmp_path):
    store = frozen(tmp_path / "cache").store(make_pictures(tmp_path / "pictures", 3))
    path = store.folder / "features.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged .* remove the folder"):
        FeatureStore(store.folder)


@reads_proc
def test_coco_size_is_written_in_flat_memory(tmp_path, monkeypatch):
    """As many rows as COCO has images, narrow ones."""

    def batches(start):
        for begin in range(start, COCO, 64):
            size = min(64, COCO - begin)
            yield np.full((size, 1, 2), begin % 1000, dtype=np.float16)
            grown.append(anonymous_memory())

    grown: list[int] = []
    monkeypatch.setattr(feature_files, "FLUSH_ROWS", 8192)  # the disk need not be waited for so often here
    spec = StoreSpec(
        encoder=EncoderSpec(name="small-conv"),
        transform={},
        output="grid",
        images=[f"/pictures/{index:012d}.jpg" for index in range(COCO)],
    )
    assert len(spec.key()) == 32
    store = write_store(tmp_path / "store", (COCO, 1, 2), spec.facts(), batches)
    assert store[COCO - 1].tolist() == [[(COCO - 1) // 64 * 64 % 1000] * 2]
    assert max(grown) - grown[10] < 4e6


@reads_proc
def test_coco_size_is_read_in_flat_memory(tmp_path):
    """A store of 11.9 GB, most of it a hole, read here and there."""
    folder = tmp_path / "store"
    folder.mkdir()
    with (folder / "features.npy").open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (COCO, 49, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for index in (0, COCO // 2, COCO - 1):
            file.seek(start + index * 49 * 1024 * 2)
            file.write(np.full((49, 1024), index % 2000, dtype="<f2").tobytes())
    store = FeatureStore(folder)
    before = anonymous_memory()
    places = torch.randint(COCO, (300,)).tolist()
    assert sum(float(store[place].sum()) for place in places if place not in (0, COCO // 2, COCO - 1)) == 0
    assert [float(store[place][48, 1023]) for place in (0, COCO // 2, COCO - 1)] == [0, 1143, 286]
    assert anonymous_memory() - before < 2e7
