"""Sharded training: whether the strategy of a trainer divides the weights among its processes."""

import contextlib

import torch
from lightning import LightningModule, Trainer


def shards_weights(trainer: Trainer) -> bool:
    """Whether weights are divided (FSDP) and not the same in every process.

    By name: importing the class that `isinstance` needs takes a second, which only sharded runs should.
    """
    return any(kind.__name__ == "FSDPStrategy" for kind in type(trainer.strategy).__mro__)


def whole_weights(trainer: Trainer) -> contextlib.AbstractContextManager[None]:
    """Inside, each process has all weights, to look at and not to change; entered by all processes."""
    if not shards_weights(trainer):
        return contextlib.nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = trainer.strategy.model
    assert model is not None, "the strategy has been set up"
    whole: contextlib.AbstractContextManager[None]
    whole = FullyShardedDataParallel.summon_full_params(model, writeback=False)
    return whole


@torch.no_grad()
def share_buffers(module: LightningModule) -> None:
    """Gives all processes the buffers of the first one, as DDP does, where weights are divided.

    Running statistics of batch normalisation would differ otherwise, and a checkpoint has those of one process.

    Args:
        module: of a run; all processes call this.
    """
    if not shards_weights(module.trainer):
        return
    buffers = list(module.buffers())
    for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
        own = [buffer for buffer in buffers if buffer.dtype == dtype]
        flat = torch.cat([buffer.flatten() for buffer in own])
        torch.distributed.broadcast(flat, src=0)
        for buffer, values in zip(own, torch.split(flat, [buffer.numel() for buffer in own]), strict=True):
            buffer.copy_(values.view_as(buffer))
