import os
from pathlib import Path

import pytest
from PIL import Image

from datamodules.readers.bad_images import without_bad_images
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example


@pytest.fixture
def counted(tmp_path):
    """Nine different images, the third broken, and a reader that notes what it opens."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"broken")
    examples = [Example(image_id=number, image=ImageFile(str(folder / f"{number}.png"))) for number in range(9)]
    opened = []

    def read(example):
        opened.append(example.image_id)
        return example.image.open()

    return examples, read, opened


def test_bad_images_are_skipped_counted_listed_and_remembered(counted, tmp_path, caplog):
    examples, read, opened = counted
    good = without_bad_images(examples, read, tmp_path / "cache")
    assert [example.image_id for example in good] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert "1 of 9 images are skipped" in caplog.text
    assert "2.png: image cannot be decoded" in caplog.text
    assert sorted(opened) == list(range(9))
    opened.clear()
    caplog.clear()
    assert without_bad_images(examples, read, tmp_path / "cache") == good
    assert opened == []
    assert "1 of 9 images are skipped" in caplog.text


def test_a_replaced_picture_is_looked_at_again(counted, tmp_path):
    examples, read, opened = counted
    without_bad_images(examples, read, tmp_path / "cache")
    opened.clear()
    Image.new("RGB", (8, 8)).save(examples[2].image.path)
    status = Path(examples[5].image.path).stat()
    os.utime(examples[5].image.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    good = without_bad_images(examples[1:], read, tmp_path / "cache")  # another split of the same folder
    assert sorted(opened) == [2, 5]
    assert good == examples[1:]


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"x": 3}', "3"])
def test_a_broken_cache_is_made_again(counted, tmp_path, content):
    examples, read, opened = counted
    good = without_bad_images(examples, read, tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(content)
    opened.clear()
    assert without_bad_images(examples, read, tmp_path / "cache") == good
    assert len(opened) == 9


def test_a_cache_that_cannot_be_written_is_only_a_warning(counted, tmp_path, caplog):
    examples, read, _ = counted
    (tmp_path / "file").touch()
    assert len(without_bad_images(examples, read, tmp_path / "file")) == 8
    assert "cannot store which images are good" in caplog.text
