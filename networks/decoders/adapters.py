"""Low-rank adapters (LoRA, Hu et al. 2022) in a frozen language model, by the library peft.

The model's linear layers keep their weights and get a product of two small matrices beside them, which learns. The
second matrix is zero at first, so an adapted model starts as the model that it was.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from core.errors import UserError
from networks.layers.int8 import Int8Linear

FrozenDtype = Literal["float32", "bfloat16", "int8"]

_MARK = ".lora_"
_BASE = ".base_layer."


def add_adapters(
    network: nn.Module, *, rank: int, alpha: int | None = None, dropout: float = 0.0, dtype: FrozenDtype = "float32"
) -> None:
    """Freezes a language model and puts adapters beside all its linear layers, in place.

    Args:
        network: from transformers.
        rank: width between the two matrices of an adapter, at least 1.
        alpha: their product counts `alpha` / `rank`; None: twice the rank.
        dropout: share dropped from what adapters read.
        dtype: that of the frozen weights; the adapters are float32. int8: linear layers in 8 bits, the others in
            bfloat16.

    Raises:
        UserError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            "lora_rank needs the library peft: install it with python -m pip install -e '.[lora]', or set it to 0"
        ) from error
    network.requires_grad_(False)
    alpha = 2 * rank if alpha is None else alpha
    # GPT-2 keeps its matrices transposed, which peft finds out and warns about unless it is told
    transposed = any(type(module).__name__ == "Conv1D" for module in network.modules())
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", fan_in_fan_out=transposed
    )
    inject_adapter_in_model(config, network)
    if dtype == "int8":  # from the weights as they are, before these are rounded in another way
        for module in list(network.modules()):
            if isinstance(layer := getattr(module, _BASE.strip("."), None), nn.Module):
                module.base_layer = Int8Linear(layer)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        full = is_adapter(name) or dtype == "float32"
        parameter.data = parameter.data.to(torch.float32 if full else torch.bfloat16)


def is_adapter(name: str) -> bool:
    """Whether a tensor belongs to an adapter, by its name."""
    return _MARK in name


def without_adapters(name: str) -> str:
    """Name of a tensor before there were adapters.

    >>> without_adapters("h.0.attn.c_attn.base_layer.weight")
    'h.0.attn.c_attn.weight'
    """
    return name.replace(_BASE, ".")


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, 64 hexadecimal digits; where they are does not matter."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\0".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
