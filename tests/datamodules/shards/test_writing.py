"""Converting a data module loses nothing, can be killed, and gives the same bytes."""

import tarfile
from dataclasses import replace

import pytest

from core.errors import UserError
from datamodules.folder_captions import FolderCaptions
from datamodules.scenes.image import SceneImage
from datamodules.shards import ShardedCaptions
from datamodules.shards.writing import write_shards
from datamodules.sources.find import find_source
from datamodules.ucm_captions import UCMCaptions
from tests.datamodules.shards.made import SPLITS, contents, converted, small_scenes
from tests.tiny import make_folder


def assert_same(data, again, splits=SPLITS):
    for split in splits:
        ours, theirs = data.examples(split), again.examples(split)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            apart = {"image": None, "split": None, "origin": ""}
            assert replace(one, **apart) == replace(other, **apart)
            assert other.image.open() == one.image.open()
        assert again.scenes(split) == data.scenes(split)
        assert again.references(split) == data.references(split)
    assert (again.label_names, again.condition_names) == (data.label_names, data.condition_names)
    assert again.tokenizer.spec() == data.tokenizer.spec()


def test_nothing_is_lost(scenes, shards):
    assert_same(scenes, ShardedCaptions(root=str(shards)))


def test_files_are_taken_as_they_are(tmp_path):
    data = FolderCaptions(root=str(make_folder(tmp_path / "data")))
    folder = converted(data, tmp_path / "shards", splits=("train", "val"))
    again = ShardedCaptions(root=str(folder))
    assert_same(data, again, ("train", "val"))
    assert again.examples("train")[7].image.encoded()[0] == data.examples("train")[7].image.file.read_bytes()


def test_real_pictures_with_classes_and_labels(data_root, tmp_path):
    data = UCMCaptions(root=str(data_root / "ucm"), repeated="once")
    data._examples = {split: data.examples(split)[::40] for split in SPLITS}
    again = ShardedCaptions(root=str(converted(data, tmp_path / "shards", 16)))
    assert_same(data, again)
    assert again.classes("test") == data.classes("test") != {}


def test_the_layout_is_that_of_webdataset(scenes, shards):
    with tarfile.open(shards / "train-000001.tar") as archive:
        names = archive.getnames()
    assert names == [f"{row:09d}{ending}" for row in range(4, 8) for ending in (".png", ".json")]
    source = find_source([str(shards)])  # jobs read them, too
    assert (source.kind, len(source)) == ("tar", 28)


class Killed(BaseException):
    """Ends a conversion as a signal does."""


def test_a_conversion_that_was_killed_goes_on_and_gives_the_same_bytes(scenes, shards, tmp_path, monkeypatch):
    encoded, calls = SceneImage.encoded, []

    def dying(self):
        calls.append(self)
        if len(calls) == 11:  # in the middle of the third archive
            raise Killed
        return encoded(self)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(SceneImage, "encoded", dying)
        with pytest.raises(Killed):
            converted(scenes, folder)
    assert sorted(contents(folder)) == ["train-000000.tar", "train-000001.tar"]
    (folder / "train-000002.tar.tmp17").write_bytes(b"half")  # what a power cut leaves
    there = [there for _, there in write_shards(small_scenes(), folder, SPLITS, 4)]
    assert there == [True, True, *[False] * 6]
    assert contents(folder) == contents(shards)
    assert all(there for _, there in write_shards(small_scenes(), folder, SPLITS, 4))
    assert contents(folder) == contents(shards)


@pytest.mark.parametrize(("options", "images"), [({"scene_seed": 1}, 4), ({}, 5)])
def test_a_folder_of_other_shards_is_refused(shards, tmp_path, options, images):
    folder = converted(small_scenes(), tmp_path / "shards", 4)
    with pytest.raises(UserError, match=r"train-000000\.tar: is no shard of this data"):
        converted(small_scenes(**options), folder, images)
    assert contents(folder) == contents(shards)
