"""The label command: what it prints, and one line for every mistake."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import cli
from commands import label
from datamodules.scenes import SceneCaptions
from datamodules.scenes.emotions import EMOTION_NAMES
from lightning_modules import AttentionRNN, MultiLabel, PrefixClassification, load_classifier
from lightning_modules.base import BaseModule


def save(module: BaseModule, data, path):
    """Writes a checkpoint as a run does."""
    module.inference = {"method": module.method, **data.describe()}
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=4, num_val=2, num_test=2)


@pytest.fixture
def ckpt(tmp_path, data):
    torch.manual_seed(0)
    module = MultiLabel(image_encoder="small-conv", hidden_dims=[8], num_labels=24)
    module.threshold.fill_(0.5)
    return save(module, data, tmp_path / "best.ckpt")


@pytest.fixture
def pictures(tmp_path, data):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, example in enumerate(data.examples("test")):
        data.open_image(example).save(folder / f"{place}.png")
    return folder


def test_json_has_all_labels_and_those_predicted(ckpt, pictures, data, capsys):
    assert cli.main(["label", "--ckpt", ckpt, str(pictures), "--json", "--batch_size=1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == [str(pictures / "0.png"), str(pictures / "1.png")]
    for row in rows:
        assert set(row["probabilities"]) == set(data.label_names)
        assert row["labels"] == [name for name, value in row["probabilities"].items() if value >= row["threshold"]]
        assert list(row["probabilities"].values()) == sorted(row["probabilities"].values(), reverse=True)


def test_the_threshold_may_be_another(ckpt, pictures, capsys):
    picture = str(pictures / "0.png")
    assert cli.main(["label", "--ckpt", ckpt, picture, "--threshold=0"]) == 0
    assert capsys.readouterr().out.count(",") == 23
    assert cli.main(["label", "--ckpt", ckpt, picture, "--threshold=1"]) == 0
    assert "none reaches 1.00; the most probable is" in capsys.readouterr().out
    assert cli.main(["label", "--ckpt", ckpt, picture, "--threshold=1", "--top=3"]) == 0
    assert capsys.readouterr().out.count(",") == 2


def test_broken_pictures_are_named_and_may_be_left_out(ckpt, pictures, capsys):
    (pictures / "0.png").write_bytes(b"no picture")
    assert cli.main(["label", "--ckpt", ckpt, str(pictures)]) == 1
    error = capsys.readouterr().err
    assert "0.png" in error
    assert error.count("\n") == 1
    assert cli.main(["label", "--ckpt", ckpt, str(pictures), "--skip-bad"]) == 1
    out, error = capsys.readouterr()
    assert out.startswith(str(pictures / "1.png"))
    assert error.startswith("skipped: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.png"], "there is no image or folder 'nowhere.png'"),
        ([], "reads images: give one"),
        (["PICTURE", "--text", "a dog"], "reads only images: remove --text"),
        (["PICTURE", "--threshold=2"], "--threshold 2: expected 0 to 1"),
        (["PICTURE", "--batch-size=0"], "--batch-size: expected a whole number from 1 on, found '0'"),
        (["PICTURE", "--top=-1"], "--top -1"),
        (["PICTURE", "--thresh=0.5"], "unrecognized arguments"),
    ],
)
def test_mistakes_take_one_line(ckpt, pictures, capsys, args, said):
    args = [str(pictures / "0.png") if arg == "PICTURE" else arg for arg in args]
    assert cli.main(["label", "--ckpt", ckpt, *args]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_captioner_gives_no_labels_and_a_labeller_no_captions(tmp_path, ckpt, pictures, data, capsys):
    picture = str(pictures / "0.png")
    captioner = save(AttentionRNN(image_encoder="small-conv", vocab_size=40, hidden_dim=8), data, tmp_path / "c.ckpt")
    assert cli.main(["label", "--ckpt", captioner, picture]) == 1
    assert "of method 'attention_rnn', which gives no labels" in capsys.readouterr().err
    assert cli.main(["caption", "--ckpt", ckpt, picture]) == 1
    assert "of method 'multilabel', which writes no captions" in capsys.readouterr().err
    assert cli.main(["label", "--ckpt", str(tmp_path / "none"), picture]) == 1
    assert "no checkpoint at" in capsys.readouterr().err


def test_any_mode_of_picture_is_taken(ckpt, tmp_path, capsys):
    Image.new("RGBA", (90, 40), (250, 0, 0, 120)).save(tmp_path / "a.png")
    assert cli.main(["label", "--ckpt", ckpt, str(tmp_path / "a.png"), "--top=1"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.fixture(scope="module")
def feelings(tmp_path_factory):
    """A checkpoint of a classifier of beginnings, with strong opinions."""
    data = SceneCaptions(num_train=8, num_val=2, num_test=2, feelings=True, captions_only=True)
    torch.manual_seed(0)
    module = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8)
    torch.nn.init.normal_(module.classifier.head.weight, std=3.0)
    return save(module, data, tmp_path_factory.mktemp("feelings") / "best.ckpt")


def test_a_classifier_of_beginnings_labels_captions(feelings, capsys):
    """By the whole caption, whatever else is in the batch; the most probable label is predicted."""
    texts = ["how gloomy, a red circle above a blue square", "a cross"]
    args = [arg for text in texts for arg in ("--text", text)]
    assert cli.main(["label", "--ckpt", feelings, "--json", *args]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    loaded = load_classifier(feelings)
    network = loaded.module.classifier
    for text, row in zip(texts, rows, strict=True):
        ids = torch.tensor([loaded.tokenizer.encode(text)])
        scores = network(ids, torch.tensor([ids.shape[1]]))[-1]
        expected = dict(zip(EMOTION_NAMES, scores.softmax(0).tolist(), strict=True))
        assert row["probabilities"] == pytest.approx(expected, abs=1e-4)
        assert row["labels"] == [max(expected, key=expected.get)]
        assert row["text"] == text
        assert "threshold" not in row
    assert rows[0]["probabilities"] != rows[1]["probabilities"]
    assert cli.main(["label", "--ckpt", feelings, *args, "--threshold=1"]) == 0
    assert "none reaches 1.00" in capsys.readouterr().out
    assert cli.main(["label", "--ckpt", feelings, "--text", "a cross", "a.png"]) == 1
    assert "a.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "texts", "reads", "said"),
    [
        (["a.png"], [], (True, True), "give --text once"),
        (["a.png"], ["x", "y"], (True, True), "2 times --text for 1 images"),
        (["a.png"], ["x"], (False, True), "reads only captions"),
    ],
)
def test_models_that_read_captions_need_one_for_each_picture(paths, texts, reads, said):
    with pytest.raises(ValueError, match=said):
        label._check_inputs(paths, texts, SimpleNamespace(reads_images=reads[0], reads_text=reads[1]), "RUN")
