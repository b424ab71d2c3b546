"""`caption` with emotions: one caption for each that is asked for, and one line for what a run does not know."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Trainer

import cli
from datamodules.scenes import SceneCaptions
from datamodules.scenes.emotions import EMOTION_NAMES
from lightning_modules import AttentionRNN, PrefixClassification
from tests.twins import saved_and_loaded

SMALL = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}


def checkpoint(folder, conditioned):
    data = SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=6, feelings=conditioned)
    module = AttentionRNN.for_data(data, **SMALL, unfreeze_epoch=0, beams=1, max_tokens=8, conditioned=conditioned)
    settings = {"max_steps": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(**settings, default_root_dir=folder, enable_model_summary=False, limit_val_batches=0)
    trainer.fit(module, data)
    if conditioned:
        torch.nn.init.normal_(module.captioner.conditions.weight, std=3)
    trainer.save_checkpoint(folder / "one.ckpt")
    data.open_image(data.examples("test")[0]).save(folder / "scene.png")
    return ["caption", "--ckpt", str(folder / "one.ckpt"), str(folder / "scene.png")]


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory):
    torch.manual_seed(0)
    return checkpoint(tmp_path_factory.mktemp("conditioned"), True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    torch.manual_seed(0)
    return checkpoint(tmp_path_factory.mktemp("plain"), False)


def printed(line, capsys):
    assert cli.main(line) == 0
    return capsys.readouterr().out


def test_one_caption_for_each_emotion(conditioned, capsys):
    out = json.loads(printed([*conditioned, "--emotions", "all", "--json"], capsys))
    rows = {row["emotion"]: row["caption"] for row in out["captions"]}
    assert tuple(rows) == EMOTION_NAMES
    assert len(set(rows.values())) > 1
    text = printed([*conditioned, "--emotions=fear,awe"], capsys).splitlines()
    assert [line.split()[0] for line in text[1:]] == ["fear", "awe"]
    one = printed([*conditioned, "--emotion", "fear"], capsys)
    assert one == f"{conditioned[-1]}: {rows['fear']}\n"


def test_a_job_has_the_same_captions(conditioned, tmp_path, capsys):
    out = json.loads(printed([*conditioned, "--emotions", "fear,awe", "--json"], capsys))
    printed([*conditioned, "--emotions", "fear,awe", "--out", str(tmp_path / "job"), "--workers=0"], capsys)
    (row,) = pq.read_table(tmp_path / "job" / "part-000000.parquet").to_pylist()
    assert row["emotions"] == ["fear", "awe"]
    assert row["captions"] == [one["caption"] for one in out["captions"]]
    assert row["caption"] == row["captions"][0]
    assert cli.main([*conditioned, "--emotion", "fear", "--out", str(tmp_path / "job"), "--workers=0"]) == 1
    assert "holds a job with other columns; another emotions (['fear', 'awe'], now ['fear'])" in capsys.readouterr().err


def test_guidance_of_zero_ignores_the_emotion(conditioned, capsys):
    without = printed(conditioned, capsys)
    assert printed([*conditioned, "--emotion=fear", "--guidance=0"], capsys) == without
    assert printed([*conditioned, "--emotion=fear"], capsys) != without


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--emotion=sad"],
            f"(did you mean sadness?): this captioner knows {', '.join(EMOTION_NAMES)}",
        ),
        (["--emotions=awe,joy"], "emotion is 'joy'"),
        (["--emotions="], "--emotions names none"),
        (["--emotions=all", "--emotion=awe"], "give one of them"),
        (["--guidance=-1", "--emotion=awe"], "guidance=-1.0: expected 0"),
    ],
)
def test_what_is_not_known_is_refused_in_a_line(options, message, conditioned, capsys):
    assert cli.main([*conditioned, *options]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--emotion=awe", "--emotions=all", "--guidance=2"])
def test_a_run_without_emotions_says_so(option, plain, capsys):
    assert cli.main([*plain, option]) != 0
    error = capsys.readouterr().err
    assert "trained without emotions or other labels of captions" in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """A prefix classifier of the words of `conditioned`, which has learnt nothing but has opinions."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("guide")
    data = SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=6, feelings=True)
    module = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8)
    module.inference = {"method": module.method, **data.describe()}
    torch.nn.init.normal_(module.classifier.head.weight, std=3)
    saved_and_loaded(module, folder / "one.ckpt")
    return f"--control={folder / 'one.ckpt'}"


def test_a_classifier_guides_or_chooses(conditioned, guide, capsys):
    line = [*conditioned, "--emotions=all"]  # for one emotion alone both may want the same caption
    plain = printed(line, capsys)
    assert printed([*line, guide, "--control-strength=0"], capsys) == plain
    assert printed([*line, guide, "--control_strength", "9"], capsys) != plain
    beams = [*line, "--beams=6"]
    assert printed([*beams, guide, "--control-strength=0", "--control-rerank=99"], capsys) != printed(beams, capsys)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--control-strength=2", "--emotion=awe"], "--control-rerank need --control"),
        (["GUIDE"], "--control needs to know what captions should say: give --emotion"),
        (["GUIDE", "--emotion=joy"], "emotion is 'joy'"),
        (["GUIDE", "--emotion=awe", "--control-strength=-1"], "control_strength=-1.0: expected 0"),
        (["GUIDE", "--emotion=awe", "--control-rerank=1", "--beams=1"], "there is one caption"),
        (["--control=nowhere", "--emotion=awe"], "nowhere"),
    ],
)
def test_control_without_effect_is_one_line(given, message, conditioned, guide, capsys):
    assert cli.main([*conditioned, *(guide if one == "GUIDE" else one for one in given)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_classifier_of_other_words_is_refused(plain, guide, capsys):
    assert cli.main([*plain, "--emotion=awe", guide]) == 1
    assert "was trained with another vocabulary" in capsys.readouterr().err
