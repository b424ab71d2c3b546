"""Checkpoints of the version before give the numbers that its own code gave.

tests/data/old_checkpoints holds what commit 7f928c0 wrote for every method after a few steps on scenes: tensors as
.safetensors, everything else as JSON, beside it the data module's options and the figures computed by that commit.
`layouts.json` holds hyper-parameters, names and shapes of networks that are too large to be kept.
"""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

import cli
from core.renamed import METHODS as RENAMED_METHODS
from datamodules.scenes import SceneCaptions
from lightning_modules import METHODS, load_captioner, load_classifier
from lightning_modules.captioning import CaptioningModule
from lightning_modules.loading import load_module
from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "data" / "old_checkpoints"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
LAYOUTS = json.loads((FOLDER / "layouts.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def restored(value, tensors):
    """A part of a checkpoint as it was: JSON has no tensors, tuples, infinities and keys that are numbers."""
    if isinstance(value, list):
        return [restored(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"!tensor": name}:
            return tensors[name].float() if tensors[name].dtype == torch.float16 else tensors[name]
        case {"!tuple": items}:
            return tuple(restored(items, tensors))
        case {"!float": text}:
            return float(text)
        case {"!items": items}:
            return {key: restored(one, tensors) for key, one in items}
    return {key: restored(one, tensors) for key, one in value.items()}


def assemble(name, folder):
    """Writes a checkpoint as the old version did; returns its path and what is known of it."""
    known = json.loads((FOLDER / f"{name}.json").read_text())
    path = folder / f"{name}.ckpt"
    torch.save(restored(known["checkpoint"], load_file(FOLDER / f"{name}.safetensors")), path)
    return path, known


def test_every_method_of_the_old_version_is_there():
    assert len(NAMES) == 10
    methods = {json.loads((FOLDER / f"{name}.json").read_text())["checkpoint"]["inference"]["method"] for name in NAMES}
    assert {RENAMED_METHODS.get(method, method) for method in methods} <= set(METHODS)
    assert {layout["method"] for layout in LAYOUTS} == methods


@pytest.fixture(scope="module")
def scenes():
    """Data module, images, captions and a batch, by the options that a checkpoint names."""
    made = {}

    def make(options):
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            data = SceneCaptions(**options)
            data.prepare_data()
            images = [data.open_image(example) for example in data.examples("val")]
            texts = [list(example.captions) for example in data.examples("val")]
            made[key] = images, texts, next(iter(data.val_dataloader()))
        return made[key]

    return make


@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers(name, scenes, tmp_path):
    path, known = assemble(name, tmp_path)
    (images, texts, batch), expected = scenes(known["data"]), known["expected"]
    expected.pop("resumed", None)
    module = load_module(path)
    with torch.no_grad():
        found = {"loss": module.step_loss(batch)[0].item(), **outputs(module, batch)}
    if "captions" in expected:
        captions, old = load_captioner(path).caption(images), expected["captions"]
        assert [[text for text, _ in one] for one in captions] == [[text for text, _ in one] for one in old]
        found["captions"], expected["captions"] = ([[value for _, value in one] for one in c] for c in (captions, old))
    if "probabilities" in expected:
        found["probabilities"] = load_classifier(path).label(images, texts).tolist()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(torch.tensor(found[key]), torch.tensor(value), **CLOSE)


def outputs(module, batch):
    """A few numbers of the networks, under the names that the figures were stored by."""
    captions = batch["caption_ids"], batch["caption_lengths"]
    if isinstance(module, CaptioningModule):
        output = module.captioner(module.captioner.encode(batch), *captions, batch["image_index"])
        return {"logits": output.logits[:3, :6].tolist()}
    if module.method == "text_autoencoder":
        return {"logits": module.teacher_forced(*captions).logits[:3, :6].tolist()}
    if module.method == "distillation":
        return {"codes": [module.coder(batch)[:2].tolist(), module.text(*captions)[:2].tolist()]}
    return {}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout["method"])
def test_networks_with_a_cnn_or_bert_of_their_own_have_the_same_tensors(layout, tmp_path):
    checkpoint = {
        "inference": {"method": layout["method"]},
        "hyper_parameters": restored(layout["hyper_parameters"], {}),
        "state_dict": {name: torch.zeros(shape) for name, shape in layout["tensors"].items()},
    }
    torch.save(checkpoint, tmp_path / "old.ckpt")
    module = load_module(tmp_path / "old.ckpt")
    assert len(module.state_dict()) == len(layout["tensors"])


def test_an_interrupted_run_of_the_old_version_goes_on_to_the_same_weights(monkeypatch, tmp_path):
    """Optimiser, schedule, order of the data and counters are read, too."""
    monkeypatch.chdir(ROOT)
    path, known = assemble("emotion_text", tmp_path)
    model = {"architecture": "text", "buckets": 32, "lr": 1.0, "weight_decay": 0.0, "warmup_steps": 3}
    config = {
        "seed_everything": 7,
        "trainer": {"max_epochs": 4, "accelerator": "cpu", "enable_progress_bar": False, "num_sanity_val_steps": 0},
        "model": {"class_path": "lightning_modules.EmotionLabeller", "init_args": model},
        "data": {"class_path": "datamodules.scenes.SceneCaptions", "init_args": known["data"]},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    run, resumed = tmp_path / "run", known["expected"]["resumed"]
    options = ["--config", str(tmp_path / "run.yaml"), "--ckpt_path", str(path), "--run_dir", str(run), "--wandb=off"]
    assert cli.main(["fit", *options]) == 0
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == resumed["global_step"]
    head = last["state_dict"]["classifier.head.weight"][:, :6]
    torch.testing.assert_close(head, torch.tensor(resumed["head"]), rtol=1e-6, atol=1e-6)
