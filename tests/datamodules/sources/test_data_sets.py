"""Data sets of `datasets` as sources: from the hub, of which only what is needed is read, and from the disk."""

from pathlib import Path

import datasets
import huggingface_hub
import pytest

import cli
from core.errors import UserError
from datamodules.sources.find import find_source
from tests.commands.jobs.made import job, make_runs, merged, rows, small_scenes
from tests.datamodules.sources.made import make_folder, make_parquet, picture

NAME = "hf://datasets/somebody/pictures"
CONTENTS = [picture(number) for number in range(11)]
IDS = [f"p{number}" for number in range(11)]


@pytest.fixture
def repository(hub, tmp_path, monkeypatch):
    """A data set on the hub: 9 + 2 pictures in three files, and one of JSON lines."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    huggingface_hub.HfFileSystem.clear_instance_cache()
    folder = hub.root / "datasets" / "somebody" / "pictures"
    (folder / "data").mkdir(parents=True)
    for name, first, last in (("train-0", 0, 5), ("train-1", 5, 9), ("test-0", 9, 11)):
        make_parquet(folder / "data" / f"{name}.parquet", CONTENTS[first:last], IDS[first:last])
    yield folder
    huggingface_hub.HfFileSystem.clear_instance_cache()


def read(source, start=0, stop=None):
    found = source.read(range(start, len(source) if stop is None else stop))
    return {one.name: one.content for one in found}


def test_rows_are_read_from_the_hub_when_they_are_needed(hub, repository):
    source = find_source([NAME])
    assert len(source) == 11
    assert read(source) == dict(zip(IDS, CONTENTS, strict=True))
    assert read(source, 4, 7) == dict(zip(IDS[4:7], CONTENTS[4:7], strict=True))
    assert read(find_source([f"{NAME}@main"], split="test")) == dict(zip(IDS[9:], CONTENTS[9:], strict=True))
    assert source.digest() == find_source([NAME]).digest() != find_source([NAME], split="train").digest()
    asked = [line for line in hub.asked if line.startswith("GET") and ".parquet" in line]
    assert asked, "nothing was downloaded before"


def test_what_is_no_parquet_is_downloaded_first(repository):
    (folder := repository.parent / "lines").mkdir()
    make_folder(folder, ["a.png", "b.png"])
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "key": 7}\n{"file_name": "b.png", "key": 8}\n')
    found = read(find_source(["hf://datasets/somebody/lines"]))
    assert {name: Path(path).read_bytes() for name, path in found.items()} == {"7": CONTENTS[0], "8": CONTENTS[1]}


def saved(folder):
    feature = datasets.Features({"image": datasets.Image(), "x": datasets.Value("int64")})
    parts = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": one, "path": None} for one in own], "x": range(len(own))}, feature
        )
        for name, own in (("train", CONTENTS[:4]), ("test", CONTENTS[4:6]))
    }
    datasets.disable_progress_bars()
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_what_save_to_disk_wrote_is_a_source(tmp_path):
    source = find_source([str(saved(tmp_path / "saved"))])
    names = ["train#0", "train#1", "train#2", "train#3", "test#0", "test#1"]
    assert read(source) == dict(zip(names, CONTENTS[:6], strict=True))
    assert list(read(source, 3, 5)) == ["train#3", "test#0"]
    assert read(find_source([str(tmp_path / "saved" / "test")])) == {"train#0": CONTENTS[4], "train#1": CONTENTS[5]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hf://somebody/pictures", {}, "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/somebody/else", {}, "hf://datasets/somebody/else: data set cannot be loaded"),
        (NAME, {"split": "val"}, "no split 'val' (it has train, test)"),
        (NAME, {"subset": "small"}, "data set cannot be loaded"),
        (f"{NAME}@x/../y z", {}, "expected hf://datasets/OWNER/NAME"),
        ("pictures", {"split": "train"}, "--split is for data sets of the hub"),
    ],
)
def test_what_is_no_data_set_is_said_in_a_line(repository, name, options, message):
    with pytest.raises(UserError) as caught:
        find_source([name], **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_job_over_a_data_set_of_the_hub_can_be_divided(repository, tmp_path):
    """With decoding processes, which read from the hub themselves."""
    scenes = small_scenes()
    runs = make_runs(tmp_path)
    images = [scenes.open_image(example) for example in scenes.examples("test")[:11]]
    for place, image in enumerate(images):
        image.save(tmp_path / f"{place:02d}.png")
    contents = [(tmp_path / f"{place:02d}.png").read_bytes() for place in range(11)]
    for name, first, last in (("train-0", 0, 5), ("train-1", 5, 9), ("test-0", 9, 11)):
        make_parquet(repository / "data" / f"{name}.parquet", contents[first:last], IDS[first:last])
    (tmp_path / "list.txt").write_text("".join(f"{place:02d}.png\n" for place in range(11)))
    for number in (2, 1):
        assert job("caption", runs, NAME, tmp_path / "hub", f"--shard={number}/2", f"--workers={number - 1}") == 0
    assert job("caption", runs, tmp_path / "list.txt", tmp_path / "list") == 0
    merged(tmp_path / "hub", to=tmp_path / "hub.parquet")
    merged(tmp_path / "list", to=tmp_path / "list.parquet")
    found, expected = rows(tmp_path / "hub.parquet"), rows(tmp_path / "list.parquet")
    assert [row["image"] for row in found] == IDS
    assert [row["caption"] for row in found] == [row["caption"] for row in expected]
    assert cli.main(["merge", str(tmp_path / "hub"), "--verify"]) == 0
