from pathlib import Path

import pytest

from datamodules.readers import image_search
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.image_search import find_images
from datamodules.readers.records import Example


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("one/a.jpg", "one/sub/b.jpg", "two/c.jpg", "two/a.jpg", "one/.d.jpg", "one/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "one" / "f.jpg").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = ["a.jpg", "sub/b.jpg", "c.jpg", ".d.jpg", "./a.jpg", "sub//b.jpg", "e.jpg", "f.jpg", "../two/c.jpg", "g.jpg"]


@pytest.mark.parametrize("root", ["absolute", "relative", "here"])
def test_a_look_at_the_folder_gives_what_a_look_for_each_file_does(folder, monkeypatch, root):
    folders = [Path("one"), Path("two")] if root == "relative" else [folder / "one", folder / "two"]
    if root == "here":
        monkeypatch.chdir(folder / "one")
        folders = [Path(), Path("../two")]
    records = [Example(image_id=name, image=ImageFile(name), captions=("a",)) for name in NAMES]
    problems = []
    quick = find_images(records, folders, problems.append)
    assert [problem.kind for problem in problems] == ["missing"] * 2
    monkeypatch.setattr(image_search, "_listed_file", lambda *args: None)
    assert find_images(records, folders, lambda problem: None) == quick
    assert [Path(str(record.image_name)).name for record in quick] == [
        "a.jpg", "b.jpg", "c.jpg", ".d.jpg", "a.jpg", "b.jpg", "e.png", "c.jpg"
    ]  # fmt: skip
