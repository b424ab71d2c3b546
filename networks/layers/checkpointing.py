"""Gradient checkpointing with correct running statistics of BatchNorm.

Checkpointing computes a block twice, in the forward and again in the backward pass. A plain BatchNorm would then count
every batch twice in its running mean and variance.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, *inputs: Tensor | float | None) -> Tensor:
    """Runs a block without keeping its activations; they are recomputed in the backward pass.

    Outputs, gradients, random numbers (dropout, drop-connect) and running statistics are those of ``block(*inputs)``.
    Outside training, or without gradients, the block is called directly.

    Args:
        block: a module with one tensor as output.
        inputs: its positional arguments.
    """
    if not (block.training and torch.is_grad_enabled()):
        return run(block, *inputs)
    norms = [module for module in block.modules() if isinstance(module, _NormBase) and module.track_running_stats]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(norms)

    output: Tensor = checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
    return output


def run(block: nn.Module, *inputs: Tensor | float | None) -> Tensor:
    """Calls a block; the counterpart of `checkpointed`."""
    output: Tensor = block(*inputs)
    return output


def runner(gradient_checkpointing: bool) -> Callable[..., Tensor]:
    """The function that runs the blocks of a network: `checkpointed` or `run`."""
    return checkpointed if gradient_checkpointing else run


@contextmanager
def frozen_statistics(norms: list[_NormBase]) -> Iterator[None]:
    """A context in which norms work as in training, but on copies of their running statistics, which are discarded.

    The buffers themselves are never written, rather than written and restored, so a recomputation that stops early or
    fails changes nothing.
    """
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in kept:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def freeze_in_recomputation(network: nn.Module) -> None:
    """The same for networks that call ``torch.utils.checkpoint`` themselves, as those of timm do.

    A forward pass inside a backward pass can only be a recomputation; there, norms work on copies.
    """
    for module in network.modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            module.register_forward_pre_hook(_set_aside)
            module.register_forward_hook(_put_back, always_call=True)


def _set_aside(norm: nn.Module, _inputs: object) -> None:
    """Before a norm's forward pass in a recomputation: its buffers are replaced by copies."""
    # torch.utils.checkpoint detects a recomputation by the same id; there is no public name (-1: no backward pass)
    if norm.training and torch._C._current_graph_task_id() != -1:
        norm.__dict__["_set_aside"] = dict(norm.named_buffers(recurse=False))
        for name, buffer in norm.__dict__["_set_aside"].items():
            setattr(norm, name, buffer.clone())


def _put_back(norm: nn.Module, _inputs: object, _output: object) -> None:
    """After it: the buffers are restored."""
    for name, buffer in norm.__dict__.pop("_set_aside", {}).items():
        setattr(norm, name, buffer)
