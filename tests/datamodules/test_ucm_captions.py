import json
import shutil
from collections import Counter

import pytest
from PIL import Image

from cli import main
from core.errors import DataError, UserError
from datamodules.readers.images import open_image
from datamodules.readers.ucm_names import UCM_CLASSES, ucm_name
from datamodules.ucm_captions import UCMCaptions
from metrics.baselines.rows import BASELINES, NEAREST, PREDICTED_CLASS, UPPER_BOUNDS

SPLITS = {"train": 1107, "val": 146, "test": 147}


@pytest.fixture(scope="module")
def ucm(data_root):
    return UCMCaptions(root=str(data_root / "ucm"))


@pytest.fixture(scope="module")
def document(data_root):
    return json.loads((data_root / "ucm" / "dataset.json").read_text())


def write(root, images, dataset="UCM", name="dataset.json"):
    """A small data set: (file name, split, captions) each."""
    entries = [
        {
            "filename": file,
            "imgid": index,
            "split": split,
            "sentids": [],
            "sentences": [
                {"raw": text, "tokens": text.rstrip(" .").split(), "imgid": index, "sentid": 10 * index + place}
                for place, text in enumerate(texts)
            ],
        }
        for index, (file, split, texts) in enumerate(images)
    ]
    root.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps({"dataset": dataset, "images": entries}))
    return root


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


# the real files


def test_splits_are_the_data_sets_own(ucm, document):
    for split, count in SPLITS.items():
        listed = [image["imgid"] for image in document["images"] if image["split"] == split]
        assert [example.image_id for example in ucm.examples(split)] == listed
        assert len(listed) == count


def test_pictures_are_found_under_another_ending(ucm, document):
    names = {image["imgid"]: image["filename"] for image in document["images"]}
    for example in ucm.examples("val"):
        assert example.image_name.endswith(f"/imgs/{names[example.image_id].removesuffix('.tif')}.jpg")


def size(path):
    with Image.open(path) as image:
        return image.size


def test_pictures_of_other_sizes_become_tensors_of_one_size(ucm):
    odd = [example for split in SPLITS for example in ucm.examples(split) if size(example.image_name) != (256, 256)]
    assert len(odd) == 28
    for example in odd:
        assert ucm.transform(ucm.open_image(example)).shape == (3, 224, 224)


def test_every_image_has_its_five_captions_whole_and_clean(ucm):
    captions = [text for split in SPLITS for example in ucm.examples(split) for text in example.captions]
    assert len(captions) == 7000
    assert not [text for text in captions if "  " in text or text != text.strip() or text.endswith(".")]
    assert all(len(example.captions) == 5 for example in ucm.examples("train"))


def test_the_two_forms_of_a_sentence_differ_and_tokens_have_fewer_misspellings(ucm, data_root):
    raw = UCMCaptions(root=str(data_root / "ucm"), text="raw")
    pairs = [
        (ours, theirs)
        for split in SPLITS
        for one, other in zip(ucm.examples(split), raw.examples(split), strict=True)
        for ours, theirs in zip(one.captions, other.captions, strict=True)
    ]
    assert sum(ours != theirs for ours, theirs in pairs) == 181
    words = [Counter(word for pair in pairs for word in pair[place].lower().split()) for place in (0, 1)]
    assert (len(words[0]), len(words[1])) == (292, 326)
    assert not {"foasm", "parrallel", "roofss"} & set(words[0])
    assert {"foasm", "parrallel", "roofss"} <= set(words[1])


def test_capitals_are_left_to_the_tokeniser(ucm):
    assert ucm.examples("train")[0].captions[0] == "There is a piece of farmland"
    assert ucm.vocab_size == 286  # of the training captions, special tokens among them
    ids = ucm.tokenizer.encode("There is a piece of farmland")
    assert ucm.tokenizer.decode(ids[1:]) == "there is a piece of farmland"


def test_repeated_captions_are_kept_or_read_once_in_training(ucm, data_root):
    once = UCMCaptions(root=str(data_root / "ucm"), repeated="once")
    kept = {len({text.lower() for text in example.captions}) for example in ucm.examples("train")}
    assert min(kept) < 5
    for example, other in zip(once.examples("train"), ucm.examples("train"), strict=True):
        assert len(example.captions) == len({text.lower() for text in other.captions})
    assert sum(len(e.captions) < 5 for e in once.examples("train")) == 226
    assert once.references("test") == ucm.references("test")


def test_formula_index_and_labels_agree(ucm, data_root):
    """The number formula gives what index.csv says: with the file or without it, classes and labels are the same."""
    rows = [line.split(",") for line in (data_root / "ucm" / "index.csv").read_text().splitlines()[1:]]
    assert all(ucm_name(int(row[0].removesuffix(".tif"))) == row[2] for row in rows)
    classes = ucm.classes("train")
    assert list(classes) == list(ucm.references("train"))
    assert set(classes.values()) == set(UCM_CLASSES)
    by_file = {row[1]: row[3] for row in rows}
    assert all(
        classes[str(e.image_id)] == by_file["imgs/" + e.image_name.rsplit("/", 1)[1]] for e in ucm.examples("train")
    )


def test_multilabels_are_those_of_the_file(ucm):
    totals = Counter(
        name
        for split in SPLITS
        for example in ucm.examples(split)
        for name, value in zip(ucm.label_names, example.labels, strict=True)
        if value
    )
    assert ucm.num_labels == 17
    assert (totals["airplane"], totals["bare-soil"], totals["cars"], totals["water"]) == (67, 474, 588, 136)
    assert ucm.describe()["label_names"] == list(ucm.label_names)


def test_a_folder_per_class_is_read_too(data_root, tmp_path, document):
    """The archive of UC Merced as it is published: Images/agricultural/agricultural00.tif."""
    chosen = [image for image in document["images"] if image["imgid"] % 400 == 7]
    assert chosen
    (tmp_path / "dataset.json").write_text(json.dumps({**document, "images": chosen}))
    shutil.copy(data_root / "ucm" / "multilabels.txt", tmp_path)
    for image in chosen:
        name = ucm_name(int(image["filename"].removesuffix(".tif")))
        path = tmp_path / "Images" / name[:-2] / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        open_image(data_root / "ucm" / "imgs" / image["filename"].replace(".tif", ".jpg")).save(path)
    data = UCMCaptions(root=str(tmp_path))
    examples = data.examples("train")
    assert [example.image_id for example in examples] == [i["imgid"] for i in chosen if i["split"] == "train"]
    assert all(f"/{data.classes('train')[str(example.image_id)]}/" in example.image_name for example in examples)
    assert all(sum(example.labels) >= 1 for example in examples)


def test_the_baselines_of_val_are_in_order(ucm):
    rows = ucm.baselines("val")
    assert list(rows) == [row for row in (*BASELINES, *UPPER_BOUNDS) if row not in (NEAREST, PREDICTED_CLASS)]
    assert ucm.baselines("val") is rows


# Sydney-Captions and RSICD


def test_sydney_without_images_is_an_error_that_names_the_way_out(data_root):
    with pytest.raises(DataError, match=r"none of its 497 images is in .* captions_only") as caught:
        UCMCaptions(root=str(data_root / "sydney")).examples("train")
    assert "\n" not in str(caught.value)


def test_sydney_serves_a_model_of_text(data_root):
    data = UCMCaptions(root=str(data_root / "sydney"), captions_only=True, num_workers=0, batch_size=4)
    assert [len(data.examples(split)) for split in SPLITS] == [497, 58, 58]
    batch = next(iter(data.val_dataloader()))
    assert "image" not in batch
    assert len(batch["caption_lengths"]) == 20
    assert data.label_names == ()
    assert data.classes("train") == {}  # the number formula is UCM's alone
    raw = UCMCaptions(root=str(data_root / "sydney"), captions_only=True, text="raw")
    assert any("industial" in text for example in raw.examples("train") for text in example.captions)
    assert not any("industial" in text for example in data.examples("train") for text in example.captions)


def test_sydneys_image_with_wrong_sentence_ids_has_its_own_captions(data_root):
    path = data_root / "sydney" / "dataset.json"
    image = next(i for i in json.loads(path.read_text())["images"] if i["filename"] == "363.tif")
    assert image["sentids"] != [sentence["sentid"] for sentence in image["sentences"]]
    data = UCMCaptions(root=str(data_root / "sydney"), captions_only=True)
    captions = data.references(image["split"])[str(image["imgid"])]
    assert captions == [" ".join(sentence["tokens"]) for sentence in image["sentences"]]


def test_rsicd_classes_come_from_names_or_lists(tmp_path):
    images = [("airport_1.jpg", "train", ["a b ."]), ("00623.jpg", "train", ["c ."]), ("7.jpg", "train", ["d ."])]
    root = write(tmp_path / "rsicd", images, "RSICD", "dataset_rsicd.json")
    for file, *_ in images:
        picture(root / "RSICD_images" / file)
    (root / "txtclasses_rsicd").mkdir()
    (root / "txtclasses_rsicd" / "viaduct.txt").write_text("00623.jpg\n00624.jpg\n")
    assert UCMCaptions(root=str(root)).classes("train") == {"0": "airport", "1": "viaduct"}


# errors


def test_a_missing_image_is_named_and_can_be_skipped(tmp_path):
    root = write(tmp_path / "data", [("1.tif", "train", ["a ."]), ("2.tif", "train", ["b ."])])
    picture(root / "imgs" / "1.jpg")
    with pytest.raises(DataError, match=r"image 2\.tif: no image file 2\.tif in .*imgs.*on_bad_image=skip"):
        UCMCaptions(root=str(root)).examples("train")
    assert [e.image_id for e in UCMCaptions(root=str(root), on_bad_image="skip").examples("train")] == [0]


def test_broken_label_files_are_named(tmp_path):
    root = write(tmp_path / "data", [("1.tif", "train", ["a ."])])
    picture(root / "imgs" / "1.jpg")
    labels = root / "multilabels.txt"
    labels.write_bytes(b"IMAGE\\LABEL\tcars\ttrees\r\nagricultural00\t0\t2\r\n")
    with pytest.raises(DataError, match=r"line 2 \(agricultural00\): expected 2 times 0 or 1"):
        UCMCaptions(root=str(root)).examples("train")
    labels.write_bytes(b"IMAGE\\LABEL\tcars\ttrees\r\nagricultural01\t0\t1\r\n")
    with pytest.raises(DataError, match="no row for agricultural00"):
        UCMCaptions(root=str(root)).examples("train")
    labels.write_bytes(b"IMAGE\\LABEL\tcars\ttrees\r\nagricultural00\t0\t1\r\n")
    assert UCMCaptions(root=str(root)).examples("train")[0].labels == (0, 1)


@pytest.mark.parametrize("name", ["multilabels.txt", "LandUse_Multilabeled.csv"])
@pytest.mark.parametrize("row", ["IMAGE{0}cars{0}trees", 'IMAGE{0}"cars"{0} trees {0}'])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_label_tables_may_be_text_or_csv(tmp_path, name, row, separator):
    root = write(tmp_path / "data", [("1.tif", "train", ["a ."])])
    picture(root / "imgs" / "1.jpg")
    (root / name).write_text(f"{row.format(separator)}\r\nagricultural00{separator}0{separator}1\r\n\r\n")
    data = UCMCaptions(root=str(root))
    assert data.label_names == ("cars", "trees")
    assert data.examples("train")[0].labels == (0, 1)


def test_missing_annotations_and_splits_are_told(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: no such file; expected"):
        UCMCaptions(root=str(tmp_path)).examples("train")
    root = write(tmp_path / "data", [("1.tif", "train", ["a ."])])
    picture(root / "imgs" / "1.jpg")
    with pytest.raises(DataError, match="no image in split 'test'"):
        UCMCaptions(root=str(root)).examples("test")
    (root / "dataset.json").rename(root / "dataset_a.json")
    shutil.copy(root / "dataset_a.json", root / "dataset_b.json")
    with pytest.raises(DataError, match=r"dataset_a\.json, dataset_b\.json may all be the annotations"):
        UCMCaptions(root=str(root)).examples("train")
    assert len(UCMCaptions(root=str(root), captions_file="dataset_b.json").examples("train")) == 1


def test_captions_alone_contradict_what_needs_images():
    with pytest.raises(UserError, match="captions_only is true with encoder=small-conv"):
        UCMCaptions(captions_only=True, encoder="small-conv")


def test_parts_are_found_or_explained(tmp_path, capsys):
    assert main(["data", "prepare", "ucm_captions", "--root", str(tmp_path), "--list"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2][1].split(".")[0] for line in lines] == ["missing"] * 3
    images = [{"filename": f"{n}.tif", "split": "train", "sentences": [{"raw": "a field"}]} for n in (1, 2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    (tmp_path / "Images" / "agricultural").mkdir(parents=True)
    (tmp_path / "Images" / "agricultural" / "agricultural00.TIF").touch()
    (tmp_path / "LandUse_Multilabeled.txt").touch()
    assert main(["data", "prepare", "ucm", "--root", str(tmp_path), "--list"]) == 1
    assert "images: missing. 1 of 2 are there. Put UCMerced" in capsys.readouterr().out
    (tmp_path / "2.tif").touch()  # in the root, where they are looked for, too
    assert main(["data", "prepare", "ucm", "--root", str(tmp_path), "--list"]) == 0
    assert "missing" not in capsys.readouterr().out


def test_numbered_pictures_beside_the_table_of_labels_have_classes(tmp_path):
    """The name of the data set may have got lost on the way."""
    images = [{"filename": f"{n}.tif", "split": "train", "sentences": [{"raw": "a field"}]} for n in (1, 102)]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    (tmp_path / "LandUse_Multilabeled.txt").write_text(
        "IMAGE\tfield\tairplane\nagricultural00\t1\t0\nairplane01\t0\t1\n"
    )
    labels = {e.image_id: e.labels for e in UCMCaptions(root=str(tmp_path), captions_only=True).examples("train")}
    assert list(labels.values()) == [(1.0, 0.0), (0.0, 1.0)]
