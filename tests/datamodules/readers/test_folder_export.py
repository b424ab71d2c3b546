import json

import numpy as np
import pytest
from PIL import Image

import cli
from core.errors import DataError, UserError
from datamodules.folder_captions import FolderCaptions
from datamodules.readers.folder_export import export_folder
from datamodules.scenes import SceneCaptions
from datamodules.ucm_captions import UCMCaptions

COUNTS = {"train": 9, "val": 3, "test": 2}


def scenes(**options):
    return SceneCaptions(**{f"num_{split}": count for split, count in COUNTS.items()}, **options)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def captions_of(data, split):
    return [example.captions for example in data.examples(split)]


@pytest.fixture
def whole(tmp_path):
    export_folder(scenes(), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("split", list(COUNTS))
def test_the_folder_is_the_same_data(whole, split):
    original, copy = scenes(), FolderCaptions(root=str(whole))
    assert captions_of(copy, split) == captions_of(original, split)
    for before, after in zip(original.examples(split), copy.examples(split), strict=True):
        assert np.array_equal(np.asarray(original.open_image(before)), np.asarray(copy.open_image(after)))


def test_a_share_keeps_its_captions_and_the_rest_is_apart(tmp_path):
    export_folder(scenes(), tmp_path, captioned=1 / 3, draw_seed=4)
    left, before = FolderCaptions(root=str(tmp_path)), scenes()
    names = {path.name for path in (tmp_path / "uncaptioned").iterdir()}
    kept = {example.image_name.rpartition("/")[2] for example in left.examples("train")}
    assert (len(kept), len(names)) == (3, 6)
    assert kept | names == {f"{example.image_id}.png" for example in before.examples("train")}
    for split in ("val", "test"):
        assert captions_of(left, split) == captions_of(before, split)
    everything = FolderCaptions(root=str(tmp_path), captions_file="all_captions.jsonl")
    assert captions_of(everything, "train") == captions_of(before, "train")


def test_who_keeps_captions_depends_on_seed_and_id_alone(tmp_path):
    def kept(name, seed, **more):
        export_folder(scenes(**more), tmp_path / name, captioned=0.5, draw_seed=seed)
        return {path.name for path in (tmp_path / name / "images").glob("train*")}

    assert kept("a", 1) == kept("b", 1, scene_seed=5) != kept("c", 2)


def test_an_interrupted_export_goes_on_to_the_same_bytes(whole):
    before = content(whole)
    (whole / "captions.jsonl").unlink()
    gone, left = sorted((whole / "images").iterdir())[:2]
    gone.unlink()
    written = left.stat().st_mtime_ns
    export_folder(scenes(), whole)
    assert content(whole) == before
    assert left.stat().st_mtime_ns == written


def test_a_folder_with_other_captions_is_left_alone(whole):
    before = content(whole)
    with pytest.raises(UserError, match="has other captions: choose another --out"):
        export_folder(scenes(scene_seed=1), whole)
    with pytest.raises(UserError, match="has other captions"):
        export_folder(scenes(), whole, captioned=0.5)
    assert content(whole) == before


def test_labels_of_captions_are_kept(tmp_path):
    original = scenes(feelings=True)
    export_folder(original, tmp_path)
    copy = FolderCaptions(root=str(tmp_path), label_column="label")
    for before, after in zip(original.examples("train"), copy.examples("train"), strict=True):
        named = [[data.condition_names[number] for number in example.conditions]
                 for data, example in ((original, before), (copy, after))]  # fmt: skip
        assert named[0] == named[1]


def test_files_are_copied_and_the_same_name_twice_is_told_apart(tmp_path):
    for folder, colour in {"a": 10, "b": 200}.items():
        (tmp_path / "own" / folder).mkdir(parents=True)
        Image.new("RGB", (70, 40), (colour, 0, 0)).save(tmp_path / "own" / folder / "x.jpg")
    rows = [{"image": f"{folder}/x.jpg", "caption": folder, "split": split}
            for folder, split in (("a", "train"), ("b", "val"))]  # fmt: skip
    Image.new("RGB", (9, 9)).save(tmp_path / "own" / "y.jpg")
    rows.append({"image": "y.jpg", "caption": "y", "split": "test"})
    (tmp_path / "own" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    export_folder(FolderCaptions(root=str(tmp_path / "own")), tmp_path / "copy")
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy" / "images").iterdir()}
    assert sorted(found) == ["1-x.jpg", "x.jpg", "y.jpg"]
    assert found["x.jpg"] == (tmp_path / "own" / "a" / "x.jpg").read_bytes()
    assert found["1-x.jpg"] == (tmp_path / "own" / "b" / "x.jpg").read_bytes()


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_impossible_shares_are_refused(tmp_path, share):
    with pytest.raises(UserError, match=f"captioned is {share:g}: expected more than 0"):
        export_folder(scenes(), tmp_path, captioned=share)


def test_captions_without_images_cannot_be_exported(tmp_path):
    images = [{"filename": f"{place}.tif", "split": split, "sentences": [{"raw": "A plane .", "sentid": place}]}
              for place, split in enumerate(COUNTS)]  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": "UCM", "images": images}))
    with pytest.raises(DataError, match="has captions alone and no image"):
        export_folder(UCMCaptions(root=str(tmp_path), captions_only=True), tmp_path / "out")


def test_the_command_writes_it_and_says_where(tmp_path, capsys):
    flags = [f"--num-{split}={count}" for split, count in COUNTS.items()]
    assert cli.main(["data", "export", "scenes", *flags, "--out", str(tmp_path), "--captioned=.5"]) == 0
    assert "uncaptioned: 5 training images without; all_captions.jsonl" in capsys.readouterr().out
    assert len(FolderCaptions(root=str(tmp_path)).examples("train")) == 4
