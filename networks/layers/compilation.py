"""Compilation of the blocks that a network repeats.

Compiling one block of twelve equal ones takes a twelfth of the time that compiling the network takes, and changes of
shape outside of the blocks, such as captions packed into rows, do not matter.
"""

from torch import nn

_LEAST = 2
"""Layers with weights that a block must have to be worth it."""


def compile_blocks(network: nn.Module, backend: str = "inductor") -> int:
    """Compiles the blocks of a network in place; names of parameters stay as they are.

    A block is an entry of a list of modules that itself has several layers with weights. Blocks with recurrent layers
    stay as they are, since these are single calls already.

    Args:
        network: anything.
        backend: of ``torch.compile``.

    Returns:
        How many blocks.
    """
    blocks = [block for part in network.modules() if isinstance(part, nn.ModuleList) for block in part]
    chosen = [block for block in blocks if _worth_it(block)]
    inner = {id(part) for block in chosen for part in block.modules() if part is not block}
    outermost = [block for block in chosen if id(block) not in inner]
    for block in outermost:
        block.compile(backend=backend)
    return len(outermost)


def _worth_it(block: nn.Module) -> bool:
    layers = [part for part in block.modules() if next(part.parameters(recurse=False), None) is not None]
    recurrent = any(isinstance(part, nn.RNNBase) for part in layers)
    return len(layers) >= _LEAST and not recurrent and any(value.requires_grad for value in block.parameters())
