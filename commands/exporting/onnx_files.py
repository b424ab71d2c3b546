"""Captured graphs as ONNX files, in single precision or with matrices of 8-bit integers."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from core.errors import UserError

_LARGEST = 1_900_000_000
"""Bytes that one file of protocol buffers may hold, with some room."""
_QUANTISED = ("MatMul", "Gemm", "Gather", "LSTM")
"""Operations whose weights become integers. Convolutions stay: onnxruntime computes those of integers more slowly."""


def check_onnx() -> None:
    """Makes sure that the packages are there.

    Raises:
        UserError: they are not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package '{error.name}' is missing: python -m pip install -e '.[onnx]' installs it"
        ) from error


def write_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str], *, int8: bool
) -> None:
    """Writes a graph.

    Args:
        program: the graph.
        path: path of the file; weights beyond what one file can hold go beside it.
        inputs: names of the inputs.
        outputs: names of the outputs.
        int8: matrices as 8-bit integers, what is multiplied by them quantised as it comes.
    """
    whole = path.with_suffix(".whole")
    with _quiet():
        made = torch.onnx.export(program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
        assert made is not None
        weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
        if weights > _LARGEST:
            if int8:
                raise UserError(f"--int8: the weights have {weights:,} bytes, at most {_LARGEST:,} can be quantised")
            made.save(str(path), external_data=True)
            return
        made.save(str(whole), external_data=False)
    try:
        _fold(whole, path)
        if int8:
            path.replace(whole)
            _quantise(whole, path)
    finally:
        whole.unlink(missing_ok=True)


def _fold(source: Path, path: Path) -> None:
    """Computes what depends on weights alone, such as the parts of a recurrent layer's matrix, once for all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _quantise(source: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # processors without VNNI add pairs of products in 16 bits, which 8 whole bits overflow
            op_types_to_quantize=_QUANTISED,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser tell about every operation that they leave alone."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
