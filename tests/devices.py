"""A device that is none: tensors on the CPU that say they are elsewhere. A test without a GPU sees what one would.

A tensor of this device calls itself "meta". Whatever mixes it with tensors of the CPU is an error, as on a GPU; what
makes the host wait for the device is counted.
"""

from collections import Counter

import torch
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten.multinomial.default,
    aten.allclose.default,
}
"""Operations whose result, or its size, the host must know."""
MIXED = {
    aten._pack_padded_sequence.default: (1,),
    aten.lstm.data: (1,),
    aten.gru.data: (1,),
    aten._pad_packed_sequence.default: (1,),
}
"""Operations of which some arguments belong to the CPU."""


current = None
"""The audit that runs."""


class DeviceError(AssertionError):
    """A tensor is on the wrong device."""


class Elsewhere(torch.Tensor):
    """A tensor of the device; its numbers are on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Elsewhere":
        """Wraps a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def tolist(self):
        """Copies the numbers to the host, which waits for them."""
        note(current, "tolist")
        return self.inner.tolist()

    def numpy(self, *_, **__):
        """What only a tensor of the CPU can do.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("numpy() of a tensor of the device")

    def __repr__(self) -> str:  # type: ignore[override]  # no keyword
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Outside of the mode, as in a backward pass of another thread."""
        return run(func, args, kwargs or {}, current)

    __torch_function__ = torch._C._disabled_torch_function_impl


def inside(value: object) -> object:
    return value.inner if isinstance(value, Elsewhere) else value


def outside(value: object) -> object:
    return Elsewhere(value) if isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere) else value


def run(func, args, kwargs, mode):
    """Runs an operation where it belongs.

    Raises:
        DeviceError: its tensors are on two devices.
    """
    own = MIXED.get(func)
    given = [value for place, value in enumerate(args) if own is None or place not in own]
    tensors = [value for value in tree_leaves((given, kwargs)) if isinstance(value, torch.Tensor)]
    there = [value for value in tensors if isinstance(value, Elsewhere)]
    if any(value.device == DEVICE and not isinstance(value, Elsewhere) for value in tensors):
        raise DeviceError(f"{func}: a tensor that was made outside of the audit and has no numbers")
    here = [value for value in tensors if not isinstance(value, Elsewhere) and value.dim() > 0]
    target = kwargs.get("device")
    target = None if target is None else torch.device(target)
    if func in (aten._to_copy.default, aten.copy_.default):
        return moved(func, args, kwargs, target, mode)
    here = indexed(func, args, here, bool(there), mode)
    if there and here:
        shapes = [tuple(value.shape) for value in here]
        raise DeviceError(f"{func}: tensors of the CPU {shapes} beside tensors of the device")
    if there and func in WAITS:
        note(mode, func)
    on_device = bool(there) or target == DEVICE
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(inside, args), **tree_map(inside, kwargs))
    if not on_device or not isinstance(result, torch.Tensor | tuple | list):
        return result
    if func in (aten._pack_padded_sequence.default, aten._pad_packed_sequence.default):
        return outside(result[0]), result[1]  # the lengths stay on the CPU
    result = tree_map(outside, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if there else result


def indexed(func, args, here, on_device, mode):
    """The tensors of the CPU but for an index, which is sent to the device; a mask is as long as its true values."""
    if func not in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        return here
    given = [value for value in args[1] if value is not None]
    sent = [value for value in given if not isinstance(value, Elsewhere)]
    if on_device and (sent or any(value.dtype == torch.bool for value in given)):
        note(mode, func)
    return [value for value in here if not any(value is one for one in given)]


def moved(func, args, kwargs, target, mode):
    """Copies, which may go from one device to the other; only those that nobody waits for are free."""
    if func is aten.copy_.default:
        to, source = args[0], args[1]
        if isinstance(to, Elsewhere) != isinstance(source, Elsewhere) and not (len(args) > 2 and args[2]):
            note(mode, func)
        inside(to).copy_(inside(source))
        return to
    source = args[0]
    target = source.device if target is None else target
    if target.type not in ("cpu", DEVICE.type):
        raise DeviceError(f"there is no device {target}")
    crosses = isinstance(source, Elsewhere) != (target == DEVICE)
    if crosses and not (kwargs.get("non_blocking") and target == DEVICE):
        note(mode, func)
    result = func(inside(source), **{**kwargs, "device": torch.device("cpu")})
    return Elsewhere(result) if target == DEVICE else result


def note(mode, func) -> None:
    if mode is not None and mode.counting:
        mode.waits[str(func)] += 1
        if mode.trace is not None:
            mode.trace(func)


class DeviceAudit(TorchDispatchMode):
    """Watches every operation.

    Attributes:
        waits: operations that made the host wait, with their number.
        counting: whether they are counted.
        trace: called with each, for finding out where.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.counting = False
        self.trace = None
        self._tensor, self._as_tensor = torch.tensor, torch.as_tensor

    def __enter__(self):
        """Also lets `torch.tensor` copy its numbers: for a device called "meta" it drops them."""

        def tensor(*args, device=None, **kwargs):
            made = self._tensor(*args, **kwargs)
            return made if device is None else made.to(device)

        def as_tensor(data, dtype=None, device=None):
            made = data if isinstance(data, torch.Tensor) else self._as_tensor(data)
            return made.to(device=made.device if device is None else device, dtype=dtype or made.dtype)

        global current
        torch.tensor, torch.as_tensor, current = tensor, as_tensor, self
        return super().__enter__()

    def __exit__(self, *error):
        """As it was."""
        global current
        torch.tensor, torch.as_tensor, current = self._tensor, self._as_tensor, None
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Runs an operation where it belongs."""
        return run(func, args, kwargs or {}, self)


class Nowhere(CPUAccelerator):
    """The accelerator of the device: there is nothing to set up."""

    def setup_device(self, device: torch.device) -> None:
        """Takes the device as it is."""


class Audited(SingleDeviceStrategy):
    """Trains on the device; files are written with tensors of the CPU."""

    def __init__(self) -> None:
        super().__init__(device=DEVICE, accelerator=Nowhere())

    def save_checkpoint(self, checkpoint, filepath, storage_options=None) -> None:
        """Saves the numbers."""
        super().save_checkpoint(tree_map(inside, checkpoint), filepath, storage_options)


class CountWaits(Callback):
    """Counts what makes the host wait in training steps, from the second one on.

    It must be the last callback: what the others do after a batch belongs to the step.

    Attributes:
        steps: waits of every step.
    """

    def __init__(self, audit: DeviceAudit) -> None:
        self.audit = audit
        self.steps: list[Counter[str]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Starts counting."""
        self.audit.waits.clear()
        self.audit.counting = batch_idx > 0
        assert all(parameter.device == DEVICE for parameter in pl_module.parameters())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Stops counting."""
        if self.audit.counting:
            self.steps.append(Counter(self.audit.waits))
        self.audit.counting = False
