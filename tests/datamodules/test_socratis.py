import ast
import csv
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from core.errors import DataError, UserError
from datamodules.loading.dataset import Collate
from datamodules.readers import socratis_cleaning as rules
from datamodules.readers.records import fail
from datamodules.readers.socratis_cleaning import EMOTIONS, PUBLISHED_COUNTS, Annotation, emotion_list
from datamodules.readers.valence import VALENCES, valence
from datamodules.socratis import CLEANED_FILE, RAW_FILE, Socratis
from datamodules.stored_features.words import word_vector
from lightning_modules import CodeCaptioning, LoadedCaptioner

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(data_root):
    return data_root / "socratis"


@pytest.fixture(scope="module")
def published(root):
    """What the published cleaned file says, read without the project's code."""
    with (root / CLEANED_FILE).open(newline="", encoding="utf-8") as file:
        return {row["image_name"]: (row["caption"], ast.literal_eval(row["emotions"])) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """The real data set, read once."""
    data = Socratis(root=str(root), split_file=str(tmp_path_factory.mktemp("split") / "split.json"))
    for split in SPLITS:
        data.examples(split)
    return data


def write_raw(path, pictures):
    """Raw JSON: for each picture the emotions of its annotators."""
    document = {
        f"ID{name}": [[f"{name}.jpg", f"caption {name}", emotions, [None] * 3, {}] for emotions in annotators]
        for name, annotators in pictures.items()
    }
    path.write_text(json.dumps(document))
    return document


# the rules, one by one


def test_lower_case_before_placeholders_so_that_a_typed_none_is_no_emotion():
    rows = [Annotation(image_name="a.jpg", caption="x", emotions=("None", "NOT ENTERED", "Happy"))]
    assert rules.clean(rows) == [rules.Reaction(image_name="a.jpg", caption="x", emotions=("happy",))]


def test_first_caption_and_union_of_annotators():
    rows = [
        Annotation(image_name="b.jpg", caption="first", emotions=("sad", "", "")),
        Annotation(image_name="a.jpg", caption="other", emotions=("calm", "", "")),
        Annotation(image_name="b.jpg", caption="second", emotions=("angry", "sad", "")),
    ]
    assert rules.clean(rows) == [
        rules.Reaction(image_name="a.jpg", caption="other", emotions=("calm",)),
        rules.Reaction(image_name="b.jpg", caption="first", emotions=("sad", "angry")),
    ]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("sad", ("sad",)),
        ("a", ()),
        ("very sad", ()),
        (" sad", ()),  # the published code does not strip blanks
        ('"good"', ("good",)),
        ("good(ish)", ("good",)),
        ("good(at it)", ()),  # the blank is looked for first
        ('"good"(x)', ('"good"',)),  # cut from the string before its quotes were taken off
        ("", ("",)),
    ],
)
def test_strings_that_are_dropped_or_changed(typed, kept):
    assert rules.cleaned([typed]) == kept


def test_repeats_after_cleaning_count_once():
    assert rules.cleaned(["sad", '"sad"', "sad(ly)"]) == ("sad",)
    assert rules.frequent([("sad", "sad"), ("calm",)], min_images=1) == {"sad", "calm"}
    assert rules.frequent([("sad", "sad"), ("calm",)], min_images=2) == set()


def test_pictures_without_a_label_are_dropped():
    rows = [
        Annotation(image_name="a.jpg", caption="x", emotions=("aroused", "", "")),
        Annotation(image_name="b.jpg", caption="y", emotions=("joy", "", "")),
    ]
    assert [item.image_name for item in rules.clean(rows)] == ["b.jpg"]


def test_counts_by_hand(tmp_path):
    annotators = {"1": [["Sad", "a", "very sad"], ["None", '"sad"', ""]], "2": [["odd", "", ""]]}
    document = write_raw(tmp_path / "raw.json", annotators)
    found = rules.counts(rules.read_annotations(document, tmp_path, fail))
    assert found == {
        "images": 2,
        "rows": 3,
        "emotions": 5,  # sad, a, very sad, "sad", odd
        "cleaned emotions": 2,
        "labels": 0,
        "labelled images": 0,
    }
    assert len(rules.count_differences(found)) == len(PUBLISHED_COUNTS)


def test_the_published_threshold_chooses_labels_by_images_not_by_annotators():
    rows = [
        Annotation(image_name=f"{n}.jpg", caption="x", emotions=("sad", "calm" if n < 99 else "sad", ""))
        for n in range(100)
    ]
    assert rules.frequent([rules.cleaned(item.emotions) for item in rules.merged_by_image(rows)]) == {"sad"}


# the real files


def test_the_raw_sample_gives_the_published_row(root, published):
    path = next(root.glob("*.sample.json"))
    document = json.loads(path.read_text())
    rows = rules.read_annotations(document, path, fail)
    (item,) = rules.clean(rows)
    caption, emotions = published[item.image_name]
    assert (item.caption, set(item.emotions)) == (caption, set(emotions))
    assert rules.counts(rows)["rows"] == 8
    assert "hungry" in rules.merged_by_image(rows)[0].emotions


def test_the_full_raw_file_has_the_published_counts(root, published):
    path = root / RAW_FILE
    if not path.is_file():
        pytest.skip(f"the full raw file is not there: {path} not found")
    rows = rules.read_annotations(json.loads(path.read_text()), path, fail)
    assert rules.count_differences(rules.counts(rows)) == []
    assert rules.frequent([rules.cleaned(item.emotions) for item in rules._reactions(rows)]) == set(EMOTIONS)
    found = {item.image_name: set(item.emotions) for item in rules.clean(rows)}
    assert found == {name: set(emotions) for name, (_, emotions) in published.items()}


def test_cleaned_file_is_read_whole_with_the_published_order(whole, published):
    data = whole
    examples = [example for split in SPLITS for example in data.examples(split)]
    assert len(examples) == 2065
    assert data.num_labels == len(data.label_names) == 29
    assert data.label_names[:3] == ("curious", "amazed", "fear")
    assert data.describe()["label_names"] == list(EMOTIONS)
    for example in examples:
        caption, emotions = published[example.image_id]
        assert example.captions == (" ".join(caption.split()),)
        assert example.labels == tuple(float(name in emotions) for name in EMOTIONS)
    assert sum(map(sum, (example.labels for example in examples))) / 2065 == pytest.approx(3.98, abs=0.01)


def test_split_is_by_image_seeded_and_keeps_every_labels_share(whole, root):
    parts = {split: whole.examples(split) for split in SPLITS}
    names = [example.image_id for part in parts.values() for example in part]
    assert len(set(names)) == len(names) == 2065
    assert len(parts["val"]) == pytest.approx(206, abs=15)
    assert len(parts["test"]) == pytest.approx(413, abs=20)
    share = {split: np.array([example.labels for example in part]).mean(0) for split, part in parts.items()}
    for split in ("val", "test"):  # 5 images of the rarest label in val: one more or less is 0.005
        assert np.abs(share[split] - share["train"]).max() < 0.05
        assert (share[split] > 0.6 * share["train"]).all()
    again = Socratis(root=str(root))
    assert [example.image_id for example in again.examples("test")] == [e.image_id for e in parts["test"]]


def test_synonyms_merge_into_26_labels(root, published):
    data = Socratis(root=str(root), merge_synonyms=True, val_fraction=0, test_fraction=0)
    assert data.num_labels == 26
    assert not {"anger", "fear", "joy"} & set(data.label_names)
    row = {name: index for index, name in enumerate(data.label_names)}
    for example in data.examples("train"):
        emotions = set(published[example.image_id][1])
        assert example.labels[row["angry"]] == bool(emotions & {"anger", "angry"})
        assert example.labels[row["sad"]] == ("sad" in emotions)


def test_missing_pictures_make_it_captions_only_and_say_so_in_one_line(root, caplog):
    data = Socratis(root=str(root), val_fraction=0, test_fraction=0)
    assert all(example.image is None for example in data.examples("train"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("cleaned_data.csv: 2061 of 2065 images are not in ")
    assert line.endswith("captions only, batches have no images")
    batch = next(iter(data.train_dataloader()))
    assert "image" not in batch
    assert batch["labels"].shape == (64, 29)
    assert len(batch["caption_ids"]) == 64
    assert batch["caption_ids"].shape[1] <= 32
    with pytest.raises(DataError, match=r"no image file .*captions_only=true"):
        Socratis(root=str(root), captions_only=False).examples("train")
    with pytest.raises(UserError, match="captions_only is true with encoder"):
        Socratis(root=str(root), captions_only=True, encoder="small-conv")


# folds, and files of our own


def small(tmp_path, count=40, pictures=True):
    """A small cleaned file; every third picture sad, every second happy, all others calm."""
    emotions = [["sad"] * (n % 3 == 0) + ["happy"] * (n % 2 == 0) or ["calm"] for n in range(count)]
    with (tmp_path / CLEANED_FILE).open("w", newline="") as file:
        rows = [(f"x%2C{n}.jpg", f"caption {n}", names) for n, names in enumerate(emotions)]
        csv.writer(file).writerows([("image_name", "caption", "emotions"), *rows])
    if pictures:
        (tmp_path / "images").mkdir()
        for n in range(count):  # the escape of the name is undone in every second file
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / (f"x,{n}.png" if n % 2 else f"x%2C{n}.png"))
    return tmp_path


def test_over_all_folds_every_picture_is_test_once(tmp_path):
    root = small(tmp_path)
    rounds = [Socratis(root=str(root), folds=4, fold=fold) for fold in range(4)]
    tested = Counter(example.image_id for data in rounds for example in data.examples("test"))
    assert set(tested.values()) == {1}
    assert len(tested) == 40
    for data in rounds:
        ids = [example.image_id for split in SPLITS for example in data.examples(split)]
        assert len(ids) == len(set(ids)) == 40
    rest = Socratis(root=str(root), folds=4, fold=1, val_fraction=0)
    assert len(rest.examples("train")) + len(rest.examples("test")) == 40
    assert rest.examples("val") == rest.examples("test")
    with pytest.raises(UserError, match="fold below folds"):
        Socratis(root=str(root), folds=4, fold=4).examples("test")


def test_pictures_are_found_under_both_spellings_of_escaped_names(tmp_path):
    data = Socratis(root=str(small(tmp_path)))
    assert all(example.image_name.endswith(".png") for split in SPLITS for example in data.examples(split))
    item = Collate(pad_id=0)([data.val_dataloader().dataset[0]])
    assert item["image"].shape == (1, 3, 224, 224)


def test_the_split_file_rules_over_seeds_and_says_what_is_wrong(tmp_path):
    root = small(tmp_path)
    path = tmp_path / "split.json"
    first = Socratis(root=str(root), split_file=str(path))
    kept = [example.image_id for example in first.examples("test")]
    other = Socratis(root=str(root), split_file=str(path), split_seed=5)
    assert [example.image_id for example in other.examples("test")] == kept
    drawn = Socratis(root=str(root), split_seed=5)
    assert [example.image_id for example in drawn.examples("test")] != kept
    splits = json.loads(path.read_text())
    path.write_text(json.dumps({**splits, kept[0]: "nowhere"}))
    with pytest.raises(DataError, match=rf"split.json: image {kept[0]} has no split"):
        Socratis(root=str(root), split_file=str(path)).examples("test")
    path.write_text("{")
    with pytest.raises(DataError, match=r"not valid JSON.*it is drawn again"):
        Socratis(root=str(root), split_file=str(path)).examples("test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.jpg,two,\"__import__('os').getcwd()\"", r"line 3 \(b.jpg\): emotions is .*expected a list such as"),
        ("b.jpg,two,['happpy']", "emotion 'happpy' is none of the published labels"),
        ("b.jpg,two,[]", "has no emotion"),
        ("b.jpg, ,['sad']", "the caption is empty"),
        ("a.jpg,two,['sad']", "this image is there twice"),
    ],
)
def test_broken_rows_are_named(tmp_path, row, message):
    (tmp_path / CLEANED_FILE).write_text(f"image_name,caption,emotions\na.jpg,one,['sad']\n{row}\n")
    with pytest.raises(DataError, match=message):
        Socratis(root=str(tmp_path)).examples("train")


def test_broken_raw_rows_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=f"neither {RAW_FILE} nor {CLEANED_FILE} is there"):
        Socratis(root=str(tmp_path)).examples("train")
    (tmp_path / RAW_FILE).write_text(json.dumps({"ID1": [["a.jpg", "x", "sad"]]}))
    with pytest.raises(DataError, match=r"id ID1, annotator 0: expected \[image name, caption"):
        Socratis(root=str(tmp_path)).examples("train")
    (tmp_path / RAW_FILE).write_text("[]")
    with pytest.raises(DataError, match="is it the right file"):
        Socratis(root=str(tmp_path)).examples("train")


def test_data_check_compares_a_full_raw_file_with_the_published_counts(tmp_path, capsys):
    write_raw(tmp_path / RAW_FILE, {str(n): [["sad", "Happy" if n % 2 else "", ""]] for n in range(40)})
    assert cli.main(["data", "check", "socratis", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "rows: 40, published 12489; fetch the file again" in out
    (tmp_path / RAW_FILE).rename(tmp_path / "mine.json")
    assert cli.main(["data", "check", "socratis", "--root", str(tmp_path), "--annotations-file", "mine.json"]) == 0
    assert "mine.json is not the full raw file (40 images, 40 annotators)" in capsys.readouterr().out


def test_emotion_lists_are_parsed_never_executed():
    assert emotion_list('["sad", "calm"]') == ["sad", "calm"]
    for text in ("('sad',)", "[1]", "open('x')", "[", "", None):
        assert emotion_list(text) is None


# captions on demand


@pytest.fixture(scope="module")
def written_again(root, tmp_path_factory):
    """Captions with their valence, and their own words in place of images."""
    folder = tmp_path_factory.mktemp("words")
    options = {"split_file": str(folder / "split.json"), "caption_labels": "valence", "word_features": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTION_CACHE", str(folder / "cache"))
        data = Socratis(root=str(root), batch_size=4, min_count=5, **options)
        data.prepare_data()
        yield data, next(iter(data.val_dataloader()))


def test_valence_of_captions_is_that_of_their_emotions(written_again, published):
    data, batch = written_again
    assert data.condition_names == VALENCES
    for image_id, label in zip(batch["image_id"], batch["condition"].tolist(), strict=True):
        assert VALENCES[label] == valence(published[image_id][1])
    counts = Counter(example.conditions for split in SPLITS for example in data.examples(split))
    assert sum(counts.values()) == 2065
    assert min(counts.values()) > 200


def test_a_caption_is_written_again_from_its_words(written_again, tmp_path):
    """By any captioner on stored features; the run says that it reads no images."""
    data, batch = written_again
    assert (data.feature_dim, data.feature_grid) == (64, (1, 1))
    expected = np.stack([word_vector(captions[0], 64) for captions in batch["references"]])
    assert torch.equal(batch["features"][:, 0], torch.from_numpy(expected).float())
    assert "image" not in batch
    small = {"hidden_dim": 8, "word_dim": 8, "layers": 1, "hidden_dims": [8], "conditioned": True}
    module = CodeCaptioning.for_data(data, **small)
    module.inference = {"method": module.method, **data.describe(), "decoding": {}}
    module.step_loss(batch)[0].backward()
    assert module.captioner.conditions.weight.grad.abs().sum() > 0
    with pytest.raises(UserError, match="the words of the captions"):
        LoadedCaptioner(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"word_features": 0}, "word_features is 0: expected 1 or more"),
        ({"word_features": 8, "encoder": "small-conv"}, "and neither an encoder nor regions beside it"),
        ({"caption_labels": "joy"}, "caption_labels is 'joy': expected valence or none"),
    ],
)
def test_what_cannot_be_written_again_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Socratis(**options)
