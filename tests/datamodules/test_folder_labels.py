import json

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from core.errors import DataError
from datamodules.folder_labels import FolderLabels

SPLITS = ("train", "val", "test")


def make(root, header, rows, name="labels.csv", pictures=0):
    root.mkdir(exist_ok=True)
    (root / name).write_text("\n".join([header, *rows]) + "\n")
    for index in range(pictures):
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(root / "images" / f"{index}.png")
    return str(root)


def labels(data):
    return {str(example.image_id): example.labels for split in SPLITS for example in data.examples(split)}


@pytest.mark.parametrize(
    ("cell", "separator"),
    [("sad|calm", None), ("sad; calm", None), ('"sad,calm"', None), ("['sad'; 'calm']", "skip"), ("sad/calm", "/")],
)
def test_one_column_with_a_separator(tmp_path, cell, separator):
    if separator == "skip":
        cell, separator = "\"['sad', 'calm']\"", None
    rows = [f"{n}.png,text {n},{cell if n % 2 else 'sad'}" for n in range(12)]
    data = FolderLabels(root=make(tmp_path, "image,caption,emotions", rows, pictures=12), separator=separator)
    assert data.label_names == ("calm", "sad")
    assert data.num_labels == 2
    assert data.describe()["label_names"] == ["calm", "sad"]
    found = labels(data)
    assert {found[f"{n}.png"] for n in range(0, 12, 2)} == {(0.0, 1.0)}
    assert {found[f"{n}.png"] for n in range(1, 12, 2)} == {(1.0, 1.0)}


def test_columns_of_zeros_and_ones_in_their_order_and_soft_targets(tmp_path):
    rows = [f"{n}.png,{n % 2},0.25,a text" for n in range(12)]
    root = make(tmp_path, "file_name,sad,calm,caption", rows, pictures=12)
    data = FolderLabels(root=root, image_size=8)
    assert data.label_names == ("sad", "calm")
    assert labels(data)["3.png"] == (1.0, 0.25)
    assert FolderLabels(root=root, label_columns=["calm"]).label_names == ("calm",)
    data.num_workers = 0
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape[1:] == (3, 8, 8)
    assert batch["labels"].shape[1] == 2


def test_json_lines_and_lists_with_several_captions(tmp_path):
    values = [
        {"id": n, "image": f"{n}.png", "captions": ["one", "two"], "labels": ["calm"] if n % 2 else []}
        for n in range(12)
    ]
    root = make(tmp_path, "", [json.dumps(value) for value in values], "labels.jsonl", pictures=12)
    lines = FolderLabels(root=root)
    (tmp_path / "labels.jsonl").unlink()
    (tmp_path / "labels.json").write_text(json.dumps(values))
    whole = FolderLabels(root=root)
    assert labels(lines) == labels(whole)
    assert labels(lines)["4"] == (0.0,)
    assert lines.examples("train")[0].captions == ("one", "two")


def test_text_without_pictures(tmp_path):
    rows = [f"text number {n},{'happy' if n % 2 else 'sad'}" for n in range(20)]
    data = FolderLabels(root=make(tmp_path, "text,label", rows), num_workers=0)
    batch = next(iter(data.train_dataloader()))
    assert "image" not in batch
    assert batch["labels"].sum(1).tolist() == [1.0] * len(batch["labels"])
    assert cli.main(["data", "check", "folder_labels", "--root", str(tmp_path)]) == 0


def test_several_rows_of_a_picture_add_up_their_captions(tmp_path):
    rows = [f"{n}.png,caption {way} {n},sad" for n in range(6) for way in ("left", "right")]
    data = FolderLabels(root=make(tmp_path, "image,caption,labels", rows, pictures=6))
    assert sum(len(data.examples(split)) for split in SPLITS) == 6
    assert all(len(example.captions) == 2 for example in data.examples("train"))
    (tmp_path / "labels.csv").write_text("image,caption,labels\n0.png,a,sad\n0.png,b,calm\n")
    with pytest.raises(DataError, match=r"line 3 \(0.png\): 0.png has another labels than at .*line 2"):
        FolderLabels(root=str(tmp_path)).examples("train")


def test_own_splits_are_kept_and_missing_ones_drawn_from_train(tmp_path):
    rows = [f"{n}.png,sad,{'test' if n < 5 else 'train'}" for n in range(25)]
    data = FolderLabels(root=make(tmp_path, "image,labels,split", rows, pictures=25), val_fraction=0.2)
    assert [example.image_id for example in data.examples("test")] == [f"{n}.png" for n in range(5)]
    assert len(data.examples("val")) == 4
    assert len(data.examples("train")) == 16


def test_drawn_splits_keep_the_share_of_every_label(tmp_path):
    random = np.random.default_rng(0)
    rows = [f"{n}.png,{int(random.random() < 0.5)},{int(random.random() < 0.1)}" for n in range(300)]
    root = make(tmp_path, "image,often,rarely", rows)
    data = FolderLabels(root=root, captions_only=True, test_fraction=0.2)
    share = {split: torch.tensor([example.labels for example in data.examples(split)]).mean(0) for split in SPLITS}
    for split in ("val", "test"):
        assert (share[split] - share["train"]).abs().max() < 0.05
    folds = [FolderLabels(root=root, captions_only=True, folds=3, fold=fold).examples("test") for fold in range(3)]
    assert len({example.image_id for fold in folds for example in fold}) == 300


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("image,caption", ["0.png,x"], "no column for the labels .*set labels_column"),
        ("words,labels", ["x,sad"], "no column for the image and none for a caption"),
        ("image,labels", ["0.png,"], "no row has a label"),
        ("image,labels", [",sad"], "line 2: the image's name is ''"),
        ("image,labels,caption", ["0.png,sad, "], "line 2: the caption is ' '"),
        ("image,labels,split", ["0.png,sad,holdout"], "split is 'holdout'"),
        ("image,labels", ["0.png,sad,1"], "3 cells, expected 2"),
        ("image,labels", [], "no row; expected a header"),
        ("image,labels", ["gone.png,sad", "0.png,sad", "1.png,sad"], r"line 2 .*no image file gone.png"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, header, rows, message):
    with pytest.raises(DataError, match=message):
        FolderLabels(root=make(tmp_path, header, rows, pictures=2), val_fraction=0, test_fraction=0).examples("train")


def test_wrong_arguments_are_named(tmp_path):
    root = make(tmp_path, "image,sad,labels", ["0.png,1,calm"], pictures=1)
    for wrong, message in (
        ({"label_columns": ["joy"]}, "no column is called 'joy'"),
        ({"label_columns": ["labels"]}, "label 'labels' is 'calm', expected 0, 1"),
        ({"label_names": ["joy"]}, "label 'calm' is not in label_names"),
        ({"caption_column": "words"}, "set caption_column"),
        ({"labels_file": "none.csv"}, "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            FolderLabels(root=root, **wrong).examples("train")
    with pytest.raises(DataError, match="root is empty"):
        FolderLabels().examples("train")
    make(tmp_path, "a", [], "dataset.csv")
    with pytest.raises(DataError, match="cannot tell the file of labels"):
        FolderLabels(root=root).examples("train")


def test_the_real_cleaned_file_is_read_like_any_other(data_root):
    data = FolderLabels(
        root=str(data_root / "socratis"), labels_file="cleaned_data.csv", val_fraction=0, test_fraction=0
    )
    assert data.num_labels == 29
    assert len(data.examples("train")) == 2065
