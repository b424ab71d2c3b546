"""The methods at the sizes of their papers, with random weights, on synthetic scenes."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from datamodules.base import CaptionDataModule
from datamodules.scenes import SceneCaptions
from lightning_modules import METHODS
from lightning_modules.base import BaseModule

EXPERIMENTS = Path(__file__).resolve().parent.parent.parent / "experiments"
NAMES = (
    "attention_rnn",
    "dual_transfer",
    "transformer_captioner",
    "prefix_classifier",
    "emotion_teacher",
    "emotion_transfer",
    "ucm_multilabel",
    "ucm_text_autoencoder",
    "ucm_distillation",
    "ucm_captioning",
)
"""Experiments, one for each method."""
VOCABULARIES = {"gpt2": 50_259, "bert": 30_522}
"""Tokens of the published tokenizers; all others have a vocabulary of words."""
WORDS = 10_000
_STAGES = ("init_from", "text_from", "image_from", "word_vectors")


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        images: in an epoch.
        batch_size: None: the experiment's own.
        workers: workers of the loader.
    """

    images: int
    batch_size: int | None
    workers: int


def settings_of(name: str, small: bool) -> tuple[type[BaseModule], dict[str, Any], dict[str, Any]]:
    """Class, options and data options of an experiment; `small`: of its twin in experiments/offline."""
    files = [EXPERIMENTS / "offline" / f"{name}.yaml"] if small else published(name)
    model: dict[str, Any] = {}
    data: dict[str, Any] = {}
    kind = ""
    for path in files:
        settings = yaml.safe_load(path.read_text())
        kind = settings["model"].get("class_path", kind)
        model |= settings["model"].get("init_args", {})
        data |= settings.get("data", {}).get("init_args", {})
    method = next(one for one in METHODS.values() if one.__name__ == kind.rpartition(".")[2])
    return method, {key: value for key, value in model.items() if not _from_elsewhere(key)}, data


def published(name: str) -> list[Path]:
    """Files of an experiment at the size of its paper."""
    overlay = EXPERIMENTS / "overlays" / "as_published" / f"{name}.yaml"
    return [EXPERIMENTS / f"{name}.yaml", *([overlay] if overlay.is_file() else [])]


def _from_elsewhere(option: str) -> bool:
    """Whether an option names weights or a run, which there are none of."""
    return option.endswith("weights") or option in _STAGES


def make_data(name: str, size: Size, small: bool) -> CaptionDataModule:
    """Scenes in the format that an experiment reads: images of its size, or features of its frozen encoder."""
    given = settings_of(name, small)[2]
    known: dict[str, Any] = {
        key: given[key] for key in ("batch_size", "image_size", "captions_per_image", "encoder") if key in given
    }
    options: dict[str, Any] = {"image_size": 64 if small else 224, "num_workers": size.workers}
    options |= known
    if isinstance(options.get("captions_per_image"), str):
        options["captions_per_image"] = 1
    if size.batch_size is not None:
        options["batch_size"] = size.batch_size
    counts = {"num_train": size.images, "num_val": 8, "num_test": 8}
    return SceneCaptions(labels="emotions" if "emotion" in name else "objects", **{**options, **counts})


def make_module(name: str, data: CaptionDataModule, small: bool, **options: Any) -> BaseModule:
    """The module of an experiment with random weights and nothing left to chance in a step."""
    method, given, section = settings_of(name, small)
    weights = {key: None for key in method.options() if key.endswith("weights")}
    dropouts = {key: 0.0 for key in method.options() if key.endswith("dropout") and key != "teacher_dropout"}
    chances = dict.fromkeys(("scheduled_sampling", "crossover", "word_replacement", "mixup"), 0.0)
    chances = {key: value for key, value in chances.items() if key in method.options()}
    if not small and "vocab_size" in method.options():
        tokenizer = str(section.get("tokenizer", ""))
        options["vocab_size"] = next((size for word, size in VOCABULARIES.items() if word in tokenizer), WORDS)
    torch.manual_seed(0)
    module = method.for_data(data, **{**given, **weights, **dropouts, **chances, **options})
    without_chance(module)
    return module


def without_chance(module: nn.Module) -> None:
    """Switches off what the options do not reach: dropout and stochastic depth of library networks."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        parameters = getattr(part, "_global_params", None)
        if parameters is not None and hasattr(parameters, "drop_connect_rate"):
            part._global_params = parameters._replace(drop_connect_rate=0.0)


def same_weights(module: BaseModule, other: BaseModule) -> BaseModule:
    """Gives a module the weights of another one."""
    module.load_state_dict(copy.deepcopy(other.state_dict()))
    return module
