"""The published commands of the README: without data one line says what is missing, on small stand-ins they run."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, VisualBertConfig, VisualBertModel

import cli
from commands.recipes.document import resolve
from commands.recipes.reading import read_document
from tests.conftest import ROOT

SHOWN = [
    shlex.split(line, comments=True)[2:]
    for line in re.findall(r"^    (python cli\.py .*as_published.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
]
"""Their words after ``python cli.py``."""
WORDS = ["a", "red", "blue", "square", "on", "the", "ground"]
TINY = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1",
    "--wandb=off",
]


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A working directory as a fresh clone has it: the experiments and no data."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stages(recipe, **variables):
    path = Path(recipe)
    return {
        stage.name: list(stage.command) for stage in resolve(read_document(path), path, variables, Path("runs")).stages
    }


def first(words):
    """The first thing that a published command does."""
    return words if words[0] == "fit" else next(iter(stages(words[1]).values()))


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 40), colour).save(path)


def write_coco(root):
    for split, start in (("train2017", 0), ("val2017", 100)):
        images, annotations = [], []
        for number in range(start, start + 12):
            colour = ("red", "blue")[number % 2]
            picture(root / split / f"{number:012d}.jpg", colour)
            images.append({"id": number, "file_name": f"{number:012d}.jpg"})
            annotations += [
                {"id": 5 * number + place, "image_id": number, "caption": f"a {colour} square on the ground"}
                for place in range(5)
            ]
        path = root / "annotations" / f"captions_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


def write_ucm(root):
    images, rows = [], ["IMAGE\\LABEL\tcars\ttrees"]
    for number in range(12):
        colour = ("red", "blue")[number % 2]
        picture(root / "imgs" / f"{number + 1}.png", colour)
        text = f"a {colour} square on the ground"
        images.append(
            {
                "filename": f"{number + 1}.tif",
                "imgid": number,
                "split": ("train", "train", "val", "test")[number // 2 % 4],
                "sentids": [],
                "sentences": [{"raw": text, "tokens": text.split(), "imgid": number, "sentid": number}],
            }
        )
        rows.append(f"agricultural{number:02d}\t{number % 2}\t{1 - number % 2}")
    (root / "dataset.json").write_text(json.dumps({"dataset": "UCM", "images": images}))
    (root / "multilabels.txt").write_text("\n".join(rows) + "\n")
    return root


def write_socratis(root):
    rows = ["image_name,caption,emotions"]
    for number in range(30):
        colour = ("red", "blue")[number % 2]
        picture(root / "images" / f"{number}.png", colour)
        rows.append(f"{number}.png,a {colour} square,\"['{('happy', 'sad')[number % 2]}', 'calm']\"")
    (root / "cleaned_data.csv").write_text("\n".join(rows) + "\n")
    return root


def write_berts(folder):
    """Weights of both networks and their tokenizer, in the published layout and small."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    BertModel(BertConfig(**sizes)).save_pretrained(folder / "bert")
    VisualBertModel(VisualBertConfig(**sizes, visual_embedding_dim=128)).save_pretrained(folder / "visual_bert")
    for name in ("bert", "visual_bert"):
        (folder / name / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def test_readme_has_a_published_command_for_each_method():
    assert [words[0] for words in SHOWN] == ["fit", "fit", "recipe", "recipe"]
    named = " ".join(word for words in SHOWN for word in words)
    for method in ("dual_transfer", "attention_rnn", "emotion_as_published", "ucm_as_published"):
        assert method in named


HUB = "go online once so that the hub can send it"
MISSING = [
    ["tokenizer 'gpt2' is no folder and was not downloaded before", "/gpt2) does not answer", HUB],
    ["data/coco: no such folder", "annotations/captions_train2017.json", "data prepare coco --root data/coco"],
    ["tokenizer 'google-bert/bert-base-uncased'", HUB],
    ["data/ucm/dataset.json: no such file", "data prepare ucm_captions --root data/ucm"],
]


@pytest.mark.parametrize(("words", "expected"), list(zip(SHOWN, MISSING, strict=True)))
def test_one_line_says_what_a_fresh_clone_lacks(checkout, capsys, words, expected):
    assert cli.main(first(words)) != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert [part for part in expected if part not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), list(zip(SHOWN, MISSING, strict=True)))
def test_a_fresh_clone_is_told_once_and_in_time(checkout, words, expected):
    (checkout / "cli.py").symlink_to(ROOT / "cli.py")
    begun = time.monotonic()
    run = subprocess.run([sys.executable, "cli.py", *words], capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    lines = (run.stdout + run.stderr).splitlines()
    for part in expected:
        assert sum(part in line for line in lines) == 1, part
    assert "Traceback" not in run.stderr
    assert time.monotonic() - begun < 60  # seconds, on a machine that does nothing else


def test_one_line_says_which_data_is_missing_where_the_tokenizer_is_there(checkout, capsys):
    write_berts(checkout)
    capsys.readouterr()
    for words, tokenizer, expected in (
        (first(SHOWN[0]), "word", ["data/coco: no such folder", "data prepare coco --root data/coco"]),
        (first(SHOWN[2]), "bert", ["data/socratis: neither imCaption", "GitHub repository arijitray1993/socratis"]),
    ):
        assert cli.main([*words, f"--data.init_args.tokenizer={tokenizer}"]) != 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert [part for part in expected if part not in line] == []


CAPTIONERS = {
    "dual_transfer": """--data.init_args.tokenizer=word --model.init_args.image_encoder=small-conv
        --model.init_args.image_weights=null --model.init_args.language_weights=null --model.init_args.language_layers=1
        --model.init_args.language_heads=2 --model.init_args.language_dim=16""",
    "attention_rnn": """--data.init_args.encoder=small-conv --data.init_args.encoder_weights=null
        --data.init_args.min_count=1""",
}


@pytest.mark.parametrize("words", SHOWN[:2], ids=CAPTIONERS)
def test_captioner_runs_on_a_small_coco(checkout, words):
    write_coco(checkout / "data" / "coco")
    small = next(options for name, options in CAPTIONERS.items() if name in words[2]).split()
    options = [
        "--trainer.fast_dev_run=true",
        "--trainer.accelerator=cpu",
        "--data.init_args.num_workers=0",
        "--data.init_args.image_size=32",
    ]
    assert cli.main([*words, *options, *small]) == 0


@pytest.mark.slow
def test_distillation_runs_on_a_small_ucm(checkout):
    write_ucm(checkout / "data" / "ucm")
    sets = {"scale": "cpu", "cnn": "small-conv", "cnn_weights": "null", "word_dim": "6", "hidden_dim": "8"}
    found = stages(SHOWN[3][1], **sets)
    for name in ("text", "labels", "distil_slow", "caption_slow", "test_caption_slow"):
        small = [*TINY, "--data.init_args.image_size=32"] if found[name][0] == "fit" else []
        assert cli.main([*found[name], *small]) == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["visual_bert", "light", "bert_resnet"])
def test_emotion_transfer_runs_on_small_coco_and_socratis(checkout, architecture):
    write_coco(checkout / "data" / "coco")
    write_socratis(checkout / "data" / "socratis")
    write_berts(checkout)
    folders = {name: str(checkout / name) for name in ("bert", "visual_bert")}
    sets = {"architecture": architecture, "scale": "cpu", "fraction": "1.0", "regions": "small-conv"}
    found = stages(SHOWN[2][1], **sets, **folders, regions_weights="null")
    workers = "--data.init_args.num_workers=0"
    options = {
        "teacher": [*TINY, workers],
        "pseudo_labels": [workers],
        "student": [*TINY, "--data.init_args.source.init_args.num_workers=0"],
        "AnB": [*TINY, workers],
        "AnB+": [*TINY, workers],
        "train_AnB+": [],
    }
    if architecture == "light":
        options["student"].append("--model.init_args.word_dim=16")
    if architecture == "bert_resnet":  # a ResNet-50 indeed, from random weights
        options["student"].append("--model.init_args.image_weights=null")
    for name, small in options.items():
        assert cli.main([*found[name], *small]) == 0, name
    kept = torch.load("runs/seed-42/AnB/checkpoints/last.ckpt", weights_only=True)["inference"]["transfer"]
    networks = {"light": "LightStudent", "bert_resnet": "BertResNetStudent"}
    expected = f"from the last 2 layers of {networks[architecture]}" if architecture in networks else "head: copied"
    assert expected in "\n".join(kept)
