"""Hand-over between stages: taking weights over from earlier runs, and the checks that they mean the same."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from core.checkpoints import read_checkpoint
from core.errors import UserError
from datamodules.stored_features.store import EncoderSpec
from networks.classifiers.image_code import ImageCoder


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
    """Hyper-parameters that shape the loaded part must be those of the earlier stage.

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
        UserError: they do not match.
    """
    own = module.state_dict()
    wanted = {name for name in own if not name.startswith(tuple(added.split()))}
    wrong = sorted(wanted ^ set(weights)) or [name for name in sorted(wanted) if own[name].shape != weights[name].shape]
    if wrong:
        name = wrong[0]
        here, there = (tuple(found[name].shape) if name in found else "none" for found in (own, weights))
        raise UserError(
            f"{argument} '{path}' does not match: {len(wrong)} tensors differ, first '{name}' ({there} there, {here} "
            "here); give the widths of that run (config.yaml in its folder)"
        )
    module.load_state_dict(dict(weights), strict=False)


def load_image_codes(
    coder: ImageCoder,
    settings: Mapping[str, Any],
    inference: Mapping[str, Any],
    argument: str,
    path: str,
    methods: tuple[str, ...],
) -> None:
    """Starts image codes from an image classifier (stage b) or from a distilled coder (stage c).

    Args:
        coder: coder of this run.
        settings: this run's hyper-parameters.
        inference: what this run needs to read images, see `BaseModule`.
        argument: the hyper-parameter that names the earlier run.
        path: what it says.
        methods: what the earlier run may be; one without a coder has a classifier alone.

    Raises:
        UserError: it does not match, or sees images in another way.
    """
    checkpoint = read_stage(path, argument, methods)
    check_same_look(checkpoint, settings, inference, argument, path)
    weights = checkpoint["state_dict"]
    distilled = part_of(weights, "coder.")
    if distilled:
        load_submodule(coder, distilled, argument, path)
    else:
        coder.load_classifier(part_of(weights, "classifier."), path)


def check_same_look(
    checkpoint: Mapping[str, Any],
    settings: Mapping[str, Any],
    inference: Mapping[str, Any],
    argument: str,
    path: str,
) -> None:
    """A head must see the features that it was trained on: of the same CNN, pooled and normalised alike.

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


def cnn_of_features(checkpoint: Mapping[str, Any], path: str, name: str) -> dict[str, Tensor]:
    """Weights of the frozen CNN that made the features of a run; none when the run read images.

    Args:
        checkpoint: checkpoint of that run.
        path: where it is, for messages.
        name: the CNN that they are for.

    Raises:
        UserError: the features are those of another CNN, or its weights are gone.
    """
    if "encoder" not in checkpoint["inference"]:
        return {}
    spec = EncoderSpec(**checkpoint["inference"]["encoder"])
    if spec.name != name:
        raise UserError(
            f"init_from '{path}' learnt from features of '{spec.name}', but image_encoder is '{name}': give the same"
        )
    return dict(spec.build().state_dict())


def names_that_differ(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors whose shapes differ, and of those that only one of two state dicts has."""
    shapes = [name for name in weights if name in own and own[name].shape != weights[name].shape]
    return shapes + sorted(set(own) ^ set(weights))
