"""Two phases in one run: what is frozen does not move by a bit, resumed or not; threshold and prior are kept."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback

import cli
from core.errors import UserError
from datamodules.scenes import SceneCaptions
from lightning_modules import LoadedClassifier, MultiLabel, load_classifier
from lightning_modules.loading import load_module
from lightning_modules.multilabel import mixed
from metrics.baselines.rows import PRIOR
from metrics.labels import choose_threshold, label_scores
from tests.conftest import ROOT

SEEN = []
"""What `Watch` saw after every step of the last run."""
STEPS = 4  # an epoch


class Watch(Callback):
    """Notes what the CNN is like after every step, and breaks a run off when it is told to."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Notes."""
        encoder = pl_module.classifier.encoder
        state = {} if encoder is None else {name: value.clone() for name, value in encoder.state_dict().items()}
        rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        learns = encoder is not None and encoder.training and any(p.requires_grad for p in encoder.parameters())
        SEEN.append({"epoch": trainer.current_epoch, "state": state, "rates": rates, "learns": learns})
        if trainer.global_step == int(os.environ.get("BREAK_AT", "-1")):
            raise InterruptedRunError

    def on_validation_epoch_start(self, trainer, pl_module):
        """In evaluation everything is."""
        assert not any(module.training for module in pl_module.modules() if not module._get_name().endswith("Metric"))


class InterruptedRunError(Exception):
    """Stands for a power cut."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    SEEN.clear()


def config(path, epochs=3, data=None, **model):
    init = {"image_encoder": "small-conv", "hidden_dims": [8], "fine_tune_epochs": 1, "lr_pretrained": 1e-3, "lr": 1e-2}
    scenes = {"num_train": 31, "num_val": 13, "num_test": 9, "batch_size": 8, **(data or {})}
    settings = {
        "seed_everything": 5,
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "callbacks": [f"{__name__}.Watch"],
        },
        "model": {"class_path": "lightning_modules.MultiLabel", "init_args": {**init, **model}},
        "data": {"class_path": "datamodules.scenes.SceneCaptions", "init_args": scenes},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def fit(path, run, *options):
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(run), "--wandb=off", *options]) == 0
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# two phases


def test_the_cnn_learns_in_the_first_phase_and_never_again(tmp_path):
    last = fit(config(tmp_path / "c.yaml", weight_decay=0.1), tmp_path / "run")
    assert [step["learns"] for step in SEEN] == [True] * STEPS + [False] * 2 * STEPS
    assert not same(SEEN[0]["state"], SEEN[STEPS - 1]["state"])
    for step in SEEN[STEPS:]:  # BatchNorm's statistics are among them
        assert same(step["state"], SEEN[STEPS - 1]["state"])
    assert any("running_mean" in name for name in SEEN[0]["state"])
    ends = {name.removeprefix("classifier.encoder."): v for name, v in last["state_dict"].items() if "encoder." in name}
    assert same(ends, SEEN[-1]["state"])


def test_rates_follow_the_phases(tmp_path):
    path = config(tmp_path / "c.yaml", schedule="linear", warmup_steps=2, lr_first=4e-3, fine_tune_epochs=1)
    fit(path, tmp_path / "run")
    # noted behind a step, so each is the rate of the next one
    head = [4e-3, 4e-3, 2e-3] + [5e-3, 1e-2, 1e-2] + [1e-2 * share / 6 for share in range(5, -1, -1)]
    assert [step["rates"]["new"] for step in SEEN] == pytest.approx(head)
    trunk = [1e-3, 1e-3, 0.5e-3] + [0.0] * 9
    assert [step["rates"]["pretrained"] for step in SEEN] == pytest.approx(trunk)


def test_first_rate_of_the_head_is_the_cnns_unless_given(tmp_path):
    fit(config(tmp_path / "c.yaml", epochs=2), tmp_path / "run")
    assert [step["rates"]["new"] for step in SEEN] == pytest.approx([1e-3] * (STEPS - 1) + [1e-2] * (STEPS + 1))


@pytest.mark.parametrize(("fine_tune_epochs", "learns"), [(0, False), (None, True)])
def test_a_single_phase(tmp_path, fine_tune_epochs, learns):
    fit(config(tmp_path / "c.yaml", epochs=2, fine_tune_epochs=fine_tune_epochs), tmp_path / "run")
    assert {step["learns"] for step in SEEN} == {learns}
    assert same(SEEN[0]["state"], SEEN[-1]["state"]) != learns
    assert ("pretrained" in SEEN[0]["rates"]) == learns


@pytest.mark.parametrize("broken_at", [2, 6])  # within each phase
def test_a_run_resumed_within_a_phase_ends_with_the_same_bits(tmp_path, monkeypatch, broken_at):
    path = config(tmp_path / "c.yaml", epochs=2, mixup=0.4, dihedral=True, input_dropout=0.1, schedule="cosine")
    alone = fit(path, tmp_path / "alone", "--checkpoint_steps=1")
    whole, SEEN[:] = list(SEEN), []
    monkeypatch.setenv("BREAK_AT", str(broken_at))
    with pytest.raises(InterruptedRunError):
        fit(path, tmp_path / "broken", "--checkpoint_steps=1")
    monkeypatch.delenv("BREAK_AT")
    SEEN.clear()
    begun = torch.load(tmp_path / "broken" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert begun in (broken_at - 1, broken_at)
    assert cli.main(["resume", str(tmp_path / "broken")]) == 0
    resumed = torch.load(tmp_path / "broken" / "checkpoints" / "last.ckpt", weights_only=True)
    assert same(alone["state_dict"], resumed["state_dict"])
    assert all(same(one["state"], other["state"]) for one, other in zip(SEEN, whole[begun:], strict=True))


def test_only_the_last_blocks_learn():
    module = MultiLabel(
        image_encoder="torchvision/resnet18", num_labels=3, fine_tune_epochs=None, fine_tune_blocks=2
    ).train()
    encoder = module.classifier.encoder
    assert [block.training for block in encoder.blocks] == [False] * (len(encoder.blocks) - 2) + [True] * 2
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.classifier({"image": torch.randn(2, 3, 64, 64)}).logits.sum().backward()
    optimizer.step()
    moved = {name.split(".")[1] for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {str(len(encoder.blocks) - 2), str(len(encoder.blocks) - 1)}


# prior, threshold, predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    os.environ["CAPTION_CACHE"] = str(folder / "cache")
    path = config(folder / "c.yaml", epochs=2, fine_tune_epochs=None, lr_pretrained=1e-2, lr_first=1e-2)
    fit(path, folder / "run")
    assert cli.main(["test", "--ckpt_path", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=31, num_val=13, num_test=9)


def targets(data, split):
    return np.array([example.labels for example in data.examples(split)])


def predicted(path):
    rows = json.loads((path / "predictions.json").read_text())
    return np.array([list(row["probabilities"].values()) for row in rows]), rows


def test_prior_is_fitted_on_training_pictures_alone(run, data):
    prior = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["label_prior"]
    assert prior.numpy() == pytest.approx(targets(data, "train").mean(0))
    assert prior.numpy() != pytest.approx(targets(data, "val").mean(0))


def test_threshold_is_chosen_on_validation_and_kept(run, data):
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    probabilities, _ = predicted(run)  # of the last validation, rounded
    expected = choose_threshold(probabilities, targets(data, "val"))
    assert last["state_dict"]["threshold"].item() == pytest.approx(expected, abs=1e-5)
    assert last["inference"]["threshold"] == last["state_dict"]["threshold"].item()
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/macro_ap"]]
    expected = label_scores(probabilities, targets(data, "val"), expected, targets(data, "train").mean(0))
    for key in ("macro_ap", "micro_f1", "top1", "recall3", "lift_over_prior"):
        assert float(rows[-1][f"val/{key}"]) == pytest.approx(expected[key], abs=1e-4)
    assert float(rows[-1]["as_published/recall3"]) == pytest.approx(expected["as_published/recall3"], abs=1e-4)


def test_the_test_uses_that_threshold_and_stands_beside_the_prior(run, data):
    rows = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert rows["this model"]["threshold"] == pytest.approx(best["inference"]["threshold"])
    probabilities, _ = predicted(run / "eval" / "test")
    expected = label_scores(probabilities, targets(data, "test"), best["inference"]["threshold"])
    assert rows["this model"]["micro_f1"] == pytest.approx(expected["micro_f1"], abs=1e-4)
    assert rows[PRIOR]["macro_ap"] == pytest.approx(
        rows["this model"]["macro_ap"] - rows["this model"]["lift_over_prior"], abs=1e-6
    )


def test_tables_of_pictures_and_labels_are_written(run, data):
    folder = run / "eval" / "test"
    threshold = load_classifier(run).threshold
    probabilities, rows = predicted(folder)
    with (folder / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["image_id"] for row in table] == [row["image_id"] for row in rows]
    for row, values, truth in zip(table, probabilities, targets(data, "test"), strict=True):
        names = np.array(data.label_names)
        assert row["truth"].split("; ") == names[truth > 0].tolist()
        assert set(filter(None, row["predicted"].split("; "))) == set(names[values >= threshold])
    with (folder / "per_label.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == list(data.label_names)
    assert (folder / "labels.png").stat().st_size > 10_000


def test_a_loaded_labeller_says_the_same(run, data):
    probabilities, _ = predicted(run / "eval" / "test")
    classifier = load_classifier(run)
    assert classifier.label_names == data.label_names
    found = classifier.label([data.open_image(example) for example in data.examples("test")])
    assert found.numpy() == pytest.approx(probabilities, abs=2e-6)
    assert classifier.label([]).shape == (0, 24)


def test_a_fixed_threshold_stays(tmp_path):
    last = fit(config(tmp_path / "c.yaml", epochs=1, threshold=0.6), tmp_path / "run")
    assert last["state_dict"]["threshold"].item() == pytest.approx(0.6)
    assert cli.main(["validate", "--ckpt_path", str(tmp_path / "run")]) == 0
    rows = json.loads((tmp_path / "run" / "eval" / "validate" / "metrics.json").read_text())
    assert rows["this model"]["threshold"] == pytest.approx(0.6)


def test_features_of_the_store_give_what_pictures_give(tmp_path, data):
    stored = {"encoder": "small-conv"}
    path = config(tmp_path / "c.yaml", epochs=1, image_encoder=None, fine_tune_epochs=0, data=stored)
    fit(path, tmp_path / "run")
    assert cli.main(["test", "--ckpt_path", str(tmp_path / "run")]) == 0
    probabilities, _ = predicted(tmp_path / "run" / "eval" / "test")
    found = load_classifier(tmp_path / "run").label([data.open_image(example) for example in data.examples("test")])
    assert found.numpy() == pytest.approx(probabilities, abs=2e-3)  # the store has half precision


@pytest.mark.slow
def test_two_processes_score_as_one(run):
    """13 pictures, so that one goes to both."""
    command = [sys.executable, "cli.py", "validate", "--ckpt_path", str(run)]
    for more in ([], ["--trainer.devices=2", "--trainer.strategy=ddp"]):
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = run / "eval" / "validate", run / "eval" / "validate-2"
    assert predicted(one)[1] == predicted(two)[1]
    scores = [json.loads((folder / "metrics.json").read_text())["this model"] for folder in (one, two)]
    assert scores[0].pop("loss") == pytest.approx(scores[1].pop("loss"), rel=0.1)  # counts the picture twice
    assert scores[0] == scores[1]


# small laws


def test_mixing_keeps_the_larger_part_and_mixes_labels_alike():
    labels = torch.eye(6)
    torch.manual_seed(0)
    batch = mixed({"labels": labels, "features": labels.unsqueeze(1)}, 0.4)
    assert torch.allclose(batch["labels"], batch["features"].squeeze(1))
    assert (batch["labels"].diagonal() >= 0.5).all()
    assert torch.allclose(batch["labels"].sum(1), torch.ones(6))
    assert not torch.equal(batch["labels"], labels)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "there is no image encoder"),
        ({"image_encoder": "small-conv", "feature_dim": 8}, "has an encoder, too"),
        ({"feature_dim": 8, "fine_tune_epochs": 2}, "fine_tune_epochs is given without"),
        ({"feature_dim": 8, "dihedral": True}, "dihedral is given without"),
        ({"feature_dim": 8, "views": 8}, "views is 8"),
        ({"feature_dim": 8, "mixup": -1.0}, "mixup is -1"),
        ({"image_encoder": "small-conv", "fine_tune_epochs": -1}, "fine_tune_epochs is -1"),
        ({"image_encoder": "small-conv", "fine_tune_blocks": 1}, "only torchvision's networks"),
        ({"image_encoder": "torchvision/squeezenet1_0", "fine_tune_blocks": 14}, "expected 1 to 13"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        MultiLabel(num_labels=3, **values)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--data.init_args.labels=none", "the data has no labels"),
        ("--model.init_args.threshold=1.5", "threshold is 1.5"),
    ],
)
def test_data_without_labels_and_wrong_thresholds_are_refused(tmp_path, capsys, option, said):
    path = config(tmp_path / "c.yaml")
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "r"), "--wandb=off", option]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error


def test_a_model_that_wants_captions_says_so(run):
    module = load_module(run)
    module.reads_text = True
    classifier = LoadedClassifier(module)
    with pytest.raises(UserError, match="reads captions"):
        classifier.label([])
    with pytest.raises(UserError, match="1 images and 2 texts"):
        classifier.label(["a.jpg"], ["a", "b"])
    with pytest.raises(UserError, match="reads images"):
        classifier.label(None, ["a"])
