"""Frozen linear layers whose weights are kept in 8 bits, a quarter of float32.

Each output has a scale of its own, so that its largest weight is 127 (absmax, symmetric). Weights become numbers again
for one product at a time, forward and backward: nothing of full size is kept.

Letters: I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn


def quantized(weight: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """A weight in 8 bits and its scales.

    Args:
        weight: `(O, I)`, or `(I, O)`, finite.
        outputs: which dimension the outputs are, 0 or 1.

    Returns:
        int8 of the same shape, and scales `(O, 1)` or `(1, O)`, float32: the weight is their product, but for rounding.

    >>> quantized(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), 0)[0].tolist()
    [[127, -64], [0, 0]]
    """
    values = weight.detach().float()
    scale = values.abs().amax(dim=1 - outputs, keepdim=True) / 127
    return (values / scale.clamp_min(torch.finfo(scale.dtype).tiny)).round().to(torch.int8), scale


class _Product(torch.autograd.Function):
    """Inputs times weights; the gradient of the inputs alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor, outputs: int) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.outputs = outputs
        full = weight.to(inputs.dtype) * scale.to(inputs.dtype)
        return inputs @ (full if outputs else full.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        full = weight.to(gradient.dtype) * scale.to(gradient.dtype)
        return gradient @ (full.T if ctx.outputs else full), None, None, None


class Int8Linear(nn.Module):
    """A linear layer that does not learn, in place of another one.

    Its state dict has `weight`, int8, and `weight_scale`; it also takes that of the layer it was made of, whose weight
    is rounded then.

    Args:
        layer: `nn.Linear`, or a `Conv1D` of transformers, which keeps its weight transposed.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer.weight, Tensor)
        self.outputs = 0 if isinstance(layer, nn.Linear) else 1
        weight, scale = quantized(layer.weight, self.outputs)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        bias = getattr(layer, "bias", None)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """`(..., I)` to `(..., O)`, in the inputs' type."""
        product: Tensor = _Product.apply(inputs, self.weight, self.weight_scale, self.outputs)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if isinstance(weight, Tensor) and weight.is_floating_point():
            rounded, scale = quantized(weight, self.outputs)
            state_dict = {**state_dict, f"{prefix}weight": rounded, f"{prefix}weight_scale": scale}
        super()._load_from_state_dict(state_dict, prefix, *rest)
