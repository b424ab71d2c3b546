"""Names of the version before, read for one version more: options, checkpoint entries, methods, metrics.

Everything that reads something older goes through this file, so that it can be deleted as a whole.
"""

import math
from collections.abc import Mapping
from typing import Any

OPTIONS = {
    "region_width": "region_dim",
    "state_width": "hidden_dim",
    "word_width": "word_dim",
    "attention_width": "attention_dim",
    "fusion_width": "fusion_dim",
    "decoder_width": "decoder_dim",
    "language_width": "language_dim",
    "width": "bert_dim",
    "hidden": "hidden_dims",
    "own_words": "scheduled_sampling",
    "own_words_epochs": "scheduled_sampling_epochs",
    "consensus": "mbr_reranking",
    "neighbours": "retrieval_images",
    "neighbour_share": "retrieval_weight",
    "guided": "attend_code",
    "whole_epochs": "fine_tune_epochs",
    "learning_blocks": "fine_tune_blocks",
    "symmetries": "dihedral",
    "text_rate": "text_lr_factor",
    "word_weight": "bag_of_words_weight",
    "crossed": "crossover",
    "replaced": "word_replacement",
    "distinct": "deduplicate",
    "words": "word_input",
    "backwards": "reverse_input",
    "tied": "tied_embeddings",
}
"""Options of modules, old name to new; `sampling_*` of the attention RNN are converted by `renamed_options`."""

METHODS = {"ucm_captioning": "code_captioning"}
"""Names by which checkpoints know their method."""

METRICS = {"truth": "fact_f1"}
"""Metric names without their prefix."""

ROWS = {
    "human against the others": "leave-one-out human",
    "image-blind floor": "language-only baseline",
    "typical phrasing": "modal-template oracle",
    "ceiling": "upper bound",
}
"""Rows of ``metrics.json``: baselines and upper bounds beside a run's own figures."""

_MODULES = {"labeller": "classifier", "bank": "retrieval_index"}
"""Parts of the names of tensors, between dots."""

_SAMPLING = ("sampling_start", "sampling_increase", "sampling_maximum")


def renamed_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a module with the names of this version.

    Args:
        settings: name to value, with old or new names.

    >>> renamed_options({"state_width": 8, "lr": 0.1})
    {'hidden_dim': 8, 'lr': 0.1}
    >>> renamed_options({"sampling_start": 2, "sampling_increase": 0.05, "sampling_maximum": 0.25})
    {'scheduled_sampling': 0.25, 'scheduled_sampling_start': 1, 'scheduled_sampling_epochs': 5}
    """
    result = {OPTIONS.get(name, name): value for name, value in settings.items() if name not in _SAMPLING}
    if any(name in settings for name in _SAMPLING):
        # the share grew by the increase from the start epoch on: 0 in the epoch before
        start, most = settings.get("sampling_start"), settings.get("sampling_maximum", 0.25)
        result["scheduled_sampling"] = 0.0 if start is None else most
        if start is not None:
            result["scheduled_sampling_start"] = start - 1
            result["scheduled_sampling_epochs"] = math.ceil(most / settings.get("sampling_increase", 0.01) - 1e-9)
    return result


def old_options(settings: Mapping[str, Any]) -> dict[str, str]:
    """The old names among the options of a module, and what to write instead."""
    found = {name: OPTIONS[name] for name in settings if name in OPTIONS}
    return found | {name: "scheduled_sampling, _start and _epochs" for name in settings if name in _SAMPLING}


DATA_OPTIONS = {"average_token_ids": "captions_per_image=average"}
"""Options of data modules, old name to what to write instead where they were true."""


def renamed_data_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a data module, and of those inside it, with the names of this version.

    Args:
        settings: name to value, with old or new names.

    >>> renamed_data_options({"average_token_ids": True, "root": "x"})
    {'root': 'x', 'captions_per_image': 'average'}
    """
    result = {name: _inner(value) for name, value in settings.items() if name not in DATA_OPTIONS}
    return result | {"captions_per_image": "average"} if settings.get("average_token_ids") else result


def old_data_options(settings: Mapping[str, Any]) -> dict[str, str]:
    """The old names among the options of a data module, and of those inside it, and what to write instead.

    >>> old_data_options({"source": {"class_path": "x", "init_args": {"average_token_ids": False}}})
    {'average_token_ids': 'captions_per_image=average'}
    """
    found = {name: DATA_OPTIONS[name] for name in settings if name in DATA_OPTIONS}
    for value in settings.values():
        if isinstance(value, Mapping) and isinstance(value.get("init_args"), Mapping):
            found |= old_data_options(value["init_args"])
    return found


def _inner(value: Any) -> Any:
    """A data module among the options of another one."""
    if isinstance(value, Mapping) and isinstance(value.get("init_args"), Mapping):
        return {**value, "init_args": renamed_data_options(value["init_args"])}
    return value


def renamed_metric(name: str) -> str:
    """Name of a metric in this version, with or without its prefix.

    >>> renamed_metric("val/truth"), renamed_metric("bleu4")
    ('val/fact_f1', 'bleu4')
    """
    prefix, slash, key = name.rpartition("/")
    return prefix + slash + METRICS.get(key, key)


def renamed_row(name: str) -> str:
    """Name of a row of ``metrics.json`` in this version.

    >>> renamed_row("typical phrasing"), renamed_row("constant caption")
    ('modal-template oracle', 'constant caption')
    """
    return ROWS.get(name, name)


def renamed_tensor(name: str) -> str:
    """Name of a tensor of a state dict in this version.

    >>> renamed_tensor("captioner.coder.labeller.head.0.weight")
    'captioner.coder.classifier.head.0.weight'
    """
    return ".".join(_MODULES.get(part, part) for part in name.split("."))


def renamed_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the names of this version; one of this version comes back as it is.

    Args:
        checkpoint: as it was read.
    """
    inference = checkpoint.get("inference")
    if not isinstance(inference, dict):
        return checkpoint
    result = dict(checkpoint)
    result["inference"] = dict(inference)
    method = inference.get("method")
    if isinstance(method, str):
        result["inference"]["method"] = METHODS.get(method, method)
    if isinstance(inference.get("decoding"), dict):
        result["inference"]["decoding"] = renamed_options(inference["decoding"])
    if isinstance(checkpoint.get("hyper_parameters"), dict):
        result["hyper_parameters"] = renamed_options(checkpoint["hyper_parameters"])
    if isinstance(checkpoint.get("state_dict"), dict):
        result["state_dict"] = {renamed_tensor(name): value for name, value in checkpoint["state_dict"].items()}
    return result
