import json
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image

from core.errors import DataError
from datamodules.hub_captions import HubCaptions

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")
    datasets.disable_progress_bars()


@pytest.fixture
def pictures(tmp_path):
    """Paths of twelve different pictures, one of them grey."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        colour = (number * 20, 0, 0)
        picture = Image.new("RGB", (6, 4), colour) if number else Image.new("L", (6, 4), 7)
        picture.save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(12)]


def table(pictures, **columns):
    data = datasets.Dataset.from_dict({"image": [str(path) for path in pictures], **columns})
    return data.cast_column("image", datasets.Image())


def sizes(data):
    return [len(data.examples(split)) for split in SPLITS]


def assert_same_pictures(data, pictures):
    """Every row's picture is the one whose number its caption says."""
    seen = set()
    for split in SPLITS:
        for example in data.examples(split):
            number = int(example.captions[0].rsplit(" ", 1)[-1])
            seen.add(number)
            expected = Image.open(pictures[number]).convert("RGB")
            assert np.array_equal(data.open_image(example), expected)
    assert seen == set(range(len(pictures)))


CAPTION_SHAPES = {
    "string": lambda number: f" picture  {number}",
    "strings": lambda number: [f"picture {number}", "another"],
    "objects": lambda number: [{"raw": f"picture {number}", "sentid": number}, {"raw": "another", "sentid": 99}],
}


@pytest.mark.parametrize("shape", CAPTION_SHAPES)
def test_parquet_with_embedded_pictures(tmp_path, pictures, shape):
    captions = [CAPTION_SHAPES[shape](number) for number in range(12)]
    table(pictures, captions=captions).to_parquet(tmp_path / "data.parquet")
    data = HubCaptions(root=str(tmp_path / "data.parquet"))
    assert sizes(data) == [10, 1, 1]
    assert_same_pictures(data, pictures)
    number = 1 if shape == "string" else 2
    assert all(len(example.captions) == number for split in SPLITS for example in data.examples(split))


def test_image_folder_with_metadata(tmp_path, pictures):
    for split, chosen in (("train", pictures[:9]), ("test", pictures[9:])):
        (tmp_path / "folder" / split).mkdir(parents=True)
        rows = []
        for path in chosen:
            path.rename(tmp_path / "folder" / split / path.name)
            rows.append({"file_name": path.name, "text": f"picture {path.stem}"})
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / "folder" / split / "metadata.jsonl").write_text(lines)
    data = HubCaptions(root=str(tmp_path / "folder"), val_fraction=0.25)
    assert sizes(data) == [7, 2, 3]
    folder = tmp_path / "folder"
    assert_same_pictures(data, [next(folder.rglob(path.name)) for path in pictures])


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_text_files_with_paths_and_rows_of_the_same_image(tmp_path, pictures, suffix):
    rows = [
        {"image": f"pictures/{number}.png", "caption": f"{word} {number}", "image_id": number + 100}
        for number in range(12)
        for word in ("picture", "again")
    ]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        path.write_text("\n".join(["image,caption,image_id", *[",".join(map(str, row.values())) for row in rows]]))
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    data = HubCaptions(root=str(path))
    assert sizes(data) == [10, 1, 1]
    assert_same_pictures(data, pictures)
    for split in SPLITS:
        for example in data.examples(split):
            assert example.captions == (f"picture {example.image_id - 100}", f"again {example.image_id - 100}")


def test_own_splits_columns_and_ids_by_argument(tmp_path, pictures):
    columns = {"words": [f"picture {number}" for number in range(12)], "key": [f"k{number}" for number in range(12)]}
    whole = table(pictures, **columns)
    parts = {"a": whole.select(range(6)), "b": whole.select(range(6, 10)), "c": whole.select(range(10, 12))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    arguments = {"train_split": "a", "val_split": "b", "test_split": "c", "caption_column": "words", "id_column": "key"}
    data = HubCaptions(root=str(tmp_path / "saved"), **arguments)
    assert sizes(data) == [6, 4, 2]
    assert data.examples("val")[0].image_id == "k6"
    assert_same_pictures(data, pictures)
    again = pickle.loads(pickle.dumps(data))  # as a spawned worker gets it
    assert np.array_equal(again.open_image(data.examples("val")[1]), data.open_image(data.examples("val")[1]))
    with pytest.raises(DataError, match=r"no split 'train' \(it has a, b, c\); set train_split"):
        HubCaptions(root=str(tmp_path / "saved")).examples("train")
    with pytest.raises(
        DataError, match=r"no column for the caption \(columns: image, words, key\); set caption_column"
    ):
        HubCaptions(root=str(tmp_path / "saved"), train_split="a").examples("train")


def test_reading_captions_decodes_no_picture_and_bad_rows_are_named(tmp_path, pictures):
    broken = [b"broken", *[path.read_bytes() for path in pictures[1:]]]
    data = datasets.Dataset.from_dict({"image": broken, "caption": [f"picture {number}" for number in range(12)]})
    data.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data.parquet")
    arguments = {"val_fraction": 0.0, "test_fraction": 0.0}
    data = HubCaptions(root=str(tmp_path / "data.parquet"), **arguments)
    assert len(data.examples("train")) == 12
    with pytest.raises(DataError, match=r"data\.parquet, split train, row 0: image cannot be decoded"):
        data.open_image(data.examples("train")[0])
    skipping = HubCaptions(root=str(tmp_path / "data.parquet"), on_bad_image="skip", **arguments)
    assert [example.captions for example in skipping.examples("train")] == [
        (f"picture {number}",) for number in range(1, 12)
    ]


@pytest.mark.parametrize(
    ("caption", "message"), [("  ", "row 1: the caption is empty"), (None, "row 1: column 'caption' is None")]
)
def test_bad_captions_name_the_row(tmp_path, pictures, caption, message):
    table(pictures[:2], caption=["fine", caption]).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError, match=message):
        HubCaptions(root=str(tmp_path / "data.parquet")).examples("train")


def test_what_cannot_be_loaded_is_one_line_with_ways_out(tmp_path):
    with pytest.raises(DataError, match="root is empty"):
        HubCaptions().examples("train")
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        HubCaptions(root=str(tmp_path / "gone.parquet")).examples("train")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    for source in (tmp_path / "broken.parquet", "nobody/nothing"):
        with pytest.raises(DataError, match=r"data set cannot be loaded \(.*or give a local Parquet") as error:
            HubCaptions(root=str(source)).examples("train")
        assert "\n" not in str(error.value)
