import logging

import pytest
from PIL import Image

from core.errors import DataError
from datamodules.flickr8k import Flickr8k

SPLITS = {"train": (454, 6000), "val": (66, 1000), "test": (125, 1000)}
LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}


@pytest.fixture
def flickr(data_root):
    return Flickr8k(root=str(data_root / "flickr8k"), allow_missing=True)


def write(root, names, tokens, images="images", texts="", missing=()):
    """A small data set with the same images in all three lists."""
    for folder in (root / images, root / texts):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in missing:
            Image.new("RGB", (8, 8)).save(root / images / name)
    for path in LISTS.values():
        (root / texts / path).write_text("\n".join(names) + "\n")
    (root / texts / "Flickr8k.token.txt").write_text(tokens)
    return str(root)


# the real files


def test_splits_are_the_official_ones_where_images_exist(flickr, data_root, caplog):
    root = data_root / "flickr8k"
    there = {path.name for path in (root / "images").iterdir()}
    with caplog.at_level(logging.WARNING):
        for split, (count, listed) in SPLITS.items():
            names = (root / LISTS[split]).read_text().split()
            assert [example.image_id for example in flickr.examples(split)] == [n for n in names if n in there]
            assert len(flickr.examples(split)) == count
            assert f"{listed - count} of {listed} images of {LISTS[split]} are not in" in caplog.text


def test_many_missing_images_are_an_error_unless_allowed(data_root):
    with pytest.raises(DataError, match=r"5546 of 6000 images of .* such as .*\.jpg; .* allow_missing") as caught:
        Flickr8k(root=str(data_root / "flickr8k")).examples("train")
    assert "\n" not in str(caught.value)


def test_both_caption_files_say_the_same(flickr, data_root):
    table = Flickr8k(root=str(data_root / "flickr8k"), allow_missing=True, captions_file="captions.txt")
    for split in SPLITS:
        assert flickr.references(split) == table.references(split)
        assert all(len(captions) == 5 for captions in flickr.references(split).values())


def test_captions_with_commas_and_quotes_are_whole(flickr):
    captions = [text for split in SPLITS for texts in flickr.references(split).values() for text in texts]
    assert sum("," in text for text in captions) > 100
    assert any('"' in text for text in captions)


def test_the_file_that_does_not_exist_is_the_one_without_its_number(flickr):
    captions = flickr._read_captions()
    assert "2258277193_586949ec62.jpg.1" not in captions
    texts, _ = captions["2258277193_586949ec62.jpg"]
    assert len(texts) == 5
    assert texts[0] == "people waiting for the subway"
    assert len(captions) == 7742


def test_captions_that_are_no_sentences_are_kept_unless_told_otherwise(flickr, tmp_path):
    captions = [text for texts, _ in flickr._read_captions().values() for text in texts]
    assert len(captions) == 38_710
    assert sum(len(text.split()) <= 2 for text in captions) == 17
    tokens = "a.jpg#0\tA\na.jpg#1\tDog yawns\na.jpg#2\tA dog runs\nb.jpg#0\tA\n"
    root = write(tmp_path, ["a.jpg", "b.jpg"], tokens)
    kept = {"a.jpg": ["A", "Dog yawns", "A dog runs"], "b.jpg": ["A"]}
    longer = Flickr8k(root=root, min_words=3)
    assert Flickr8k(root=root).references("train") == kept
    assert longer.references("train") == {"a.jpg": ["A dog runs"], "b.jpg": ["A"]}
    assert longer.references("test") == kept


def longer_side(path):
    with Image.open(path) as image:
        return max(image.size)


def test_shrunken_pictures_become_tensors_of_one_size(flickr):
    small = [e for e in flickr.examples("val") if longer_side(e.image_name) <= 200]
    assert small
    assert flickr.transform(flickr.open_image(small[0])).shape == (3, 224, 224)


# layouts and errors


def test_the_official_archives_layout(tmp_path):
    tokens = "a.jpg#1\tsecond .\r\na.jpg#0\tA first  one .\r\n"
    root = write(tmp_path, ["a.jpg"], tokens, "Flicker8k_Dataset", "Flickr8k_text")
    (example,) = Flickr8k(root=root).examples("test")
    assert example.captions == ("A first one .", "second .")
    assert example.image_name == f"{root}/Flicker8k_Dataset/a.jpg"


def test_few_missing_images_are_only_counted(tmp_path, caplog):
    names = [f"{index}.jpg" for index in range(100)]
    tokens = "".join(f"{name}#0\ta dog\n" for name in names)
    with caplog.at_level(logging.WARNING):
        assert len(Flickr8k(root=write(tmp_path, names, tokens, missing=names[:1])).examples("train")) == 99
    assert "1 of 100 images" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg#1 two dogs", r"line 2: expected NAME\.jpg#NUMBER, a tab and a caption, found 'a\.jpg#1 two dogs'"),
        ("a.jpg\ttwo dogs", r"line 2: expected NAME\.jpg#NUMBER"),
        ("a.jpg#0\t  ", r"line 2: the caption of a\.jpg is empty"),
        ("b.jpg#0\ta dog", r"trainImages\.txt, a\.jpg: has no caption"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, message):
    root = write(tmp_path, ["a.jpg"], f"x.jpg#0\ta cat\n{line}\n")
    with pytest.raises(DataError, match=message):
        Flickr8k(root=root).examples("train")


def test_what_is_missing_is_told_with_what_is_expected(tmp_path):
    root = write(tmp_path, ["a.jpg"], "a.jpg#0\ta dog\n")
    (tmp_path / LISTS["val"]).unlink()
    with pytest.raises(DataError, match=r"devImages\.txt: no such file with the official split; .* FolderCaptions"):
        Flickr8k(root=root).examples("val")
    (tmp_path / "Flickr8k.token.txt").unlink()
    with pytest.raises(DataError, match=r"Flickr8k\.token\.txt: no such file with captions"):
        Flickr8k(root=root).examples("train")
    with pytest.raises(DataError, match="nowhere: no such folder of images"):
        Flickr8k(root=root, image_folder="nowhere").examples("train")
