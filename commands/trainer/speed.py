"""Options of a run that change how fast it computes: products in TF32, compiled blocks; and names of precisions."""

from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from core.text import visible
from lightning_modules.base import BaseModule
from networks.layers.compilation import compile_blocks

MatmulPrecision = Literal["highest", "high", "medium"]

_PRECISIONS = {
    "16-mixed": ("fp16", "float16", "f16", "half", "amp", "fp16-mixed", "16-bit", "mixed"),
    "bf16-mixed": ("bfloat16", "bf16mixed", "bfloat16-mixed", "b16"),
    "32-true": ("fp32", "float32", "f32", "full", "single", "float"),
    "64-true": ("fp64", "float64", "double"),
    "32-true with --matmul_precision=high": ("tf32", "tf32-true"),
}
"""What users type for a precision, by its name here."""


def precision_hint(message: str) -> str | None:
    """One line on a wrong precision, from the parser's message; None: the message is on something else.

    >>> precision_hint('Parser key "trainer.precision": Does not validate ... Given value: fp16')
    "trainer.precision is 'fp16': expected 16-mixed, bf16-mixed, 32-true or 64-true; did you mean 16-mixed?"
    """
    if "trainer.precision" not in message or "Given value: " not in message:
        return None
    given = message.rpartition("Given value: ")[2].strip()
    meant = next((name for name, words in _PRECISIONS.items() if given.lower() in words), None)
    names = "16-mixed, bf16-mixed, 32-true or 64-true"
    return f"trainer.precision is '{given}': expected {names}" + (f"; did you mean {meant}?" if meant else "")


def set_matmul_precision(precision: MatmulPrecision) -> None:
    """How float32 products are computed on a GPU.

    Args:
        precision: ``highest``: in float32; ``high``: in TF32 where the GPU has it (NVIDIA from Ampere on), products
            and convolutions alike; ``medium``: products in bfloat16. No effect on a CPU.
    """
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


def compile_model(model: BaseModule) -> None:
    """Compiles the repeated blocks of a model for training; says so where it has none."""
    count = compile_blocks(model)
    if count:
        rank_zero_info(visible(f"{count} blocks are compiled; the first steps take minutes"))
    else:
        rank_zero_warn(visible(f"--compile=true has no effect: {type(model).__name__} has no repeated blocks here"))
