"""COCO, folders of captioned images, splits: what the readers make of files in a folder."""

import csv
import json
import shutil

import pytest
from PIL import Image

from core.errors import DataError, UserError
from datamodules.coco import COCOCaptions
from datamodules.folder_captions import FolderCaptions
from datamodules.splitting.splits import assign_splits, seeded_order

SPLITS = ("train", "val", "test")


def make_images(folder, names, size=(8, 6)):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (index * 5 % 256, index, 0)).save(folder / name)


def write_csv(path, rows, header=("image", "caption")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def ids(data):
    return {split: [example.image_id for example in data.examples(split)] for split in SPLITS}


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures in sub-folders, two captions each, in rows of their own."""
    names = [f"part{index % 2}/{index}.png" for index in range(20)]
    root = tmp_path / "mine"
    make_images(root, names)
    write_csv(root / "captions.csv", [(name, f"picture {name}, {way}") for name in names for way in ("left", "right")])
    return root


def test_seeded_order_depends_on_keys_and_seed_alone():
    keys = [f"{number}.jpg" for number in range(50)]
    order = [keys[place] for place in seeded_order(keys, 3)]
    again = [keys[::-1][place] for place in seeded_order(keys[::-1], 3)]
    assert order == again
    assert sorted(order) == sorted(keys)
    assert order != [keys[place] for place in seeded_order(keys, 4)]
    fewer = [keys[:40][place] for place in seeded_order(keys[:40], 3)]
    assert fewer == [key for key in order if key in keys[:40]]


@pytest.mark.parametrize("number", [3, 10, 97])
def test_drawn_splits_have_the_fractions_and_do_not_overlap(number):
    splits = assign_splits(list(range(number)), [None] * number, (0.1, 0.2), 0, "x")
    assert splits.count("val") == max(1, round(0.1 * number))
    assert splits.count("test") == max(1, round(0.2 * number))
    assert splits.count("train") >= 1


def test_given_splits_stay_and_only_missing_ones_are_drawn():
    given = ["train"] * 8 + ["restval"] * 2 + ["test"] * 3
    splits = assign_splits(list(range(13)), given, (0.2, 0.5), 0, "x")
    assert splits[10:] == ["test"] * 3
    assert sorted(splits[:10]) == ["train"] * 8 + ["val"] * 2
    assert "val" not in assign_splits(list(range(13)), given, (0.0, 0.5), 0, "x")
    with pytest.raises(DataError, match=r"captions\.csv: 1 of 2 images have no split, such as 1"):
        assign_splits([0, 1], ["train", None], (0.1, 0.1), 0, "captions.csv")
    with pytest.raises(UserError, match=r"val_fraction=0.6 and test_fraction=0.5"):
        assign_splits([0], [None], (0.6, 0.5), 0, "x")


def test_a_folder_with_nothing_but_the_root_given(folder):
    data = FolderCaptions(root=str(folder))
    found = ids(data)
    assert {split: len(names) for split, names in found.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(name for names in found.values() for name in names) == sorted(
        f"part{index % 2}/{index}.png" for index in range(20)
    )
    example = data.examples("train")[0]
    assert example.captions == tuple(f"picture {example.image_id}, {way}" for way in ("left", "right"))
    assert data.open_image(example).size == (8, 6)
    assert "captions.csv, line" in example.origin


def test_splits_are_repeatable_and_follow_the_seed(folder):
    assert ids(FolderCaptions(root=str(folder))) == ids(FolderCaptions(root=str(folder)))
    assert ids(FolderCaptions(root=str(folder))) != ids(FolderCaptions(root=str(folder), split_seed=1))


def test_pictures_in_a_folder_of_their_own_and_with_another_ending(tmp_path):
    make_images(tmp_path / "imgs", ["1.jpg", "2.jpg"])
    make_images(tmp_path / "elsewhere", ["1.tif", "2.tif"])
    write_csv(tmp_path / "my words.csv", [("1.tif", "x", "train"), ("2.tif", "y", "val")], ("file", "text", "split"))
    data = FolderCaptions(root=str(tmp_path), test_fraction=0.0)
    assert [data.examples(split)[0].image_name for split in ("train", "val")] == [
        str(tmp_path / "imgs" / name) for name in ("1.jpg", "2.jpg")
    ]
    with pytest.raises(DataError, match=r"no image in split 'test' \(1 train, 1 val, 0 test\); .*raise test_fraction"):
        data.examples("test")
    data = FolderCaptions(root=str(tmp_path), captions_file="my words.csv", image_folder="elsewhere")
    assert data.examples("train")[0].image_name.endswith("elsewhere/1.tif")
    with pytest.raises(DataError, match="image_folder=nowhere"):
        FolderCaptions(root=str(tmp_path), image_folder="nowhere").examples("train")


def test_one_file_per_split(tmp_path):
    make_images(tmp_path, [f"{number}.png" for number in range(4)])
    for name, numbers in (("train", (0, 1)), ("valid", (2,)), ("test", (3,))):
        write_csv(tmp_path / f"captions_{name}.csv", [(f"{number}.png", "x") for number in numbers])
    data = FolderCaptions(root=str(tmp_path), captions_file="captions_{split}.csv")
    assert ids(data) == {"train": ["0.png", "1.png"], "val": ["2.png"], "test": ["3.png"]}
    write_csv(tmp_path / "captions_test.csv", [("3.png", "x"), ("1.png", "y")])
    with pytest.raises(
        DataError, match=r"captions_test\.csv, line 3 .*1\.png is also in .*captions_train\.csv, line 3"
    ):
        FolderCaptions(root=str(tmp_path), captions_file="captions_{split}.csv").examples("train")
    with pytest.raises(DataError, match=r"words_train\.csv: no such file"):
        FolderCaptions(root=str(tmp_path), captions_file="words_{split}.csv").examples("train")


def test_what_a_folder_may_lack(folder, tmp_path):
    with pytest.raises(DataError, match=r"gone: no such folder; expected a folder with images"):
        FolderCaptions(root=str(tmp_path / "gone")).examples("train")
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        FolderCaptions(root=str(folder), captions_file="absent.csv").examples("train")
    (folder / "captions.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"captions\.csv, captions\.json may all be the caption file; set captions_file"
    ):
        FolderCaptions(root=str(folder)).examples("train")
    make_images(tmp_path / "bare", ["a.png"])
    with pytest.raises(DataError, match=r"cannot tell the caption file \(there: no \.csv.*set captions_file"):
        FolderCaptions(root=str(tmp_path / "bare")).examples("train")


def test_missing_and_broken_pictures_stop_or_are_skipped(folder, caplog):
    data = FolderCaptions(root=str(folder))
    gone, broken = (data.examples("train")[place] for place in (2, 5))
    (folder / str(gone.image_id)).unlink()
    with pytest.raises(DataError, match=f"line .*{gone.image_id}.: no image file .*on_bad_image=skip"):
        FolderCaptions(root=str(folder)).examples("train")
    (folder / str(broken.image_id)).write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=f"{broken.image_id}: image cannot be decoded"):
        data.open_image(broken)
    skipping = FolderCaptions(root=str(folder), on_bad_image="skip")
    kept = [example.image_id for example in skipping.examples("train")]
    assert kept == [example.image_id for example in data.examples("train") if example not in (gone, broken)]
    (message,) = [record.getMessage() for record in caplog.records if "are skipped" in record.getMessage()]
    assert "2 of 16 images are skipped" in message
    assert str(gone.image_id) in message
    assert str(broken.image_id) in message


def test_all_pictures_bad_is_an_error_even_when_skipping(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no usable image in split 'train'"):
        FolderCaptions(root=str(folder), on_bad_image="skip").examples("train")


@pytest.fixture
def coco_root(tmp_path):
    """COCO 2017 in small: three training and two validation pictures."""
    number = 0
    for split, images in (("train2017", (9, 25, 30)), ("val2017", (139, 285))):
        make_images(tmp_path / split, [f"{image:012}.jpg" for image in images])
        annotations = []
        for image in images:
            for text in ("A dog .", "Two  dogs."):
                number += 1
                annotations.append({"id": number, "image_id": image, "caption": text})
        listed = [{"id": image, "file_name": f"{image:012}.jpg"} for image in images]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / f"captions_{split}.json"
        path.write_text(json.dumps({"images": listed, "annotations": annotations}))
    return tmp_path


@pytest.fixture
def karpathy_file(coco_root):
    """Karpathy's split of the same five pictures, named as in 2014."""
    rows = [(9, "train2014", "train"), (25, "val2014", "restval"), (30, "val2014", "val"), (139, "val2014", "test")]
    images = [
        {
            "filepath": folder,
            "filename": f"COCO_{folder}_{number:012}.jpg",
            "cocoid": number,
            "imgid": index,
            "split": split,
            "sentences": [{"raw": f"caption {number}", "sentid": index}],
        }
        for index, (number, folder, split) in enumerate(rows)
    ]
    path = coco_root / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return path


def test_coco_with_its_own_split(coco_root):
    data = COCOCaptions(root=str(coco_root))
    assert ids(data) == {"train": [9, 25, 30], "val": [139, 285], "test": [139, 285]}
    assert data.references("val") == {"139": ["A dog .", "Two dogs."], "285": ["A dog .", "Two dogs."]}


@pytest.mark.parametrize("layout", ["2017", "images/2017", "2014"])
def test_karpathy_split_over_either_set_of_folders(coco_root, karpathy_file, layout):
    if layout == "images/2017":
        (coco_root / "images").mkdir()
        for name in ("train2017", "val2017"):
            (coco_root / name).rename(coco_root / "images" / name)
    if layout == "2014":
        for image in json.loads(karpathy_file.read_text())["images"]:
            make_images(coco_root / image["filepath"], [image["filename"]])
    data = COCOCaptions(root=str(coco_root), karpathy="dataset_coco.json")
    assert ids(data) == {"train": [9, 25], "val": [30], "test": [139]}
    assert ids(COCOCaptions(root=str(coco_root), karpathy=str(karpathy_file), restval=False))["train"] == [9]
    assert all(layout.rsplit("/", 1)[-1] in data.examples(split)[0].image_name for split in SPLITS)
    assert data.open_image(data.examples("test")[0]).size == (8, 6)


def test_a_2014_root_never_falls_back_to_2017_pictures(coco_root, karpathy_file):
    make_images(coco_root / "train2014", ["COCO_train2014_000000000009.jpg"])
    with pytest.raises(DataError, match=r"no image file val2014/COCO_val2014_000000000025\.jpg"):
        COCOCaptions(root=str(coco_root), karpathy="dataset_coco.json").examples("train")


@pytest.mark.parametrize("lacking", ["", "train2017", "annotations/captions_val2017.json"])
def test_coco_says_what_the_root_lacks_and_how_to_get_it(coco_root, lacking):
    path = coco_root / lacking if lacking else coco_root
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=rf"{path}: no such f.*python cli.py data prepare coco --root {coco_root}"):
        ids(COCOCaptions(root=str(coco_root)))


def test_real_coco(data_root):
    data = COCOCaptions(root=str(data_root / "coco_mini"), image_size=64)
    assert {split: len(found) for split, found in ids(data).items()} == {"train": 80, "val": 41, "test": 41}
    picture = data.transform(data.open_image(data.examples("train")[0]))
    assert picture.shape == (3, 64, 64)


def test_real_folders(data_root):
    flickr = FolderCaptions(root=str(data_root / "flickr8k"), captions_file="captions.txt")
    assert {split: len(found) for split, found in ids(flickr).items()} == {"train": 520, "val": 65, "test": 65}
    ucm = FolderCaptions(root=str(data_root / "ucm"))
    assert {split: len(found) for split, found in ids(ucm).items()} == {"train": 1107, "val": 146, "test": 147}
    example = ucm.examples("val")[0]
    assert example.image_name.endswith(f"imgs/{int(example.image_id) + 1}.jpg")
    with pytest.raises(DataError, match=r"sydney/dataset\.json, image 1\.tif: no image file 1\.tif"):
        FolderCaptions(root=str(data_root / "sydney")).examples("train")
