import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from core.errors import DataError, UserError
from datamodules.folder_labels import FolderLabels
from datamodules.loading.dataset import Collate, averaged_ids, stack_features
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example
from datamodules.stored_features.regions import TsvRegions, names_of, open_regions
from networks.encoders.pictures import scaled, scaled_size
from tests.genome import BOXES as GENOME_BOXES
from tests.genome import WIDTH as GENOME_WIDTH
from tests.genome import write_genome

COUNTS = [3, 5, 1, 4, 2, 5, 3, 1, 2, 4]
WIDTH = 6


def features(index):
    return np.random.default_rng(index).normal(size=(COUNTS[index], WIDTH)).astype(np.float32)


def tsv_line(name, array, columns=6):
    boxes = base64.b64encode(np.zeros((len(array), 4), np.float32).tobytes()).decode()
    own = base64.b64encode(array.tobytes()).decode()
    middle = ["640", "480", *["eA=="] * (columns - 6), str(len(array)), boxes, own]
    return "\t".join([name, *middle])


def write_tsv(path, columns=6, names=None):
    names = names or [str(index) for index in range(len(COUNTS))]
    path.write_text("\n".join(tsv_line(name, features(n), columns) for n, name in enumerate(names)) + "\n")
    return path


def write_npz(folder, key="x"):
    folder.mkdir()
    for index in range(len(COUNTS)):
        np.savez_compressed(folder / f"{index}.npz", bbox=np.zeros((COUNTS[index], 4)), **{key: features(index)})
    return folder


def examples(count=10):
    return [
        Example(image_id=f"{index}.jpg", image=None, captions=("text",), labels=(1.0,), origin=f"record {index}")
        for index in range(count)
    ]


@pytest.fixture(params=["tsv", "lxmert", "npz", "feat", "npy"])
def files(tmp_path, request):
    match request.param:
        case "tsv":
            path = write_tsv(tmp_path / "regions.tsv")
        case "lxmert":
            path = write_tsv(tmp_path / "regions.tsv", 10)
        case "npy":
            path = tmp_path / "arrays"
            path.mkdir()
            for index in range(len(COUNTS)):
                np.save(path / f"{index}.npy", features(index))
        case key:
            path = write_npz(tmp_path / "arrays", "x" if key == "npz" else key)
    return open_regions(path.name, tmp_path, tmp_path / "cache")


def test_every_form_gives_each_image_its_own_rows(files, tmp_path):
    store = files.store(examples(), tmp_path / "stores")
    assert store.shape == (10, 5, WIDTH)
    assert files.shape() == (WIDTH, (1, COUNTS[0]))
    for index, count in enumerate(COUNTS):
        assert store.regions(index).shape == (count, WIDTH)
        assert np.allclose(store.regions(index).float(), features(index), atol=2e-3)
    assert np.allclose(store.means(), [features(index).mean(0) for index in range(10)], atol=2e-3)
    some = files.store(examples()[7:1:-2], tmp_path / "stores")
    assert [len(some.regions(place)) for place in range(3)] == [COUNTS[7], COUNTS[5], COUNTS[3]]


def test_batches_have_the_longest_image_of_their_own_and_a_mask(tmp_path):
    rows = [f"{n}.jpg,a text,{n % 2}" for n in range(10)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,caption,odd", *rows]))
    write_tsv(tmp_path / "regions.tsv")
    data = FolderLabels(
        root=str(tmp_path), regions="regions.tsv", batch_size=2, num_workers=0, val_fraction=0, test_fraction=0
    )
    assert (data.feature_dim, data.feature_grid) == (WIDTH, (1, 3))
    assert data.describe()["regions"] == {"files": "regions.tsv", "width": WIDTH}
    seen = 0
    for batch in data._loader("train", data._sampler("train", shuffle=False)):
        assert "image" not in batch
        first = int(batch["image_id"][0].removesuffix(".jpg"))
        counts = [COUNTS[first], COUNTS[first + 1]]
        assert batch["features"].shape == (2, max(counts), WIDTH)
        assert batch["feature_mask"].sum(1).tolist() == counts
        assert (batch["features"][~batch["feature_mask"]] == 0).all()
        assert np.allclose(batch["features"][1, : counts[1]], features(first + 1), atol=2e-3)
        seen += 2
    assert seen == 10


def test_a_detectors_boxes_go_through_the_store_with_their_mask(tmp_path):
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "labels.csv").write_text("\n".join(["image,odd", *(f"{n}.png,{n % 2}" for n in range(3))]))
    encoder = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
    data = FolderLabels(
        root=str(tmp_path), encoder=encoder, image_size=64, num_workers=0, batch_size=3, val_fraction=0, test_fraction=0
    )
    dataset = [data.features("train").regions(index) for index in range(3)]
    batch = Collate(pad_id=None)([{"features": row, "references": [], "image_id": ""} for row in dataset])
    tower = data.feature_source.frozen().encoder.build()
    pictures = torch.stack([data.transform(data.open_image(example)) for example in data.examples("train")])
    expected, mask = tower.regions(pictures)
    most = int(mask.sum(1).max())
    assert data.feature_grid == (1, 36)
    assert torch.equal(batch["feature_mask"], mask[:, :most])
    assert torch.allclose(batch["features"], expected[:, :most], atol=1e-2)


def label_folder(folder, count):
    """Pictures of several sizes with labels."""
    for index in range(count):
        side = 40 + 3 * index
        pixels = np.random.default_rng(index).integers(0, 256, (side, 90 - side // 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "labels.csv").write_text("\n".join(["image,odd", *(f"{n}.png,{n % 2}" for n in range(count))]))
    return {"root": str(folder), "num_workers": 0, "val_fraction": 0, "test_fraction": 0}


def test_whole_pictures_reach_the_visual_genome_detector_in_their_proportions(tmp_path):
    write_genome(tmp_path / "weights")
    options = label_folder(tmp_path, 10)
    data = FolderLabels(**options, encoder="frcnn-vg", encoder_weights=str(tmp_path / "weights"))
    store = data.features("train")
    assert store.shape == (10, GENOME_BOXES, GENOME_WIDTH)
    assert (data.feature_dim, data.feature_grid) == (GENOME_WIDTH, (1, GENOME_BOXES))
    tower = data.feature_source.frozen().encoder.build()
    for index, example in enumerate(data.examples("train")):
        pixels = torch.from_numpy(np.array(data.open_image(example))).permute(2, 0, 1)
        (found,) = tower.detect(
            scaled(pixels, tower.sides).unsqueeze(0), torch.tensor([scaled_size(pixels.shape[1:], tower.sides)])
        )
        assert torch.equal(store.regions(index), found.features.half())
    again = FolderLabels(**options, encoder="frcnn-vg", encoder_weights=str(tmp_path / "weights"), image_size=64)
    assert again.features("train").folder == store.folder, "its scale is its own"
    write_genome(tmp_path / "weights", "model.safetensors")
    other = FolderLabels(**options, encoder="frcnn-vg", encoder_weights=str(tmp_path / "weights"))
    assert other.features("train").folder != store.folder, "other files"


def test_coco_numbers_file_names_and_ids_with_endings_are_found(tmp_path):
    write_tsv(tmp_path / "r.tsv", names=["391895", "000000000042", "news__a", *(f"x{n}" for n in range(7))])
    files = open_regions("r.tsv", tmp_path, tmp_path)
    pictures = [
        Example(image_id=391895, image=ImageFile("train2017/000000391895.jpg")),
        Example(image_id=42, image=ImageFile("train2017/000000000042.jpg")),
        Example(image_id="news__a.jpg"),
    ]
    assert [files._name(example) for example in pictures] == ["391895", "000000000042", "news__a"]
    assert names_of(Example(image_id="0")) == ["0"]


def test_lines_are_found_again_without_reading_the_file_and_a_changed_file_is_read_anew(tmp_path, monkeypatch):
    path = write_tsv(tmp_path / "r.tsv")
    first = TsvRegions(path, tmp_path / "cache").store(examples(), tmp_path / "stores")
    monkeypatch.setattr(TsvRegions, "_scan", lambda self: pytest.fail("the file was read again"))
    assert TsvRegions(path, tmp_path / "cache").store(examples(), tmp_path / "stores").folder == first.folder
    monkeypatch.undo()
    path.write_text("image_id\timage_w\timage_h\tnum_boxes\tboxes\tfeatures\n" + path.read_text())
    other = TsvRegions(path, tmp_path / "cache").store(examples(), tmp_path / "stores")
    assert other.folder != first.folder
    assert torch.equal(other.regions(4), first.regions(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("0\t640\t480", "line 1: 3 cells, expected the 6 columns"),
        ("0\t640\t480\t2\tAAAA\tAAAA", r"image 0\): the features are not base64 of 2 x D float32"),
        ("0\t640\t480\t2\tAAAA\t$$", "not base64"),
        (tsv_line("1", np.ones((1, 2), np.float32)), "no regions of image 0.jpg .*record 0.*extract them"),
        (tsv_line("0", np.full((1, 2), 1e6, np.float32)), "not finite in half precision"),
    ],
)
def test_broken_tsv_files_are_named(tmp_path, text, message):
    (tmp_path / "r.tsv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_regions("r.tsv", tmp_path, tmp_path).store(examples(1), tmp_path / "stores")


def test_broken_arrays_are_named(tmp_path):
    with pytest.raises(DataError, match=r"regions=gone: neither a folder of .npz files nor a TSV"):
        open_regions("gone", tmp_path, tmp_path)
    folder = tmp_path / "arrays"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no .npz file in this folder"):
        open_regions("arrays", tmp_path, tmp_path).shape()
    for content, message in (
        ({"a": np.zeros((2, 3)), "b": np.zeros(2)}, "arrays a, b; expected the features as one of features, feat, x"),
        ({"x": np.zeros(4)}, r"shape \(4,\), expected regions x width"),
        ({"x": np.array([None])}, "not a readable .npz|cannot be read as an .npz file"),
    ):
        np.savez(folder / "0.npz", **content)
        with pytest.raises(DataError, match=message):
            open_regions("arrays", tmp_path, tmp_path).store(examples(1), tmp_path / "stores")
    (folder / "0.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"0\.npz cannot be read as an \.npz file"):
        open_regions("arrays", tmp_path, tmp_path).store(examples(1), tmp_path / "stores")
    np.savez(folder / "0.npz", x=np.zeros((2, 3)))
    np.savez(folder / "1.npz", x=np.zeros((2, 4)))
    with pytest.raises(DataError, match="image 1: 2 regions of width 4, expected at least one of width 3"):
        open_regions("arrays", tmp_path, tmp_path).store(examples(2), tmp_path / "stores")


def test_data_check_names_images_without_regions(tmp_path, capsys):
    rows = [f"{n}.jpg,a text {n},{n % 2}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,caption,odd", *rows]))
    write_tsv(tmp_path / "regions.tsv")  # of ten images
    assert cli.main(["data", "check", "folder_labels", "--root", str(tmp_path), "--regions", "regions.tsv"]) == 1
    out = capsys.readouterr().out
    assert "note: regions: width 6, 10 of 12 images" in out
    assert "no regions of image 11.jpg (looked for 11.jpg, 11;" in out
    assert out.rstrip().endswith("2 problems (2 missing)")


def test_regions_beside_an_encoder_are_refused(tmp_path):
    with pytest.raises(UserError, match="region features replace the images"):
        FolderLabels(root=str(tmp_path), regions="r.tsv", encoder="small-conv")


def test_averaged_token_ids_are_the_published_defect():
    """As the published code does it: padded to one length, averaged and rounded down, the mask too."""
    captions = [[101, 10, 11, 12, 102], [101, 20, 102], [101, 30, 31, 102]]
    padded = np.zeros((3, 8), int)
    for row, ids in zip(padded, captions, strict=True):
        row[: len(ids)] = ids
    mask = (padded != 0).mean(0).astype(int)
    expected = padded.mean(0).astype(int)[mask == 1].tolist()
    assert averaged_ids(captions) == expected == [101, 20, 48]
    items = [
        {"caption_ids": captions, "references": ["a", "b", "c"], "image_id": "1"},
        {"caption_ids": [[101, 7, 102]], "references": ["d"], "image_id": "2"},
    ]
    batch = Collate(pad_id=0, average_token_ids=True)(items)
    assert batch["caption_ids"].tolist() == [[101, 20, 48], [101, 7, 102]]
    assert batch["image_index"].tolist() == [0, 1]
    assert batch["caption_lengths"].tolist() == [3, 3]
    assert json.dumps(batch["references"]) == json.dumps([["a", "b", "c"], ["d"]])


def test_equal_rows_are_stacked_as_they_are():
    rows = [torch.randn(4, 3).half() for _ in range(2)]
    assert torch.equal(stack_features(rows), torch.stack(rows).float())
