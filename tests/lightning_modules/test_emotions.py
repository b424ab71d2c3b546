"""Teacher, students and transfer through the command line, on a handful of scenes."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback
from transformers import VisualBertConfig, VisualBertModel

import cli
from lightning_modules.loading import load_module
from lightning_modules.serving import load_classifier
from networks.emotion.transfer import check_depth
from tests.conftest import ROOT

LIGHT = {
    "architecture": "light",
    "word_dim": 12,
    "hidden_dim": 8,
    "convolutions": [4, 6, 8],
    "fusion_dim": 10,
    "dropout": 0.3,
    "lr": 1e-2,
    "lr_pretrained": 1e-2,
    "warmup_steps": 2,
    "schedule": "cosine",
}
BERT = {
    "architecture": "visual_bert",
    "image_encoder": "small-conv",
    "layers": 2,
    "heads": 2,
    "bert_dim": 16,
    "lr": 1e-2,
    "lr_pretrained": 1e-2,
}


class StopAfter(Callback):
    """Ends training behind so many epochs, as an interruption would."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 >= int(os.environ.get("STOP_AFTER", "1000")):
            trainer.should_stop = True


def config(path, method, model, scenes=12, epochs=2, **data):
    settings = {
        "seed_everything": 3,
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
        },
        "model": {"class_path": f"lightning_modules.{method}", "init_args": model},
        "data": {
            "class_path": "datamodules.scenes.SceneCaptions",
            "init_args": {
                "labels": "emotions",
                "num_train": scenes,
                "num_val": 6,
                "num_test": 6,
                "batch_size": 6,
                "captions_per_image": 1,
                **data,
            },
        },
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def fit(path, run, *options):
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(run), "--wandb=off", *options]) == 0
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def network_a(tmp_path_factory):
    """Run folder of a light student on other scenes."""
    folder = tmp_path_factory.mktemp("a")
    previous = Path.cwd()
    os.chdir(ROOT)
    os.environ["CAPTION_CACHE"] = str(folder / "cache")
    fit(config(folder / "a.yaml", "EmotionLabeller", LIGHT, scene_seed=9), folder / "run")
    os.chdir(previous)
    return folder / "run"


def blocks_of(state, run, depth):
    """Tensors of the first blocks, by name, out of the state dict of a light student's run."""
    module = load_module(run)
    ids = {id(t) for _, parts in module.classifier.blocks()[:depth] for p in parts for t in tensors(p)}
    names = [name for name, tensor in module.state_dict(keep_vars=True).items() if id(tensor) in ids]
    assert names or depth == 0
    return {name: state[name] for name in names}


def tensors(part):
    return part.state_dict(keep_vars=True).values()


@pytest.mark.parametrize("depth", [2, None])
def test_frozen_blocks_are_those_of_a_to_the_last_bit_and_resume_is_exact(
    monkeypatch, tmp_path, capsys, network_a, depth
):
    monkeypatch.chdir(ROOT)
    model = {**LIGHT, "init_from": str(network_a), "cut_depth": depth, "freeze_transferred": True}
    path = config(tmp_path / "b.yaml", "EmotionTransfer", model, epochs=3, tokenizer=str(network_a))
    whole = fit(path, tmp_path / "runs" / "whole")
    printed = capsys.readouterr().out
    blocks = check_depth(load_module(network_a).classifier, depth)
    assert f"transfer: {blocks} of {blocks} blocks copied, of 4 in all: words, convolution 1; GRU" in printed
    assert "transfer: head: new" in printed
    assert whole["inference"]["transfer"][0].startswith(f"transfer: {blocks} of {blocks}")

    a = torch.load(network_a / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    kept = blocks_of(whole["state_dict"], network_a, blocks)
    assert any("running_mean" in name for name in kept)
    assert all(torch.equal(value, a[name]) for name, value in kept.items())
    learning = {n for n, p in load_module(tmp_path / "runs" / "whole").named_parameters() if p.requires_grad}
    assert not learning & set(kept)
    assert len(whole["optimizer_states"][0]["state"]) == len(learning)
    assert not torch.equal(whole["state_dict"]["classifier.head.weight"], a["classifier.head.weight"])

    monkeypatch.setenv("STOP_AFTER", "1")
    run = tmp_path / "runs" / "stopped"
    fit(path, run, "--trainer.callbacks+=tests.lightning_modules.test_emotions.StopAfter")
    monkeypatch.delenv("STOP_AFTER")
    assert cli.main(["resume", str(run)]) == 0
    resumed = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"]
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert resumed["inference"]["transfer"] == whole["inference"]["transfer"]


def test_without_freezing_everything_moves_and_words_are_matched(monkeypatch, tmp_path, capsys, network_a):
    monkeypatch.chdir(ROOT)
    model = {**LIGHT, "init_from": str(network_a), "weight_decay": 0.01}
    path = config(tmp_path / "b.yaml", "EmotionTransfer", model, scenes=7)  # a vocabulary of its own
    trained = fit(path, tmp_path / "run")
    assert "words are unknown to the source" in capsys.readouterr().out
    a = torch.load(network_a / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    parameters = dict(load_module(tmp_path / "run").named_parameters())
    same = [n for n in parameters if n in a and torch.equal(trained["state_dict"][n], a[n])]
    assert same == []
    names = [group["name"] for group in trained["optimizer_states"][0]["param_groups"]]
    assert names == ["new", "pretrained"]


def test_nothing_to_take_blocks_from_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    path = config(tmp_path / "b.yaml", "EmotionTransfer", {**LIGHT, "cut_depth": 2})
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "run"), "--wandb=off"]) == 1
    assert "cut_depth is 2, but there is no run to copy blocks from" in capsys.readouterr().err


def test_another_method_is_refused(monkeypatch, tmp_path, capsys, network_a):
    monkeypatch.chdir(ROOT)
    path = config(tmp_path / "b.yaml", "EmotionTransfer", {**LIGHT, "cut_depth": 9, "init_from": str(network_a)})
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "run"), "--wandb=off"]) == 1
    assert "cut_depth is 9: expected 0 to 4 (1 = words, convolution 1" in capsys.readouterr().err


def test_head_only_teacher_learns_its_head_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    path = config(tmp_path / "t.yaml", "EmotionLabeller", {**BERT, "head_only": True, "dropout": 0.5}, epochs=1)
    trained = fit(path, tmp_path / "run")
    assert len(trained["optimizer_states"][0]["state"]) == 2
    module = load_module(tmp_path / "run").train()
    assert all(not part.training for part in module.frozen)
    assert module.classifier.head.training
    assert trained["hyper_parameters"]["bert_sizes"]["num_hidden_layers"] == 2


@pytest.fixture
def published(tmp_path):
    """A folder of VisualBERT weights that read regions of width 9."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(5)
    VisualBertModel(VisualBertConfig(vocab_size=400, visual_embedding_dim=9, **sizes)).save_pretrained(tmp_path / "w")
    return str(tmp_path / "w")


def test_a_frozen_teacher_never_reads_regions_through_a_random_projection(monkeypatch, tmp_path, capsys, published):
    monkeypatch.chdir(ROOT)
    model = {"architecture": "visual_bert", "weights": published, "head_only": True, "lr": 1e-2}
    path = config(tmp_path / "t.yaml", "EmotionLabeller", model, epochs=1, encoder="small-conv")
    capsys.readouterr()
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "run"), "--wandb=off"]) == 1
    error = capsys.readouterr().err.strip()
    assert "read image regions of width 9, these have 128: set data.init_args.encoder to one of width 9, or" in error
    assert "\n" not in error
    assert not list(tmp_path.glob("cache/features/*/features.npy")), "nothing was computed before"
    trained = fit(path, tmp_path / "new", "--model.init_args.new_projection=true")
    projection = "classifier.body.embeddings.visual_projection.weight"
    module = load_module(tmp_path / "new").train()
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert projection in learning
    assert len(trained["optimizer_states"][0]["state"]) == 4 == len(learning)
    assert [group["name"] for group in trained["optimizer_states"][0]["param_groups"]] == ["new"]


def test_a_projection_of_another_width_is_not_frozen_in_a_transfer(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    fit(config(tmp_path / "a.yaml", "EmotionLabeller", BERT, epochs=1), tmp_path / "a")
    model = {**BERT, "image_encoder": "torchvision/squeezenet1_0", "freeze_transferred": True}
    model["init_from"] = str(tmp_path / "a")
    path = config(tmp_path / "b.yaml", "EmotionTransfer", model, epochs=1, tokenizer=str(tmp_path / "a"))
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "b"), "--wandb=off"]) == 1
    assert "read image regions of another width, so that their projection would be frozen" in capsys.readouterr().err
    fit(path, tmp_path / "new", "--model.init_args.new_projection=true")
    module = load_module(tmp_path / "new")
    assert module.classifier.body.embeddings.visual_projection.weight.requires_grad


def test_across_architectures_what_could_not_be_copied_is_printed(monkeypatch, tmp_path, capsys, network_a):
    monkeypatch.chdir(ROOT)
    model = {**BERT, "init_from": str(network_a), "freeze_transferred": True}
    path = config(tmp_path / "b.yaml", "EmotionTransfer", model, epochs=1, tokenizer=str(network_a))
    fit(path, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "transfer: 0 of 2 blocks copied" in printed
    assert "NOT copied: embeddings, layer 1: LightStudent has no such block" in printed
    assert "frozen all the same" in printed
    assert "transfer: head: from the last 2 layers of LightStudent: 8 of 8 labels" in printed


def test_text_teacher_labels_pictures_without_labels(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    model = {"architecture": "text", "buckets": 512, "lr": 5.0, "weight_decay": 0.0}
    run = tmp_path / "run"
    fit(config(tmp_path / "t.yaml", "EmotionLabeller", model, scenes=40), run)
    other = config(tmp_path / "p.yaml", "EmotionLabeller", model, labels="none", scene_seed=5, tokenizer=str(run))
    where = ["--run_dir", str(tmp_path / "pseudo"), "--data.init_args.evaluate_on=train"]
    assert cli.main(["predict", "--config", str(other), "--ckpt_path", str(run), *where]) == 0
    rows = yaml.safe_load((tmp_path / "pseudo" / "predictions.json").read_text())
    assert len(rows) == 12
    served = load_classifier(run)
    assert tuple(rows[0]["probabilities"]) == served.label_names
    both = served.label(None, [["two red circles", "a blue square"]])
    each = [served.label(None, [text])[0] for text in ("two red circles", "a blue square")]
    torch.testing.assert_close(torch.as_tensor(both[0]), (torch.as_tensor(each[0]) + torch.as_tensor(each[1])) / 2)


def test_new_heads_start_at_the_label_frequencies(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    path = config(tmp_path / "t.yaml", "EmotionLabeller", {**LIGHT, "lr": 0.0, "lr_pretrained": 0.0}, epochs=1)
    fit(path, tmp_path / "run")
    module = load_module(tmp_path / "run")
    torch.testing.assert_close(module.classifier.head.bias.detach(), torch.logit(module.label_prior, eps=1e-3))


def test_published_heads_start_at_random(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    model = {**LIGHT, "lr": 0.0, "lr_pretrained": 0.0, "prior_bias": False}
    fit(config(tmp_path / "t.yaml", "EmotionLabeller", model, epochs=1), tmp_path / "run")
    head = load_module(tmp_path / "run").classifier.head
    assert head.bias.abs().max() <= head.in_features**-0.5  # nn.Linear's own start


@pytest.mark.parametrize("model", [LIGHT, BERT], ids=["light", "visual_bert"])
def test_half_precision_accumulation_and_checkpointing(monkeypatch, tmp_path, model):
    monkeypatch.chdir(ROOT)
    path = config(tmp_path / "t.yaml", "EmotionLabeller", {**model, "gradient_checkpointing": True}, epochs=1)
    options = ["--trainer.precision=bf16-mixed", "--trainer.accumulate_grad_batches=2"]
    trained = fit(path, tmp_path / "run", *options)
    assert trained["global_step"] == 1
    assert all(value.isfinite().all() for value in trained["state_dict"].values())
