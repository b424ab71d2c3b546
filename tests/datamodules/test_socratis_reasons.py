"""Reasons for emotions: what is read from the raw file, what batches hold, and the way from the files to a score."""

import json

import pytest
import torch
from PIL import Image

import cli
from commands.comparison.metrics_table import OWN, read_metrics
from core.errors import DataError, UserError
from datamodules.readers.records import fail
from datamodules.readers.socratis_cleaning import Annotation, read_annotations
from datamodules.readers.socratis_reasons import reasons_of
from datamodules.socratis import CLEANED_FILE, RAW_FILE, Socratis
from datamodules.stored_features.words import word_vector
from tests.conftest import ROOT

IMAGES = 24
NOBODY = {"age": "none", "gender": "none", "education": "not entered", "ethnicity": []}
SPLITS = ("train", "val", "test")


def row(number, emotions, reasons):
    return [f"visualnews__{number}.jpg", f"Thing {number % 5} in the news", emotions, reasons, NOBODY]


def write_raw(path):
    """A file of the published layout: typed emotions, null reasons, one reason for all, and images without any."""
    document = {}
    for number in range(IMAGES):
        because = f"because thing {number % 5} is"
        document[f"ID{number}"] = [
            row(number, ["Happy", "", ""], [f"{because} nice", None, None]),
            row(number, ["happy", "Sad", ""], [f"{because} fun", f"{because} over", None]),
            row(number, ["calm", "hungry", "sad"] if number % 2 else ["None", "", ""], [f"{because} slow", None, None]),
        ]
    document["ID-mute"] = [row(99, ["happy", "", ""], [None, None, None])]
    path.write_text(json.dumps(document))


def write_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number in [*range(IMAGES), 99]:
        Image.new("RGB", (40, 40), (9 * number % 250, 60, 90)).save(folder / f"visualnews__{number}.jpg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("socratis")
    write_raw(folder / RAW_FILE)
    write_images(folder / "images")
    return folder


@pytest.fixture
def made(root, tmp_path):
    """Makes data modules of reasons."""

    def make(**options):
        given = {"captions": "reasons", "caption_labels": "emotion", "batch_size": 4, "image_size": 64, **options}
        return Socratis(root=str(root), split_file=str(tmp_path / "split.json"), **given)

    return make


def test_reasons_of_the_published_sample(data_root):
    path = next((data_root / "socratis").glob("*.sample.json"))
    rows = read_annotations(json.loads(path.read_text()), path, fail)
    (found,) = reasons_of(rows, ["intrigued", "happy", "sad"]).values()
    assert list(found) == ["intrigued", "happy"]
    assert [len(reasons) for reasons in found.values()] == [1, 3]
    assert found["intrigued"][0].startswith("I think they would be intrigued because the packaging")
    assert found["happy"][0] == "because the history is happy"


def test_a_reason_belongs_to_its_emotion_unless_it_is_the_only_one():
    def of(emotions, reasons, **options):
        one = Annotation(image_name="a", caption="x", emotions=tuple(emotions), reasons=tuple(reasons))
        return reasons_of([one, one], ["happy", "sad", "angry"], **options).get("a", {})

    assert of(["Sad", "HAPPY"], ["so", "thus"]) == {"happy": ("thus",), "sad": ("so",)}
    assert of(["sad", "happy", "odd"], ["so", "", ""]) == {"happy": ("so",), "sad": ("so",)}
    assert of(["sad", "odd", "happy"], ["so", "thus", ""]) == {"sad": ("so",)}
    assert of(["none", "very sad", ""], ["so", "", ""]) == {}
    assert of(["anger"], ["so"], synonyms={"anger": "angry"}) == {"angry": ("so",)}
    assert of(["sad"], []) == {}


def test_an_example_is_an_image_with_one_emotion(made):
    data = made()
    examples = {split: data.examples(split) for split in SPLITS}
    names = {split: {example.image_id.rpartition("#")[0] for example in own} for split, own in examples.items()}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == IMAGES, "splits are by image"
    for example in (one for own in examples.values() for one in own):
        image, _, emotion = example.image_id.rpartition("#")
        number = int(image.removesuffix(".jpg").rpartition("_")[2])
        because = f"because thing {number % 5} is"
        own = {"happy": ("nice", "fun"), "sad": ("over", "slow")[: 1 + number % 2], "calm": ("slow",)}[emotion]
        assert example.captions == tuple(f"{because} {word}" for word in own)
        assert {data.condition_names[label] for label in example.conditions} == {emotion}
    assert data.classes("test") == {one.image_id: one.image_id.rpartition("#")[2] for one in examples["test"]}
    valences = made(caption_labels="valence")
    assert {len(valences.condition_names), max(max(one.conditions) for one in valences.examples("train"))} == {3, 1}


def test_words_of_the_caption_stand_behind_each_region(made, root):
    data = made(word_features=32, encoder="small-conv")
    store = data.features("test")
    examples = data.examples("test")
    width, regions = data.feature_dim - 32, data.feature_grid[0] * data.feature_grid[1]
    assert store.shape == (len(examples), regions, width + 32) == (len(store), *store[0].shape)
    assert store.images.shape[0] < len(examples), "an image is stored once"
    for place, example in enumerate(examples):
        number = int(example.image_id.rpartition(".jpg")[0].rpartition("_")[2])
        words = torch.from_numpy(word_vector(f"Thing {number % 5} in the news", 32))
        assert torch.equal(store.regions(place)[:, width:], words.expand(regions, -1))
        assert torch.equal(store.regions(place), store[place])
    alone = made(encoder="small-conv").features("test")
    assert torch.equal(torch.stack([store[place][:, :width] for place in range(len(store))]), alone[:])
    torch.testing.assert_close(torch.from_numpy(store.means()), store[:].float().mean(1), rtol=1e-3, atol=1e-3)
    text = made(word_features=32, captions_only=True)
    assert (text.feature_dim, text.feature_grid) == (32, (1, 1))
    assert torch.equal(text.features("test")[:], store[:][:, :1, width:])
    batch = next(iter(text.val_dataloader()))
    assert "image" not in batch
    assert "regions" in text.describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": "all"}, "captions is 'all': expected published or reasons"),
        ({"captions": "published"}, "caption_labels is 'emotion': expected valence or none with captions=published"),
        ({"word_features": 0}, "word_features is 0: expected 1 or more"),
    ],
)
def test_what_contradicts_itself_is_refused(made, options, message):
    with pytest.raises(UserError, match=message):
        made(**options)


def test_the_cleaned_file_has_no_reasons(tmp_path):
    (tmp_path / CLEANED_FILE).write_text("image_name,caption,emotions\na.jpg,one,['sad']\n")
    with pytest.raises(DataError, match=rf"has no reasons, only the raw file has: get {RAW_FILE} with .*data prepare"):
        Socratis(root=str(tmp_path), captions="reasons").examples("train")


# by the command line


def test_commands_say_what_is_missing_and_what_is_there(root, tmp_path, capsys):
    here = tmp_path / "data"
    here.mkdir()
    (here / CLEANED_FILE).write_text("image_name,caption,emotions\na.jpg,one,['sad']\n")
    cli.main(["data", "prepare", "socratis", "--root", str(here), "--list"])
    out = capsys.readouterr().out
    assert f"reasons: missing and not needed; --parts reasons fetches it. Only {RAW_FILE} has them" in out
    write_raw(here / RAW_FILE)
    cli.main(["data", "prepare", "socratis", "--root", str(here), "--list"])
    out = capsys.readouterr().out
    assert f"reasons: {here / RAW_FILE}" in out
    assert f"images: missing. 0 of {IMAGES + 1} are there. Fetch the authors' archive" in out
    (here / RAW_FILE).rename(here / "mine.json")
    line = [
        "data",
        "check",
        "socratis",
        "--root",
        str(here),
        "--annotations-file",
        "mine.json",
        "--captions",
        "reasons",
    ]
    assert cli.main([*line, "--captions_only", "false"]) == 1
    assert "no image file visualnews__0.jpg" in capsys.readouterr().out
    write_images(here / "images")
    assert cli.main([*line, "--caption_labels", "emotion"]) == 0
    out = capsys.readouterr().out
    assert f"96 reasons for {2 * IMAGES + IMAGES // 2} pairs of image and emotion, {IMAGES} images" in out
    assert "captions with each label" in out
    assert "have the same pixels" not in out


SMALL = [
    "--model.init_args.layers=1",
    "--model.init_args.hidden_dim=16",
    "--model.init_args.feedforward_dim=16",
    "--data.init_args.word_features=32",
    "--data.init_args.min_count=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=null",
    "--wandb=off",
]
SEEN = {
    "image and caption": ["--data.init_args.encoder=small-conv", "--data.init_args.image_size=64"],
    "caption": ["--data.init_args.encoder=null", "--data.init_args.captions_only=true"],
}


@pytest.mark.parametrize("seen", SEEN)
def test_from_the_raw_file_to_the_score(root, tmp_path, monkeypatch, seen):
    """The experiment as it is, but small; reasons are scored against those of the same image and emotion."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"
    line = ["fit", "--config", "experiments/socratis_reasons.yaml", f"--run_dir={run}", *SMALL, *SEEN[seen]]
    data = [f"--data.init_args.root={root}", "--data.init_args.encoder_weights=null"]
    assert cli.main([*line, *data]) == 0
    assert cli.main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--wandb=off"]) == 0
    scores = read_metrics(run)
    assert {"alignment", "cider_d", "bleu4", "rouge_l", "perplexity", "distinct"} <= set(scores[OWN])
    assert {"constant caption", "true class, one caption", "leave-one-out human"} <= set(scores)
