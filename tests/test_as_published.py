"""The overlays in experiments/overlays/as_published, and the recipes on them, hold the published values.

The table is the list of the sources, written down apart from both. What is compared is what the command line makes of
experiment, overlay and the recipe's own words, defaults of the classes included.
"""

from pathlib import Path

import pytest
import yaml

import cli
from commands.recipes.document import resolve
from commands.recipes.reading import read_document
from tests.conftest import ROOT

EXPERIMENTS = ROOT / "experiments"
FOLDER = EXPERIMENTS / "overlays" / "as_published"

CAPTIONS = 5
"""Of an image. A published epoch goes through all pairs of image and caption; ours draw one caption, a fifth of it."""

ADAM = {"model.weight_decay": 0.0, "model.warmup_steps": 0, "model.schedule": "constant"}
RESNET = {
    "model.image_encoder": "torchvision/resnet50",
    "model.image_weights": "imagenet",
    "model.pooling": "mean",
    "model.normalize": False,
    "model.input_dropout": 0.0,
    "data.encoder": None,
    "data.encoder_weights": None,
    "data.image_size": 224,
}
UCM = {"data.repeated": "keep", "data.min_count": 2, "data.captions_per_image": 1}
"""Every caption as often as it is written; words seen once are unknown."""
SENTENCE_CODE = {
    "model.word_input": "embedding",
    "model.word_dim": 300,
    "model.hidden_dim": 1024,
    "model.layers": 2,
    "model.cell": "lstm",
    "model.code": "states",
}

VISUAL_BERT_WEIGHTS = {"model.architecture": "visual_bert", "model.weights": "uclanlp/visualbert-vqa-coco-pre"}
VISUAL_BERT = {**VISUAL_BERT_WEIGHTS, "data.tokenizer": "google-bert/bert-base-uncased"}
REGIONS = {"data.encoder": "frcnn-vg", "data.encoder_weights": "unc-nlp/frcnn-vg-finetuned"}
STUDENT = {
    "trainer.max_epochs": 1,
    "trainer.gradient_clip_val": None,
    "model.convolutions": [16, 32, 64],
    "model.fusion_dim": 512,
    "model.loss": "bce",
    "model.dropout": 0.0,
    "model.prior_bias": False,
    "data.targets": "hard",
    "data.per_image": 4,
    "data.per_label": None,
    "data.threshold": None,
    "data.sample_fraction": 0.1,
    "data.sample_seed": 42,
    "data.source.tokenizer": "google-bert/bert-base-uncased",
    "data.source.max_tokens": 32,
    "data.source.batch_size": 64,
    "data.source.captions_per_image": "average",
    **ADAM,
}
LIGHT = {
    "model.architecture": "light",
    "model.weights": "google-bert/bert-base-uncased",
    "model.word_dim": 768,
    "model.hidden_dim": 256,
    "model.head_only": False,
    "data.source.encoder": None,
    "data.source.encoder_weights": None,
}
TRANSFER = {
    "trainer.max_epochs": 10,
    "trainer.gradient_clip_val": None,
    "model.cut_depth": None,
    "model.transfer_head": True,
    "model.dropout": 0.0,
    "model.prior_bias": False,
    "data.max_tokens": 32,
    "data.batch_size": 64,
    **VISUAL_BERT,
    **REGIONS,
    **ADAM,
}

PUBLISHED = {
    "attention_rnn": {
        "data.image_size": 224,
        "model.attention": "bahdanau",
        "model.region_dim": 256,
        "model.hidden_dim": 512,
        "model.cell": "lstm",
        "model.image_encoder": None,  # the CNN is frozen, its features are stored
        "model.pooled_side": None,  # 7 x 7 regions
        "model.start_pooling": None,
        "model.dot_bias": False,  # the text; the sample code has one
        "model.dot_scaled": False,
        "model.normalize": False,
        "model.gated": False,
        "model.positions": False,
        "model.tied_embeddings": False,
        "model.region_dropout": 0.0,
        "model.label_smoothing": 0.0,
        "model.doubly_stochastic": 0.0,
        "model.bag_of_words_weight": 0.0,
        "model.attention_supervision": 0.0,
        "model.scheduled_sampling": 0.0,
        "model.mbr_reranking": False,
        "model.retrieval_images": 0,
    },
    "dual_transfer": {
        "trainer.max_epochs": 2 * CAPTIONS,
        "trainer.accumulate_grad_batches": 1,
        "trainer.precision": None,
        "trainer.gradient_clip_val": None,
        "model.as_published": True,
        "model.image_encoder": "efficientnet-b4",
        "model.image_weights": "advprop",
        "model.language_model": "gpt2",
        "model.language_weights": "gpt2",
        "model.merging": "mlp",
        "model.gradient_checkpointing": True,
        "model.freeze_image": False,
        "model.lr": 3e-5,
        "model.lr_pretrained": 3e-5,
        "model.label_smoothing": 0.0,
        "model.beams": 5,
        "model.no_repeat_ngram_size": 2,
        "model.mbr_reranking": False,
        "data.tokenizer": "gpt2",
        "data.max_tokens": 36,
        "data.image_size": 380,
        "data.normalization": "advprop",
        "data.batch_size": 8,
        "data.eval_batch_size": 16,
        "data.captions_per_image": 1,
        **ADAM,
    },
    "emotion_teacher": {
        "trainer.max_epochs": 50,
        "trainer.gradient_clip_val": None,
        "model.head_only": True,
        "model.loss": "bce",
        "model.lr": 0.01,
        "model.dropout": 0.0,
        "model.prior_bias": False,
        "data.max_tokens": 32,
        "data.batch_size": 64,
        "data.merge_synonyms": False,
        **VISUAL_BERT,
        **REGIONS,
        **ADAM,
    },
    "emotion_pseudo_labels": {
        "data.max_tokens": 32,
        "data.captions_per_image": "average",
        **VISUAL_BERT,
        **REGIONS,
    },
    "emotion_student": {**STUDENT, **LIGHT, "model.lr": 0.01, "model.lr_pretrained": 0.01},
    "emotion_student of visual_bert": {
        **STUDENT,
        **VISUAL_BERT_WEIGHTS,
        "model.head_only": True,
        "model.lr": 0.1,  # in the code
        "model.lr_pretrained": 0.1,
        **{name.replace("data.", "data.source."): value for name, value in REGIONS.items()},
    },
    "emotion_student of bert_resnet": {
        **STUDENT,
        "model.architecture": "bert_resnet",
        "model.weights": "google-bert/bert-base-uncased",
        "model.image_encoder": "torchvision/resnet50",
        "model.image_weights": "imagenet",
        "model.head_only": False,
        "model.lr": 0.01,
        "model.lr_pretrained": 0.01,
        "data.source.encoder": None,
        "data.source.encoder_weights": None,
    },
    "emotion_transfer": {**TRANSFER, "model.freeze_transferred": False, "model.lr": 0.1, "model.lr_pretrained": 0.1},
    "emotion_transfer, AnB of light": {
        **TRANSFER,
        "model.freeze_transferred": True,
        "model.lr": 0.01,
        "model.lr_pretrained": 0.01,
    },
    "ucm_text_autoencoder": {
        "trainer.max_epochs": 20 * CAPTIONS,
        "trainer.gradient_clip_val": 1.0,
        "model.dropout": 0.5,
        "model.word_dropout": 0.0,
        "model.code_dropout": 0.0,
        "model.reverse_input": False,
        "model.scheduled_sampling": 0.5,
        "model.scheduled_sampling_epochs": 0,
        "model.crossover": 0.0,
        "model.word_replacement": 0.0,
        "model.deduplicate": False,
        "model.label_smoothing": 0.0,
        "model.lr": 1e-3,
        "data.batch_size": 32,
        **SENTENCE_CODE,
        **UCM,
        **ADAM,
    },
    "ucm_multilabel": {
        "trainer.max_epochs": 10 + 20,
        "model.hidden_dims": [1000, 100],
        "model.dropout": 0.5,
        "model.fine_tune_epochs": 10,
        "model.fine_tune_blocks": None,
        "model.lr_pretrained": 1e-5,
        "model.lr_first": None,
        "model.lr": 1e-3,
        "model.loss": "bce",
        "model.threshold": 0.6,
        "data.batch_size": 32,
        "model.dihedral": False,
        "model.views": 1,
        "model.mixup": 0.0,
        **RESNET,
        **ADAM,
    },
    "ucm_distillation": {
        "trainer.max_epochs": 20 * CAPTIONS,
        "model.text_lr_factor": 0.01,
        "model.distance": "mse",
        "model.normalized": True,
        "model.label_weight": 0.0,
        "model.hidden_dims": [],
        "model.reverse_input": False,
        "model.lr": 1e-3,
        "model.lr_pretrained": 1e-3,
        "data.batch_size": 16,
        **SENTENCE_CODE,
        **RESNET,
        **UCM,
        **ADAM,
    },
    "ucm_captioning": {
        "trainer.max_epochs": 10 * CAPTIONS,
        "trainer.check_val_every_n_epoch": CAPTIONS,
        "model.entry": "state",
        "model.decoder": "code",
        "model.attention": None,
        "model.attend_code": False,
        "model.label_weight": 0.0,
        "model.hidden_dims": [],
        "model.dropout": 0.5,
        "model.word_dropout": 0.0,
        "model.scheduled_sampling": 0.0,
        "model.label_smoothing": 0.0,
        "model.lr": 1e-3,
        "model.lr_pretrained": 1e-3,
        "model.val_beams": 1,
        "model.beams": 1,
        "model.mbr_reranking": False,
        "model.retrieval_images": 0,
        "data.batch_size": 16,
        **SENTENCE_CODE,
        **RESNET,
        **UCM,
        **ADAM,
    },
}
EMOTIONS, UCM_RECIPE = "emotion_as_published", "ucm_as_published"
STAGES = {
    "emotion_teacher": (EMOTIONS, "teacher", {}),
    "emotion_pseudo_labels": (EMOTIONS, "pseudo_labels", {}),
    "emotion_student": (EMOTIONS, "student", {"architecture": "light"}),
    "emotion_student of visual_bert": (EMOTIONS, "student", {}),
    "emotion_student of bert_resnet": (EMOTIONS, "student", {"architecture": "bert_resnet"}),
    "emotion_transfer": (EMOTIONS, "AnB+", {}),
    "emotion_transfer, AnB of light": (EMOTIONS, "AnB", {"architecture": "light"}),
    "ucm_text_autoencoder": (UCM_RECIPE, "text", {}),
    "ucm_multilabel": (UCM_RECIPE, "labels", {}),
    "ucm_distillation": (UCM_RECIPE, "distil_slow", {}),
    "ucm_captioning": (UCM_RECIPE, "caption_slow", {}),
}
"""Recipe, stage and variables of rows that are one stage of a recipe; the others are an experiment and its overlay."""
OVERLAYS = sorted(FOLDER.glob("*.yaml"))
PLACES = {
    "seed_everything", "run_dir", "trainer.accelerator", "model.init_from", "model.text_from", "model.image_from",
    "data.root", "data.labels", "data.source.root", "data.target.root",
}  # fmt: skip
"""What a recipe sets and no source gives."""


def stages(recipe, **variables):
    """The resolved stages of a recipe by their name."""
    path = EXPERIMENTS / "recipes" / f"{recipe}.yaml"
    return {stage.name: stage for stage in resolve(read_document(path), path, variables, Path("RUNS")).stages}


def command(name):
    """The words of a row, as for ``fit``."""
    if name not in STAGES:
        return ["--config", str(EXPERIMENTS / f"{name}.yaml"), "--config", str(FOLDER / f"{name}.yaml")]
    recipe, stage, variables = STAGES[name]
    _, *words = stages(recipe, **variables)[stage].command
    at = [place for place, word in enumerate(words) if word in ("--ckpt_path", "--run_dir")]
    return [word for place, word in enumerate(words) if place not in at and place - 1 not in at]


def settings(content, prefix=""):
    """Setting to value, such as ``model.lr``; class paths and the level ``init_args`` are left out."""
    found = {}
    for key, value in content.items():
        if key == "init_args":
            found |= settings(value, prefix)
        elif isinstance(value, dict):
            found |= settings(value, f"{prefix}{key}.")
        elif key != "class_path":
            found[f"{prefix}{key}"] = value
    return found


def test_every_overlay_has_its_list():
    assert {path.stem for path in OVERLAYS} == {name for name in PUBLISHED if " " not in name}
    assert set(STAGES) | {"attention_rnn", "dual_transfer"} == set(PUBLISHED)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_alone_has_the_published_values(path):
    given = settings(yaml.safe_load(path.read_text()))
    assert given
    assert {key: PUBLISHED[path.stem].get(key, "not there") for key in given} == given


@pytest.mark.parametrize("name", STAGES)
def test_every_setting_of_the_recipe_is_in_the_list(name):
    options = {word[2:].partition("=")[0].replace("init_args.", "") for word in command(name) if "=" in word}
    assert options - PLACES - set(PUBLISHED[name]) == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(monkeypatch, capsys, name):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", *command(name), "--print_config"])
    assert not end.value.code
    resolved = settings(yaml.safe_load(capsys.readouterr().out))
    published = PUBLISHED[name]
    assert {key: resolved.get(key, "not there") for key in published} == published


def test_recipes_end_where_the_papers_do():
    """Published rows are of the last epoch, the emotions' of the training rows; every arm starts where it says."""
    found = stages(EMOTIONS)
    for arm in ("AnB", "AnB+"):
        assert found[f"train_{arm}"].command[:4] == (
            "test", "--ckpt_path", f"RUNS/seed-42/{arm}/checkpoints/last.ckpt", "--data.init_args.evaluate_on=train"
        )  # fmt: skip
        assert "--model.init_args.init_from=RUNS/seed-42/student" in found[arm].command
    assert "RUNS/seed-42/teacher/checkpoints/last.ckpt" in found["pseudo_labels"].command
    found = stages(UCM_RECIPE)
    rates = {"frozen": 0, "slow": 0.01, "same": 1}
    for arm, rate in rates.items():
        assert f"--model.init_args.text_lr_factor={rate}" in found[f"distil_{arm}"].command
        assert f"--model.init_args.image_from=RUNS/seed-17/distil_{arm}" in found[f"caption_{arm}"].command
        assert found[f"test_caption_{arm}"].command[2] == f"RUNS/seed-17/caption_{arm}/checkpoints/last.ckpt"
    for name in ("distil_slow", "caption_control"):
        assert "--model.init_args.image_from=RUNS/seed-17/labels" in found[name].command
