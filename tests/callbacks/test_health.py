"""Every sign of collapse is provoked in a run, told once, and noted where the report and the dashboards find it."""

import json

import pytest
import torch
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import health
from callbacks.evaluation import writes_files
from callbacks.health import HealthWatch
from callbacks.predictions import PredictionWriter
from callbacks.pseudo_labels import ShardWriter
from commands.run_report.content import build_report
from datamodules.pseudo_labels import PseudoLabels
from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN, MultiLabel
from reporting.health_notes import read_notes
from reporting.loggers import Dashboards, make_loggers, own_wandb_run
from tests.wandb_records import read_board

SMALL = {
    "image_encoder": "small-conv",
    "region_dim": 16,
    "hidden_dim": 16,
    "word_dim": 8,
    "attention_dim": 8,
    "unfreeze_epoch": 0,
}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=32, num_val=24, num_test=24, batch_size=16, captions_per_image=1, max_tokens=12)


@pytest.fixture
def marks(monkeypatch):
    """What dashboards are told; runs of tests are short."""
    monkeypatch.setattr(health, "_STEPS", 2)
    found = []
    monkeypatch.setattr(health, "log_warning", lambda loggers, kind, text, step: found.append((kind, step)))
    return found


def run(module, data, folder, *, epochs=2, **options):
    watch = HealthWatch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[PredictionWriter(), watch],
        log_every_n_steps=1,
        **{"logger": False, **options},
    )
    assert not writes_files(trainer) or trainer.is_global_zero
    trainer.fit(module, datamodule=data)
    return watch


def captioner(data, **options):
    return AttentionRNN.for_data(data, **{**SMALL, "attention": "bahdanau", "lr": 1e-3, **options})


def kinds(folder):
    return {note["kind"] for note in read_notes(folder)}


class Mute(AttentionRNN):
    """Writes the same caption for every image."""

    def _generate(self, batch, memory, rows, stage):
        found = super()._generate(batch, memory, rows, stage)
        return {**found, "captions": ["a dog"] * len(found["captions"])}


def test_one_caption_for_all_images_is_told_once(data, tmp_path, marks, capsys):
    module = Mute.for_data(data, **SMALL, attention="bahdanau")
    run(module, data, tmp_path, epochs=3)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("health: captions")]
    assert told == ['health: captions, step 4: 24 of 24 images have the same caption: "a dog"']
    assert [mark for mark in marks if mark[0] == "captions"] == [("captions", 4)]
    (note,) = [note for note in read_notes(tmp_path) if note["kind"] == "captions"]
    assert note["step"] == 4


def test_uniform_attention_is_told_unless_it_was_asked_for(data, tmp_path, marks):
    def flat(module):
        for name, parameter in module.captioner.named_parameters():
            if "attention" in name or "attend" in name:
                parameter.data.zero_()
                parameter.requires_grad_(False)
        return module

    run(flat(captioner(data)), data, tmp_path / "a")
    assert "attention" in kinds(tmp_path / "a")
    run(captioner(data, attention="uniform"), data, tmp_path / "b")
    assert "attention" not in kinds(tmp_path / "b")


def seen_everywhere(folder, kind):
    """The sign of a kind in ``health.json``, which the report and the records of W&B have as well."""
    (folder / "config.yaml").write_text("model: {class_path: a.B}\ndata: {class_path: c.D}\n")
    (note,) = [note for note in read_notes(folder) if note["kind"] == kind]
    warning = f"Seen in training at step {note['step']}, {kind}: {note['sign']}."
    assert warning in build_report(folder, images=0).warnings
    board = read_board(folder)
    assert board.summary[f"health/{kind}"] == f"step {note['step']}: {note['sign']}"
    assert (f"health: {kind}", board.summary[f"health/{kind}"]) in board.alerts
    return note["sign"]


def stuck(features, keys, state, mask):
    """Attention that is at every word at the same region, whatever the image."""
    weights = features.new_zeros(features.shape[:2])
    weights[:, 3] = 1.0
    return features[:, 3], weights


def uniform(features, keys, state, mask):
    """Attention that says nothing."""
    weights = features.new_full(features.shape[:2], 1 / features.shape[1])
    return features.mean(dim=1), weights


@pytest.mark.parametrize(
    ("attend", "sign"),
    [(stuck, "attention is stuck: it is the same at"), (uniform, "attention is uniform: its")],
)
def test_idle_attention_is_told_everywhere(attend, sign, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(health, "_STEPS", 2)
    monkeypatch.delenv("WANDB_MODE")
    module = captioner(data)
    module.captioner.decoder.attention.attend = attend
    with own_wandb_run():
        loggers = make_loggers(tmp_path, Dashboards(wandb="offline", tensorboard=True))
        run(module, data, tmp_path, logger=loggers)
    found = seen_everywhere(tmp_path, "attention")
    assert found.startswith(sign)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("health: attention")]
    assert told == [f"health: attention, step 4: {found}"]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (text,) = board.Tensors("health/attention/text_summary")
    assert text.step == 4
    assert found in text.tensor_proto.string_val[0].decode()


def test_pseudo_labels_on_few_classes_are_told_everywhere(data, tmp_path, monkeypatch):
    """Before the first step: a teacher that always says the same."""
    monkeypatch.delenv("WANDB_MODE")
    names = ("awe", "fear", "joy", "anger", "sadness")
    folder = tmp_path / "pseudo_labels"
    folder.mkdir()
    facts = {"label_names": json.dumps(names), "model": "x"}
    writer = ShardWriter(folder, rank=0, label_names=names, facts=facts, rows_per_file=100, rows_per_group=100)
    ids = [str(example.image_id) for example in data.examples("train")]
    writer.append(ids, torch.tensor([[0.9, 0.8, 0.1, 0.1, 0.1]] * len(ids)))
    writer.close()
    labelled = PseudoLabels(source=data, labels=str(folder), per_image=2)
    module = MultiLabel.for_data(labelled, image_encoder="small-conv", hidden_dims=[16])
    with own_wandb_run():
        loggers = make_loggers(tmp_path, Dashboards(wandb="offline"))
        run(module, labelled, tmp_path, epochs=1, logger=loggers)
    assert "awe on 100.00%, fear on 100.00% of the images" in seen_everywhere(tmp_path, "pseudo-labels")


def test_units_that_no_gradient_reaches_are_told(data, tmp_path, marks):
    module = MultiLabel.for_data(data, image_encoder="small-conv", hidden_dims=[16], lr=1e-3)
    layer = next(
        part for part in module.classifier.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 16
    )
    layer.bias.data.fill_(-1e4)
    run(module, data, tmp_path)
    (note,) = [note for note in read_notes(tmp_path) if note["kind"] == "units"]
    assert "16 of 16 units of" in note["sign"]
    assert "units" in {kind for kind, _ in marks}


def test_probabilities_that_do_not_depend_on_the_image_are_told(data, tmp_path, marks):
    module = MultiLabel.for_data(data, image_encoder="small-conv", hidden_dims=[16], lr=0.0)
    for name, parameter in module.classifier.named_parameters():
        if name.endswith("weight") and parameter.dim() == 2:
            parameter.data.zero_()
    run(module, data, tmp_path)
    assert "labels" in kinds(tmp_path)


class Shaken(AttentionRNN):
    """Its loss is multiplied a million times at one step."""

    def step_loss(self, batch):
        loss, count = super().step_loss(batch)
        return loss * (1e6 if self.global_step == 9 else 1), count


def test_exploding_gradients_are_told_at_their_step(data, tmp_path, marks, capsys):
    run(Shaken.for_data(data, **SMALL, attention="bahdanau", lr=1e-4), data, tmp_path, epochs=6)
    (note,) = [note for note in read_notes(tmp_path) if note["kind"] == "gradients"]
    assert note["step"] == 9
    assert "health: gradients, step 9: the gradient norm is" in capsys.readouterr().err


class Knowing(AttentionRNN):
    """Writes a reference for every image."""

    def _generate(self, batch, memory, rows, stage):
        found = super()._generate(batch, memory, rows, stage)
        return {**found, "captions": [batch["references"][row][0] for row in rows]}


class Recovering(Knowing):
    """Writes the same caption for every image in the first two epochs."""

    def _generate(self, batch, memory, rows, stage):
        found = super()._generate(batch, memory, rows, stage)
        return {**found, "captions": ["a dog"] * len(rows)} if self.current_epoch < 2 else found


class Collapsing(Knowing):
    """Writes the same caption for every image from the third epoch on."""

    def _generate(self, batch, memory, rows, stage):
        found = super()._generate(batch, memory, rows, stage)
        return {**found, "captions": ["a dog"] * len(rows)} if self.current_epoch >= 2 else found


class Labelling(MultiLabel):
    """Gives every image its own labels."""

    def evaluate(self, batch, stage):
        return {**super().evaluate(batch, stage), "probabilities": 0.1 + 0.8 * batch["labels"]}


@pytest.mark.parametrize("method", [Knowing, Labelling])
def test_a_healthy_run_is_told_nothing(method, data, tmp_path, marks, capsys):
    options = {**SMALL, "attention": "bahdanau"} if method is Knowing else {"image_encoder": "small-conv"}
    run(method.for_data(data, **options, lr=1e-3), data, tmp_path, epochs=4)
    assert kinds(tmp_path) <= {"attention"}, "which is untrained"
    assert {kind for kind, _ in marks} <= {"attention"}
    assert "health: captions" not in capsys.readouterr().err


def test_the_first_steps_of_a_run_do_not_count(data, tmp_path, marks, monkeypatch):
    monkeypatch.setattr(health, "_STEPS", 6)
    run(Collapsing.for_data(data, **SMALL, attention="bahdanau"), data, tmp_path, epochs=3)
    assert "captions" not in kinds(tmp_path), "one validation after them, and at the end of nothing else"


def test_a_run_that_ends_within_its_first_steps_is_told_at_its_end(data, tmp_path, marks, monkeypatch, capsys):
    monkeypatch.setattr(health, "_STEPS", 100)
    run(Mute.for_data(data, **SMALL, attention="bahdanau"), data, tmp_path / "a", epochs=3)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("health: captions")]
    assert told == ['health: captions, step 6: 24 of 24 images have the same caption: "a dog"']
    assert ("captions", 6) in marks
    run(Recovering.for_data(data, **SMALL, attention="bahdanau"), data, tmp_path / "b", epochs=3)
    assert "captions" not in kinds(tmp_path / "b"), "only the last validation counts"


def test_a_resumed_run_keeps_what_it_has_told(data, tmp_path, marks):
    (tmp_path / "health.json").write_text(
        json.dumps([{"step": 0, "kind": "captions", "sign": "x"}, {"step": 99, "kind": "attention", "sign": "y"}])
    )
    watch = run(Mute.for_data(data, **SMALL, attention="bahdanau"), data, tmp_path)
    assert [(note["kind"], note["sign"]) for note in watch.notes][:1] == [("captions", "x")]
    assert ("captions", 4) not in marks, "it was told before"
    assert "y" not in [note["sign"] for note in watch.notes], "a step that is not reached again"


def test_the_report_names_what_was_seen(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {class_path: a.B}\ndata: {class_path: c.D}\n")
    (tmp_path / "health.json").write_text(json.dumps([{"step": 7, "kind": "attention", "sign": "it is uniform"}]))
    assert "Seen in training at step 7, attention: it is uniform." in build_report(tmp_path, images=0).warnings
