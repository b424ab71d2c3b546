"""What the stages of distillation share: taking over parts of earlier runs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from core.checkpoints import read_checkpoint
from core.errors import UserError
from networks.classifiers.image_code import ImageCoder
from networks.encoders.build import build_encoder


def read_stage(path: str, argument: str, methods: tuple[str, ...]) -> dict[str, Any]:
    """Reads the checkpoint of an earlier stage.

    Args:
        path: run folder or checkpoint.
        argument: the hyper-parameter that names it, for messages.
        methods: what it may be.

    Raises:
        UserError: there is none, or it is of another method.
    """
    checkpoint = read_checkpoint(path)
    method = checkpoint["inference"].get("method")
    if method not in methods:
        raise UserError(f"{argument} '{path}' is of method {method!r}: expected {' or '.join(methods)}")
    return checkpoint


def check_same_words(checkpoint: Mapping[str, Any], inference: Mapping[str, Any], argument: str, path: str) -> None:
    """Words must have the same ids in both stages.

    Raises:
        UserError: they have not.
    """
    if checkpoint["inference"].get("tokenizer") != inference.get("tokenizer"):
        raise UserError(
            f"{argument} '{path}' was trained with another vocabulary than this data module has: use the same data "
            "settings (root, tokenizer, min_count, max_tokens) in all stages"
        )


def check_same_settings(
    checkpoint: Mapping[str, Any], own: Mapping[str, Any], names: tuple[str, ...], argument: str, path: str
) -> None:
    """Hyper-parameters that shape what is taken over must be those of the earlier stage.

    Raises:
        UserError: one is not.
    """
    theirs = checkpoint["hyper_parameters"]
    for name in names:
        if name in theirs and theirs[name] != own[name]:
            raise UserError(
                f"{argument} '{path}' has {name}={theirs[name]}, this run {name}={own[name]}: set "
                f"model.init_args.{name}={theirs[name]}"
            )


def part_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_submodule(
    module: nn.Module, weights: Mapping[str, Tensor], argument: str, path: str, added: str = "-"
) -> None:
    """Loads the weights of an earlier stage into a part of this one.

    Args:
        module: the part.
        weights: names as in the part's state dict.
        argument: the hyper-parameter that names the run.
        path: what it says.
        added: prefixes, separated by blanks, of what the part may have beyond the earlier one.

    Raises:
        UserError: they do not fit.
    """
    own = module.state_dict()
    wanted = {name for name in own if not name.startswith(tuple(added.split()))}
    wrong = sorted(wanted ^ set(weights)) or [name for name in sorted(wanted) if own[name].shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        here, there = (tuple(found[name].shape) if name in found else "none" for found in (own, weights))
        raise UserError(
            f"{argument} '{path}' does not fit: {len(wrong)} tensors differ, first '{name}' ({there} there, {here} "
            "here); give the widths of that run (config.yaml in its folder)"
        )
    module.load_state_dict(dict(weights), strict=False)


def load_image_codes(
    coder: ImageCoder, settings: Mapping[str, Any], inference: Mapping[str, Any], argument: str, path: str
) -> None:
    """Starts image codes from a classifier of pictures (stage b) or from a distilled coder (stage c).

    Args:
        coder: of this run.
        settings: this run's hyper-parameters.
        inference: what this run needs to look at pictures, see `BaseModule`.
        argument: the hyper-parameter that names the earlier run.
        path: what it says.

    Raises:
        UserError: it does not fit, or looks at pictures in another way.
    """
    checkpoint = read_stage(path, argument, ("multilabel", "distillation"))
    check_same_look(checkpoint, settings, inference, argument, path)
    weights = checkpoint["state_dict"]
    if checkpoint["inference"]["method"] == "multilabel":
        coder.load_classifier(part_of(weights, "classifier."), path)
    else:
        load_submodule(coder, part_of(weights, "coder."), argument, path)


def check_same_look(
    checkpoint: Mapping[str, Any],
    settings: Mapping[str, Any],
    inference: Mapping[str, Any],
    argument: str,
    path: str,
) -> None:
    """A head goes on with the features that it was trained on: of the same CNN, pooled and normalised alike.

    Shapes alone do not tell: SqueezeNet's regions have as many channels seen from one side or from eight.

    Raises:
        UserError: they are others.
    """
    check_same_settings(checkpoint, settings, ("image_encoder", "pooling", "normalize"), argument, path)
    check_same_features(checkpoint, inference, argument, path)


def check_same_features(checkpoint: Mapping[str, Any], inference: Mapping[str, Any], argument: str, path: str) -> None:
    """Stored features must be those of the same frozen CNN with the same weights.

    Raises:
        UserError: they are of another one.
    """
    theirs, own = (found.get("encoder") for found in (checkpoint["inference"], inference))
    if theirs is None or own is None:
        return
    if theirs["name"] != own["name"]:
        raise UserError(
            f"{argument} '{path}' learnt from features of {theirs['name']}, this run has those of {own['name']}: set "
            f"data.init_args.encoder={theirs['name']}"
        )
    same = theirs["digest"] == own["digest"] if theirs["digest"] and own["digest"] else theirs == own
    if not same:
        raise UserError(
            f"{argument} '{path}' learnt from features of {theirs['name']} with the weights {theirs['weights']}, this "
            f"run has {own['weights']}: set data.init_args.encoder_weights to the same"
        )


def load_cnn(coder: ImageCoder, name: str | None, weights: str | None) -> None:
    """Loads published or local weights of the coder's CNN, if it has one and they are named."""
    if coder.encoder is not None and name is not None and weights is not None:
        coder.encoder.load_state_dict(build_encoder(name, weights).state_dict())


def check_labels(settings: Mapping[str, Any]) -> None:
    """Labels can only be learnt along where there are some.

    Raises:
        UserError: `label_weight` is below 0, or above it without labels.
    """
    weight = settings["label_weight"]
    if weight < 0 or (weight and not settings["num_labels"]):
        raise UserError(f"model.init_args.label_weight is {weight}: expected 0 or more, and 0 where data has no labels")
