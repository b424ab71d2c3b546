"""Gradient checkpointing with correct running statistics of normalisation layers.

Checkpointing computes a block twice, in the forward and again in the backward pass. A plain BatchNorm would then count
every batch twice in its running mean and variance.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint


def checkpointed(block: Callable[..., Any], *inputs: Any) -> Any:
    """Runs a block without keeping its activations; they are recomputed in the backward pass.

    Outputs, gradients, random numbers (dropout, drop-connect) and running statistics are those of ``block(*inputs)``.
    Without gradients, or if the module is not in training mode, the block is called directly.

    Args:
        block: a module, a method of one, or a function without running statistics.
        inputs: its positional arguments: tensors, or dicts, lists and tuples of them, and plain values.
    """
    module = block if isinstance(block, nn.Module) else getattr(block, "__self__", None)
    if not torch.is_grad_enabled() or (isinstance(module, nn.Module) and not module.training):
        return block(*inputs)
    buffers = _buffers(module) if isinstance(module, nn.Module) else []

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(buffers)

    # tensors inside of dicts and tuples are given one by one: only so does torch see, and may offload, what is kept
    leaves, structure = tree_flatten(inputs)

    def called(*values: Any) -> Any:
        return block(*tree_unflatten(values, structure))

    return checkpoint(called, *leaves, use_reentrant=False, context_fn=contexts)


class Runner:
    """Runs blocks of a network, recomputing them in the backward pass if wanted.

    Attributes:
        recomputes: whether it does.

    Args:
        recomputes: whether it shall.
    """

    def __init__(self, recomputes: bool) -> None:
        self.recomputes = recomputes

    def __call__(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """``block(*inputs)``, see `checkpointed`."""
        return checkpointed(block, *inputs) if self.recomputes else block(*inputs)

    def segment(self, steps: int) -> int:
        """Time steps of a recurrence to be run as one block.

        With sqrt(T) segments of sqrt(T) steps the states between segments and the activations of the one that is being
        recomputed together take the least memory (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
        """
        return max(1, math.isqrt(steps)) if self.recomputes else max(1, steps)


def stage(*blocks: nn.Module) -> nn.Module:
    """Consecutive blocks as one, to be recomputed together; in training mode if one of them is."""
    joined = nn.Sequential(*blocks)
    joined.training = any(block.training for block in blocks)  # this module only: train() would reach the blocks
    return joined


def recomputing(network: nn.Module) -> list[str]:
    """Names of the parts of a network that learn and recompute blocks in the backward pass; "" is the network itself.

    The networks of transformers and timm call ``torch.utils.checkpoint`` themselves and have attributes of their own
    that tell so.
    """
    found = []
    for name, module in network.named_modules():
        own = any(isinstance(value, Runner) and value.recomputes for value in vars(module).values())
        theirs = bool(getattr(module, "gradient_checkpointing", False) or getattr(module, "grad_checkpointing", False))
        if (own or theirs) and any(parameter.requires_grad for parameter in module.parameters()):
            found.append(name)
    return found


_Buffers = list[tuple[nn.Module, dict[str, Tensor]]]


def _buffers(block: nn.Module) -> _Buffers:
    """The buffers of all modules in training mode, as a recomputation must find them.

    A norm of PyTorch does not read its running statistics in training; of others there is a copy from before the
    forward pass.
    """
    parts = [(part, dict(part.named_buffers(recurse=False))) for part in block.modules() if part.training]
    return [
        (part, own if isinstance(part, _NormBase) else {name: value.clone() for name, value in own.items()})
        for part, own in parts
        if own
    ]


@contextmanager
def frozen_statistics(kept: _Buffers) -> Iterator[None]:
    """A context in which modules work as in training, but on copies of their buffers, which are discarded.

    The buffers themselves are never written, rather than written and restored, so a recomputation that stops early or
    fails changes nothing.
    """
    own = [(part, dict(part.named_buffers(recurse=False))) for part, _ in kept]
    for part, values in kept:
        for name, value in values.items():
            setattr(part, name, value.clone())
    try:
        yield
    finally:
        for part, values in own:
            for name, value in values.items():
                setattr(part, name, value)


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
