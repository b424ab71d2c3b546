"""Labels of captions in a folder: layouts of ArtEmis, SentiCap and FlickrStyle10K, and what is refused."""

import json

import pytest
from PIL import Image

from core.errors import DataError
from datamodules.folder_captions import FolderCaptions


def pictures(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)


def labelled(data, split="train"):
    """Every caption of a split with the name of its label."""
    return {
        (str(example.image_id), text): data.condition_names[label] if label >= 0 else None
        for example in data.examples(split)
        for text, label in zip(example.captions, example.conditions, strict=True)
    }


def fractions():
    return {"val_fraction": 0.0, "test_fraction": 0.0}


def test_artemis(tmp_path):
    """A row for each utterance; style and painting make the name of the file."""
    pictures(tmp_path, ["images/Cubism/a.jpg", "images/Pop_Art/b.jpg"])
    rows = ["art_style,painting,emotion,utterance,repetition"]
    rows += ["Cubism,a,awe,so grand,1", 'Cubism,a,sadness,"alone, grey",1', "Pop_Art,b,awe,bright,1"]
    (tmp_path / "artemis.csv").write_text("\n".join(rows))
    names = {"image_column": "{art_style}/{painting}.jpg", "caption_column": "utterance", "label_column": "emotion"}
    data = FolderCaptions(root=str(tmp_path), captions_file="artemis.csv", **names, **fractions())
    assert data.condition_names == ("awe", "sadness")
    assert labelled(data) == {
        ("Cubism/a.jpg", "so grand"): "awe",
        ("Cubism/a.jpg", "alone, grey"): "sadness",
        ("Pop_Art/b.jpg", "bright"): "awe",
    }
    assert data.open_image(data.examples("train")[0]).size == (32, 32)


def test_senticap(tmp_path):
    """Karpathy's format, in which a sentence has a sentiment of 0 or 1."""
    pictures(tmp_path, ["a.jpg"])
    sentences = [
        {"raw": "A lovely dog.", "tokens": ["a"], "sentiment": 1, "word_sentiment": [1]},
        {"raw": "A filthy dog.", "tokens": ["a"], "sentiment": 0, "word_sentiment": [1]},
        {"raw": "A dog.", "tokens": ["a"]},
    ]
    document = {"images": [{"filename": "a.jpg", "imgid": 7, "split": "train", "sentences": sentences}]}
    (tmp_path / "senticap_dataset.json").write_text(json.dumps(document))
    data = FolderCaptions(root=str(tmp_path), label_column="sentiment", **fractions())
    assert data.condition_names == ("0", "1")
    assert labelled(data) == {("7", "A lovely dog."): "1", ("7", "A filthy dog."): "0", ("7", "A dog."): None}


@pytest.mark.parametrize("lines", [False, True])
def test_flickrstyle(tmp_path, lines):
    """A row for each caption with its style, as a table or as JSON lines; some rows have none."""
    pictures(tmp_path, ["a.jpg", "b.jpg"])
    rows = [
        ("a.jpg", "two dogs chase love", "romantic"),
        ("a.jpg", "dogs go to the gym", "humor"),
        ("b.jpg", "a cat", ""),
    ]
    keys = ("image", "caption", "style")
    text = "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows)
    (tmp_path / "captions.txt").write_text(text if lines else "\n".join(map("\t".join, (keys, *rows))))
    data = FolderCaptions(root=str(tmp_path), label_column="style", **fractions())
    assert data.condition_names == ("humor", "romantic")
    assert [example.conditions for example in data.examples("train")] == [(1, 0), ()]
    assert FolderCaptions(root=str(tmp_path), **fractions()).condition_names == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"label_column": "mood"}, "no column is called 'mood' .*set label_column to one of them"),
        ({"image_column": "{style}/{name}.jpg"}, "no column is called 'name' .*set image_column"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path, names, message):
    pictures(tmp_path, ["a.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption,style\na.jpg,a dog,humor\n")
    with pytest.raises(DataError, match=message):
        FolderCaptions(root=str(tmp_path), **names, **fractions()).examples("train")


def test_a_label_that_is_no_text_is_reported(tmp_path):
    pictures(tmp_path, ["a.jpg"])
    (tmp_path / "captions.jsonl").write_text('{"image": "a.jpg", "caption": "a dog", "style": ["x"]}\n')
    with pytest.raises(DataError, match="the label is \\['x'\\]; expected text or a number"):
        FolderCaptions(root=str(tmp_path), label_column="style", **fractions()).examples("train")
