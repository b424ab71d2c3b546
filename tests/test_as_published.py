"""The overlays in experiments/overlays/as_published hold the published values, number by number.

The table is the list of the sources, written down apart from the overlays. What is compared is what the command line
makes of experiment and overlay, defaults of the classes included.
"""

import pytest
import yaml

import cli
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
        "data.captions_per_image": 1,
        **ADAM,
    },
    "emotion_teacher": {
        "trainer.max_epochs": 50,
        "trainer.gradient_clip_val": None,
        "model.architecture": "visual_bert",
        "model.weights": "uclanlp/visualbert-vqa-coco-pre",
        "model.head_only": True,
        "model.loss": "bce",
        "model.lr": 0.01,
        "model.dropout": 0.0,
        "data.tokenizer": "google-bert/bert-base-uncased",
        "data.max_tokens": 32,
        "data.batch_size": 64,
        "data.merge_synonyms": False,
        **ADAM,
    },
    "emotion_pseudo_labels": {
        "model.architecture": "visual_bert",
        "model.weights": "uclanlp/visualbert-vqa-coco-pre",
        "data.tokenizer": "google-bert/bert-base-uncased",
        "data.max_tokens": 32,
        "data.captions_per_image": "average",
    },
    "emotion_student": {
        "trainer.max_epochs": 1,
        "trainer.gradient_clip_val": None,
        "model.architecture": "light",
        "model.weights": "google-bert/bert-base-uncased",
        "model.word_dim": 768,
        "model.hidden_dim": 256,
        "model.lr": 0.01,
        "model.lr_pretrained": 0.01,
        "model.loss": "bce",
        "model.dropout": 0.0,
        "data.targets": "hard",
        "data.per_image": 4,
        "data.per_label": None,
        "data.threshold": None,
        "data.sample_fraction": 0.1,
        "data.sample_seed": 42,
        "data.source.max_tokens": 32,
        "data.source.batch_size": 64,
        "data.source.captions_per_image": "average",
        **ADAM,
    },
    "emotion_transfer": {
        "trainer.max_epochs": 10,
        "trainer.gradient_clip_val": None,
        "model.cut_depth": None,
        "model.transfer_head": True,
        "model.freeze_transferred": False,
        "model.architecture": "light",
        "model.weights": "google-bert/bert-base-uncased",
        "model.word_dim": 768,
        "model.hidden_dim": 256,
        "model.lr": 0.01,
        "model.lr_pretrained": 0.01,
        "model.dropout": 0.0,
        "data.max_tokens": 32,
        "data.batch_size": 64,
        **ADAM,
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
GIVEN = {"emotion_student": ["--data.init_args.labels=PSEUDO"]}
"""What has no default and is no setting of the paper."""


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
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_of_the_overlay_is_in_the_list(name):
    given = settings(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    assert given
    assert set(given) - set(PUBLISHED[name]) == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(monkeypatch, capsys, name):
    monkeypatch.chdir(ROOT)
    files = [EXPERIMENTS / f"{name}.yaml", FOLDER / f"{name}.yaml"]
    configs = [word for path in files for word in ("--config", str(path))]
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", *configs, *GIVEN.get(name, []), "--print_config"])
    assert not end.value.code
    resolved = settings(yaml.safe_load(capsys.readouterr().out))
    published = PUBLISHED[name]
    assert {key: resolved.get(key, "not there") for key in published} == published
