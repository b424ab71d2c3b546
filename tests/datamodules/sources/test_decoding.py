"""Decoding in processes gives what decoding here gives, in order, bad pictures included."""

import pytest
import torch

from datamodules.readers.images import open_image
from datamodules.readers.transforms import ImageTransform
from datamodules.sources.decoding import decode_pictures, decoding
from datamodules.sources.find import find_source
from datamodules.stored_features.pictures import InProportion
from tests.datamodules.sources.made import make_folder

PREPARE = ImageTransform(size=8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("pictures"), [f"{number:02d}.png" for number in range(7)])
    (folder / "03.png").write_bytes(b"no picture")
    return find_source([str(folder)])


def batches(size=3, count=7):
    return (range(start, min(count, start + size)) for start in range(0, count, size))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_picture_comes_once_and_in_order(source, workers):
    with decoding(source, batches, PREPARE, workers) as decoded:
        found = list(decoded)
    assert [name for batch in found for name in batch["image"]] == source.names
    assert torch.cat([batch["position"] for batch in found]).tolist() == list(range(7))
    for batch in found:
        for name, error, own in zip(batch["image"], batch["error"], batch["pixels"], strict=True):
            if name == "03.png":
                assert error == "image cannot be decoded (its content is no image format that Pillow knows)"
                assert not own.any()
            else:
                assert error is None
                assert torch.equal(own, PREPARE(open_image(f"{source.base}/{name}", min_side=PREPARE.min_side)))


def test_pictures_of_any_proportions_are_padded(source):
    prepare = InProportion(sides=(10, 40))
    batch = decode_pictures(source, range(7), prepare)
    assert batch["sizes"][3].tolist() == [0, 0]
    for row, (height, width) in enumerate(batch["sizes"].tolist()):
        if row != 3:
            whole = prepare(open_image(f"{source.base}/{source.names[row]}"))
            assert torch.equal(batch["pixels"][row, :, :height, :width], whole)
            assert batch["pixels"][row].sum() == pytest.approx(whole.sum())


def test_a_batch_of_bad_pictures_only_is_a_batch(source):
    batch = decode_pictures(source, range(3, 4), PREPARE)
    assert batch["pixels"].shape == (1, 3, 1, 1)
    assert batch["error"][0]
