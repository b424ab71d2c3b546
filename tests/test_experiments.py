"""Every experiment file works: offline twins train a batch, all others are built without being run."""

import itertools
import re
from pathlib import Path

import lightning.pytorch.strategies
import pytest
import yaml
from lightning import Trainer

import cli
import datamodules.base as base
import datamodules.shards.datamodule
import networks.decoders.language
import networks.emotion.bert_resnet
import networks.emotion.visual_bert
from datamodules.loading.tokenization import WordTokenizer
from datamodules.pseudo_labels import PseudoLabels
from datamodules.shards import ShardedCaptions
from datamodules.shards.index import ShardIndex
from datamodules.ucm_captions import UCMCaptions
from lightning_modules import METHODS
from lightning_modules.captioning import CaptioningModule
from networks.decoders.language import GPT2_SIZES
from networks.emotion.bert import build_bert
from tests.conftest import ROOT
from tests.distributed import CPUSharded

FOLDER = ROOT / "experiments"
OFFLINE = sorted((FOLDER / "offline").glob("*.yaml"))
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))
OVERLAYS = sorted((FOLDER / "overlays").rglob("*.yaml"))
PARTS = sorted((FOLDER / "recipes/parts").glob("*.yaml"))
"""What recipes extend, not run themselves."""
ALL = sorted(FOLDER.rglob("*.yaml"))
STAGES = {"emotion_pseudo_labels", "emotion_student"}
"""Twins that need another stage's run; tests/lightning_modules/test_emotion_stages.py runs them."""
LABELS = {"Command", "Result"}
"""What every header says; those of experiments also name the paper, or the published table that they aim at."""


def name_of(path):
    return str(path.relative_to(FOLDER))


def header(path):
    """What the comment at the top says, by its labels: ``# Command: ...``."""
    lines = itertools.takewhile(lambda line: line.startswith(("#", "about:")), path.read_text().splitlines())
    return dict(re.findall(r"^# (\w+): +(\S.*)$", "\n".join(lines), re.MULTILINE))


def class_of(path):
    return yaml.safe_load(path.read_text())["model"]["class_path"].removeprefix("lightning_modules.")


def method_of(path):
    return next(method for method in METHODS.values() if method.__name__ == class_of(path))


def captions(path):
    """Whether the overlays of captioners are for an experiment: of one that needs no earlier stage."""
    return issubclass(method_of(path), CaptioningModule) and "text_from" not in method_of(path).options()


def test_every_method_has_an_experiment_and_a_twin():
    methods = {method.__name__ for method in METHODS.values()}
    assert {class_of(path) for path in EXPERIMENTS} == methods
    assert {class_of(path) for path in OFFLINE} == methods


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiment_has_a_twin_that_needs_nothing(path):
    """Of its own name, or of the same method where its header says which."""
    twin = FOLDER / header(path).get("Twin", f"offline/{path.name}")
    assert twin in OFFLINE
    assert class_of(twin) == class_of(path)


@pytest.mark.parametrize("path", OFFLINE, ids=name_of)
def test_twin_has_its_experiment(path):
    assert FOLDER / path.name in EXPERIMENTS


@pytest.mark.parametrize("path", [path for path in OVERLAYS if path.parent != FOLDER / "overlays"], ids=name_of)
def test_overlay_has_its_experiment(path):
    assert FOLDER / path.name in EXPERIMENTS


@pytest.mark.parametrize("path", [path for path in ALL if path not in PARTS], ids=name_of)
def test_header_says_what_it_is_how_to_run_it_and_what_came_out(path):
    found = header(path)
    assert path.read_text().startswith(("# ", "about: "))
    assert set(found) >= (LABELS | {"Paper"} if path in EXPERIMENTS else LABELS)
    for name in re.findall(r"experiments/[\w/]+\.yaml", path.read_text()):
        assert (ROOT / name).is_file(), name
    if path.parent != FOLDER / "overlays":
        assert name_of(path) in found["Command"]


@pytest.mark.parametrize("path", [path for path in OFFLINE if path.stem not in STAGES], ids=lambda path: path.stem)
def test_offline_twin_runs(monkeypatch, path):
    monkeypatch.chdir(ROOT)
    small = ["--data.init_args.num_train=70", "--data.init_args.num_val=8", "--data.init_args.num_test=8"]
    assert cli.main(["fit", "--config", str(path), "--trainer.fast_dev_run=true", *small]) == 0


def shallow_bert(config, *, gradient_checkpointing):
    config.num_hidden_layers = 1
    return build_bert(config, gradient_checkpointing=gradient_checkpointing)


@pytest.fixture
def nothing_runs(monkeypatch):
    """Modules and trainers are built; nothing is trained, downloaded or read."""
    built = []
    # the private half of `fit`: the command line reads the options of a run from the public one's signature
    monkeypatch.setattr(Trainer, "_fit_impl", lambda self, model, *rest: built.append((self, model)))
    words = WordTokenizer(["a", "dog"], max_tokens=36)
    monkeypatch.setattr(base, "build_tokenizer", lambda *args, **kwargs: words)
    monkeypatch.setattr(base.CaptionDataModule, "examples", lambda self, split: [])
    monkeypatch.setattr(UCMCaptions, "vocabulary_captions", lambda self: [])
    monkeypatch.setattr(PseudoLabels, "label_names", ("joy", "fear"))
    none = ShardIndex(made_from="X", label_names=(), condition_names=(), splits={})
    monkeypatch.setattr(ShardedCaptions, "shard_index", none)
    monkeypatch.setattr(datamodules.shards.datamodule, "read_words", lambda folder: {"a": 9, "dog": 9})
    for module in (networks.emotion.visual_bert, networks.emotion.bert_resnet):  # twelve layers take seconds
        monkeypatch.setattr(module, "build_bert", shallow_bert)
    shallow = {name: (1, heads, width) for name, (_, heads, width) in GPT2_SIZES.items()}
    monkeypatch.setattr(networks.decoders.language, "GPT2_SIZES", shallow)
    return built


def build(nothing_runs, tmp_path, *configs):
    args = [option for path in configs for option in ("--config", str(path))]
    here = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--run_dir", str(tmp_path / "run"), "--wandb=off"]
    assert cli.main(["fit", *args, *here]) == 0
    return nothing_runs[-1]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_instantiates(monkeypatch, nothing_runs, tmp_path, path):
    monkeypatch.chdir(ROOT)
    _, module = build(nothing_runs, tmp_path, path)
    given = yaml.safe_load(path.read_text())["model"]["init_args"]
    assert {key: module.hparams[key] for key in given} == given


FOR_CAPTIONERS = ("memorise", "self_critical", "shards")
PAIRS = [
    (overlay, experiment)
    for overlay in OVERLAYS
    for experiment in EXPERIMENTS
    if overlay.name == experiment.name
    or (
        overlay.stem != "fsdp"  # alike for all methods, and Lightning's refuses a CPU
        and (overlay.parent.name == "overlays" and (overlay.stem not in FOR_CAPTIONERS or captions(experiment)))
    )
]


@pytest.mark.parametrize(("overlay", "experiment"), PAIRS, ids=lambda path: Path(path).stem)
def test_overlay_instantiates_on_its_experiment(monkeypatch, nothing_runs, tmp_path, overlay, experiment):
    monkeypatch.chdir(ROOT)
    _, module = build(nothing_runs, tmp_path, experiment, overlay)
    given = yaml.safe_load(overlay.read_text()).get("model", {}).get("init_args", {})
    assert {key: module.hparams[key] for key in given} == given


def test_overlay_of_divided_weights_writes_checkpoints_in_parts(monkeypatch, nothing_runs, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(lightning.pytorch.strategies, "FSDPStrategy", CPUSharded)  # Lightning's refuses a CPU
    trainer, _ = build(nothing_runs, tmp_path, FOLDER / "dual_transfer.yaml", FOLDER / "overlays" / "fsdp.yaml")
    assert isinstance(trainer.strategy, CPUSharded)
    assert trainer.strategy._state_dict_type == "sharded"
