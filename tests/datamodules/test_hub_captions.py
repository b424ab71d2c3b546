import functools
import http.server
import json
import pickle
import threading
from typing import ClassVar

import datasets
import numpy as np
import pytest
from PIL import Image

from core.cache import default_cache_dir
from core.errors import DataError, UserError
from datamodules.hub_captions import HubCaptions
from datamodules.readers import hub_rows
from datamodules.readers.hub_rows import RemoteImage

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


# COCO as the hub has it: addresses and file names, no images


class Server(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path, pictures):
    """Address of a server with the pictures as the files of train2017 and val2017."""
    for number, path in enumerate(pictures):
        folder = tmp_path / "coco" / ("train2017" if number < 8 else "val2017")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:012d}.png").write_bytes(path.read_bytes())
    Server.asked = []
    handler = functools.partial(Server, directory=str(tmp_path / "coco"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_giant_answer_is_no_image(address, monkeypatch):
    monkeypatch.setattr(hub_rows, "_LARGEST", 20)
    url = f"{address}/train2017/{0:012d}.png"
    with pytest.raises(DataError, match=r"0\.png: more than 20 bytes are no image"):
        RemoteImage(url).open()
    assert not list(default_cache_dir().rglob("*.png*"))


def coco_rows(address):
    """Rows as phiyodr/coco2017 has them."""
    for number in range(12):
        name = f"{'train' if number < 8 else 'val'}2017/{number:012d}.png"
        yield {
            "license": 3, "file_name": name, "coco_url": f"{address}/{name}", "height": 4, "width": 6,
            "flickr_url": "http://flickr.invalid/x.jpg", "image_id": 1000 + number, "ids": [number, 99],
            "captions": [f"picture {number}", f"another of {number}"],
        }  # fmt: skip


def karpathy_rows(address):
    """Rows as yerevann/coco-karpathy has them, with a split of their own."""
    for number in range(12):
        folder, file = "train2017" if number < 8 else "val2017", f"{number:012d}.png"
        yield {
            "filepath": folder, "sentids": [number], "filename": file, "imgid": number, "cocoid": 1000 + number,
            "sentences": [f"picture {number}", f"again {number}"], "url": f"{address}/{folder}/{file}",
        }  # fmt: skip


def write_hub_folder(folder, splits):
    folder.mkdir()
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    files = [{"split": split, "path": f"{split}.parquet"} for split in splits]
    configs = json.dumps([{"config_name": "default", "data_files": files}])
    (folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")
    return str(folder)


def assert_images(data, pictures, splits=("train", "val")):
    for split in splits:
        for example in data.examples(split):
            with Image.open(pictures[example.image_id - 1000]) as expected:
                assert np.array_equal(data.open_image(example), expected.convert("RGB"))


@pytest.mark.parametrize("streaming", [False, True])
def test_coco_of_the_hub_is_fetched_by_address_once(tmp_path, pictures, address, streaming, monkeypatch):
    rows = list(coco_rows(address))
    root = write_hub_folder(tmp_path / "hub", {"train": rows[:8], "validation": rows[8:]})
    monkeypatch.setattr(HubCaptions, "_is_remote", lambda *_: True)  # a hub id is no folder
    options = {"root": root, "streaming": streaming, "test_split": "validation"}
    data = HubCaptions(**options)
    assert sizes(data) == [8, 4, 4]
    assert data.examples("train")[3].captions == ("picture 3", "another of 3")
    assert Server.asked == []
    assert_images(data, pictures)
    assert len(Server.asked) == 12
    assert_images(HubCaptions(**options), pictures)
    assert len(Server.asked) == 12
    assert data.examples("train")[0].image.stamp() == rows[0]["coco_url"]


@pytest.mark.parametrize("streaming", [False, True])
def test_coco_of_the_hub_takes_images_from_a_local_folder(tmp_path, pictures, address, streaming):
    rows = list(coco_rows(address))
    for row in rows[4:]:
        row["file_name"] = row["file_name"].split("/")[1]  # without its folder
    root = write_hub_folder(tmp_path / "hub", {"train": rows[:8], "validation": rows[8:]})
    data = HubCaptions(root=root, image_folder=str(tmp_path / "coco"), streaming=streaming, test_split="validation")
    assert_images(data, pictures)
    assert Server.asked == []
    assert data.examples("val")[0].image_name == str(tmp_path / "coco" / "val2017" / "000000000008.png")


@pytest.mark.parametrize("streaming", [False, True])
def test_karpathy_of_the_hub_with_restval(tmp_path, pictures, address, streaming):
    rows = list(karpathy_rows(address))
    splits = {"train": rows[:5], "restval": rows[5:7], "validation": rows[7:9], "test": rows[9:]}
    root = write_hub_folder(tmp_path / "hub", splits)
    options = {"root": root, "image_folder": str(tmp_path / "coco"), "streaming": streaming}
    assert sizes(HubCaptions(**options)) == [5, 2, 3]
    data = HubCaptions(**options, train_split="train+restval")
    assert [example.image_id for example in data.examples("train")] == list(range(1000, 1007))
    assert_images(data, pictures, SPLITS)
    few = HubCaptions(**options, train_split="train+restval", max_images=2)
    assert [example.image_id for example in few.examples("train")] == [1000, 1001, 1005, 1006]


def test_streamed_images_are_kept_in_the_cache(tmp_path, pictures):
    rows = {"image": [path.read_bytes() for path in pictures], "caption": [f"picture {n}" for n in range(12)]}
    embedded = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    embedded.to_parquet(tmp_path / "data.parquet")
    data = HubCaptions(root=str(tmp_path / "data.parquet"), streaming=True, max_images=9, val_fraction=0.2)
    assert sizes(data) == [6, 2, 1]
    assert_same_pictures(data, pictures[:9])
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 9


def test_an_address_that_gives_no_image_is_one_line(tmp_path, address):
    rows = list(coco_rows(address))[:3]
    rows[0]["coco_url"] += ".gone"
    root = write_hub_folder(tmp_path / "hub", {"train": rows})
    data = HubCaptions(root=root, image_column="coco_url", val_fraction=0, test_fraction=0)
    with pytest.raises(DataError, match=r"gone: image cannot be fetched \(.*set image_folder"):
        data.open_image(data.examples("train")[0])
    with pytest.raises(UserError, match="max_images is 0: expected at least 1"):
        HubCaptions(max_images=0)
