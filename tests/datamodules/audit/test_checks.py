import pytest
from PIL import Image

from core.errors import DataError
from datamodules.audit.checks import check_data
from datamodules.coco import COCOCaptions
from datamodules.folder_captions import FolderCaptions


@pytest.fixture
def folder(tmp_path):
    """Nine different pictures in a folder of their own; `write` makes the caption file."""
    root = tmp_path / "mine"
    root.mkdir()
    for number in range(9):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(root / f"{number}.png")
    return root


def write(root, rows):
    text = "image,caption,split\n" + "\n".join(f"{number}.png,{caption},{split}" for number, caption, split in rows)
    (root / "captions.csv").write_text(text)


ROWS = [(number, f"picture {number}", split) for number, split in enumerate(["train"] * 5 + ["val"] * 2 + ["test"] * 2)]


def test_a_sound_data_set_has_no_problems(folder):
    write(folder, [*ROWS, (0, "a second one", "train")])
    findings = check_data(FolderCaptions(root=str(folder)))
    assert findings.problems == []
    assert findings.notes == []
    assert findings.splits["train"] == {
        "images": 5, "captions": 6, "fewest_captions": 1, "most_captions": 2, "mean_words": 2.2, "most_words": 3,
    }  # fmt: skip
    assert findings.splits["val"]["images"] == 2


def test_everything_that_is_wrong_is_found_at_once(folder):
    rows = [*ROWS, (1, "", "train"), (2, "x", "holdout"), (77, "nowhere", "train"), (3, "again", "val")]
    write(folder, rows)
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:40])
    (folder / "8.png").write_bytes((folder / "0.png").read_bytes())
    findings = check_data(FolderCaptions(root=str(folder)))
    assert findings.counts() == {"empty": 1, "record": 1, "leak": 2, "missing": 1, "undecodable": 1}
    messages = {problem.kind: problem.message for problem in findings.problems}
    assert "captions.csv, line 11" in messages["empty"]
    assert "captions.csv, line 13 (77.png)" in messages["missing"]
    assert "4.png: image cannot be decoded" in messages["undecodable"]
    assert "(for " in messages["undecodable"]
    assert messages["leak"].endswith("keep it in one of them")
    assert "8.png), split test: the same image is in split train" in messages["leak"]


def test_caption_overlap_and_twins_inside_a_split_are_notes(folder):
    write(folder, [(number, caption if number != 6 else "Picture 0", split) for number, caption, split in ROWS])
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    findings = check_data(FolderCaptions(root=str(folder)))
    assert findings.problems == []
    assert findings.notes == [
        "1 images of train have the same pixels as another one there",
        "1 of 2 captions of val also stand in train, word for word",
    ]


def test_a_file_that_cannot_be_read_is_a_problem_and_no_crash(tmp_path):
    findings = check_data(COCOCaptions(root=str(tmp_path / "gone")))
    assert [problem.kind for problem in findings.problems] == ["file"]
    assert "no such folder" in findings.problems[0].message


def test_real_data(data_root):
    findings = check_data(COCOCaptions(root=str(data_root / "coco_mini"), image_size=32))
    assert findings.problems == []
    assert findings.splits["train"]["most_words"] == 41
    assert any(note.startswith("val and test are the same images") for note in findings.notes)
    findings = check_data(FolderCaptions(root=str(data_root / "ucm"), image_size=32))
    assert findings.problems == []
    # as published with the files: 397 of the 735 test sentences also stand in the train split
    assert "397 of 735 captions of test also stand in train, word for word" in findings.notes
    findings = check_data(FolderCaptions(root=str(data_root / "sydney")))
    assert findings.counts() == {"missing": 613}


def test_training_stops_at_the_first_bad_picture_by_default(folder):
    write(folder, ROWS)
    (folder / "0.png").write_bytes(b"broken")
    data = FolderCaptions(root=str(folder), batch_size=5, num_workers=0, image_size=8)
    with pytest.raises(DataError, match=r"0\.png: image cannot be decoded"):
        next(iter(data.train_dataloader()))
    skipping = FolderCaptions(root=str(folder), batch_size=5, num_workers=0, image_size=8, on_bad_image="skip")
    assert next(iter(skipping.train_dataloader()))["image"].shape == (4, 3, 8, 8)
