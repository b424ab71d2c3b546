"""Writing checkpoints in parts as two processes of a sharded run do."""

import os
from pathlib import Path
from typing import Any

import torch

from core.sharded import FACTS, note_list


def write_parts(checkpoint: dict[str, Any], folder: Path, optimizer: dict[str, Any] | None = None) -> Path:
    """Writes a checkpoint by two processes over gloo, each with half of the rows of every tensor.

    Args:
        checkpoint: with an entry `state_dict`.
        folder: for the parts.
        optimizer: what an optimiser noted.
    """
    folder.mkdir(parents=True)
    facts = {name: value for name, value in checkpoint.items() if name != "state_dict"}
    torch.save(facts, folder / FACTS)
    state = {"model": dict(checkpoint["state_dict"]), **({"optimizer_0": optimizer} if optimizer else {})}
    store = folder.with_name(f"{folder.name} store")
    children = [_fork(rank, state, folder, store) for rank in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    store.unlink()
    note_list(folder)
    return folder


def _fork(rank: int, state: dict[str, Any], folder: Path, store: Path) -> int:
    # imported before the fork, so that it takes its second once
    import torch.distributed.checkpoint as parts
    from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

    if child := os.fork():
        return child
    code = 1
    try:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        mesh = DeviceMesh("cpu", [0, 1])
        state["model"] = {
            name: distribute_tensor(value, mesh, [Shard(0)]) if value.dim() else value
            for name, value in state["model"].items()
        }
        parts.save(state, checkpoint_id=folder)
        code = 0
    finally:
        os._exit(code)
    return 0
