"""Published data sets of captions with a label, by the command line alone: check, train, test, caption on demand.

The files are made up; their columns, keys and folders are the published ones.
"""

import json

import pytest
from PIL import Image

import cli
from commands.comparison.metrics_table import OWN, read_metrics
from tests.conftest import ROOT

COUNT = 20
LABELS = {"artemis": ("awe", "sadness", "something else"), "senticap": ("0", "1"), "flickrstyle": ("humor", "romantic")}
SMALL = [
    "--model.init_args.layers=1",
    "--model.init_args.hidden_dim=16",
    "--model.init_args.feedforward_dim=16",
    "--model.init_args.heads=2",
    "--data.init_args.encoder=small-conv",
    "--data.init_args.encoder_weights=null",
    "--data.init_args.image_size=64",
    "--data.init_args.min_count=1",
    "--data.init_args.num_workers=0",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=null",
]


def image(folder, name, number):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (10 * number, 90, 120)).save(path)


def said(labels, number):
    """Two captions of an image, each with its label."""
    return [(f"thing {number % 3} looks like {label}", label) for label in (labels[number % len(labels)], labels[0])]


def artemis(folder, labels):
    rows = ["art_style,painting,emotion,utterance,repetition"]
    for number in range(COUNT):
        image(folder / "wikiart", f"Pop_Art/p{number}.jpg", number)
        rows += [f'Pop_Art,p{number},{label},"{text}",2' for text, label in said(labels, number)]
    (folder / "artemis_dataset_release_v0.csv").write_text("\n".join(rows))
    return {
        "captions_file": "artemis_dataset_release_v0.csv",
        "image_folder": "wikiart",
        "image_column": "{art_style}/{painting}.jpg",
        "caption_column": "utterance",
        "label_column": "emotion",
    }


def senticap(folder, labels):
    images = []
    for number in range(COUNT):
        name = f"COCO_val2014_{number:012d}.jpg"
        image(folder / "val2014", name, number)
        sentences = [
            {
                "raw": text,
                "tokens": text.split(),
                "sentiment": int(label),
                "word_sentiment": [0],
                "sentid": 2 * number + k,
            }
            for k, (text, label) in enumerate(said(labels, number))
        ]
        split = ("test", "val", "train", "train")[number % 4]
        images.append({"filename": name, "imgid": number, "split": split, "sentences": sentences, "sentids": []})
    (folder / "senticap_dataset.json").write_text(json.dumps({"dataset": "senticap", "images": images}))
    return {"captions_file": "senticap_dataset.json", "image_folder": "val2014", "label_column": "sentiment"}


def flickrstyle(folder, labels):
    rows = ["image\tcaption\tstyle"]
    for number in range(COUNT):
        image(folder / "images", f"{number}.jpg", number)
        rows += [f"{number}.jpg\t{text}\t{label}" for text, label in said(labels, number)]
    (folder / "captions.tsv").write_text("\n".join(rows))
    return {
        "captions_file": "captions.tsv",
        "label_column": "style",
        "image_column": "image",
        "caption_column": "caption",
    }


@pytest.mark.parametrize(
    "write",
    [artemis, senticap, pytest.param(flickrstyle, marks=pytest.mark.slow)],  # a table as the first one is
    ids=lambda write: write.__name__,
)
def test_from_the_published_files_to_captions_on_demand(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    labels = LABELS[write.__name__]
    columns = {"root": str(tmp_path / "data"), **write(tmp_path / "data", labels)}
    checked = [word for name, value in columns.items() for word in (f"--{name}", value)]
    assert cli.main(["data", "check", "folder_captions", *checked]) == 0
    out = capsys.readouterr().out
    assert "captions with each label" in out
    assert all(label in out for label in labels)
    columns = {"image_column": "null", "caption_column": "null", **columns}
    given = [f"--data.init_args.{name}={value}" for name, value in columns.items()]
    run = tmp_path / "run"
    fit = ["fit", "--config", "experiments/emotional_captions.yaml", *given, *SMALL, f"--run_dir={run}", "--wandb=off"]
    assert cli.main(fit) == 0
    if write is artemis:
        assert cli.main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--wandb=off"]) == 0
        assert {"alignment", "perplexity", "distinct", "cider_d", "bleu4"} <= set(read_metrics(run)[OWN])
    capsys.readouterr()
    picture = next((tmp_path / "data").rglob("*.jpg"))
    assert cli.main(["caption", "--ckpt", str(run), str(picture), "--emotions", "all", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert tuple(one["emotion"] for one in row["captions"]) == labels
