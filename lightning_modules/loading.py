"""From a run folder or checkpoint to the module that it holds."""

from pathlib import Path

from core.checkpoints import read_checkpoint
from core.collection import paused_collection
from core.errors import UserError
from core.inputs import WRONG_VALUES, damage, shown
from lightning_modules.base import METHODS, BaseModule
from lightning_modules.parts.handover import names_that_differ


@paused_collection()
def load_module(path: str | Path) -> BaseModule:
    """Builds the module that a checkpoint holds, without its data set and without downloading anything.

    Raises:
        UserError: the checkpoint cannot be read, is of an unknown method or does not match this version.
    """
    checkpoint = read_checkpoint(path)
    method = checkpoint["inference"].get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"'{path}' is of method {shown(method)}: expected one of {', '.join(METHODS)}")
    settings, weights = checkpoint.get("hyper_parameters"), checkpoint["state_dict"]
    if not isinstance(settings, dict):
        raise UserError(f"'{path}' was not written by this project: it has no entry 'hyper_parameters'")
    older = "was written by another version of this code: use that one (commit in its run.json)"
    if unknown := sorted(set(map(str, settings)) - METHODS[method].options()):
        raise UserError(f"'{path}' {older}; its setting '{unknown[0]}' is not known here")
    with damage(path, "a checkpoint", "give another one", causes=WRONG_VALUES):
        module = METHODS[method](**settings)
        module.resize_buffers(weights)
    weights = module.complete_weights(checkpoint)
    if wrong := names_that_differ(module.state_dict(), weights):
        raise UserError(f"'{path}' {older}; {len(wrong)} tensors differ, first '{wrong[0]}'")
    module.load_state_dict(weights)
    module.inference = checkpoint["inference"]
    return module.eval()
