"""A pretended accelerator for tests without a GPU.

Its tensors claim the device `meta`, which nothing else here uses, and hold their values on the CPU.
An operation that mixes devices as CUDA forbids raises `WrongDeviceError`. Copies between the
devices and operations for which the host waits are counted, by the line of the program that asks
for them.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
SRC = Path(__file__).resolve().parents[1] / "src"
WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
"""Operations whose result decides a shape or a value on the host."""
INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that take index tensors of the CPU, and copy them."""
NO_SCALARS = {"cat", "stack", "gather", "scatter", "scatter_add", "index_select"}
"""Operations that refuse even a CPU tensor with a single number."""


class WrongDeviceError(RuntimeError):
    """An operation got tensors of two devices."""


class DeviceTensor(Tensor):
    """Tensor on the pretended device; `held` has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise WrongDeviceError(f"{operation} on a tensor of the device, outside `pretended_device`")


def is_on_device(value: object) -> bool:
    return isinstance(value, DeviceTensor)


def _hold(value: Any) -> Any:
    return value.held if is_on_device(value) else value


def _wrap(value: Any) -> Any:
    return DeviceTensor(value) if isinstance(value, Tensor) and not is_on_device(value) else value


def _place() -> str:
    """Return the innermost line of the program that is being run."""
    frame = sys._getframe()
    while frame and not frame.f_code.co_filename.startswith(str(SRC)):
        frame = frame.f_back
    if frame is None:
        return "outside src"
    return f"{Path(frame.f_code.co_filename).relative_to(SRC)}:{frame.f_lineno}"


class _Counting:
    def __init__(self, events: Counter[str]) -> None:
        super().__init__()
        self.events = events


class _Functions(_Counting, TorchFunctionMode):
    """Calls that never reach the dispatcher: tensors from Python values, and back."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        here = args and is_on_device(args[0])
        if name in ("numpy", "__array__") and here:
            raise WrongDeviceError(f"NumPy reads a tensor of the device at {_place()}")
        if name == "tolist" and here:
            self.events[f"wait: tolist at {_place()}"] += 1
            return args[0].held.tolist()
        if name in ("tensor", "as_tensor", "new_tensor") and not isinstance(
            args[-1] if name != "new_tensor" else args[1], Tensor
        ):
            device = kwargs.pop("device", None)
            if name == "new_tensor":
                device = args[0].device if device is None else device
                kwargs = {"dtype": args[0].dtype, **kwargs}
            made = torch.tensor(args[-1], **kwargs)
            if device is None or torch.device(device) != DEVICE:
                return made
            self.events[f"copy: {name} at {_place()}"] += 1
            return DeviceTensor(made)
        return function(*args, **kwargs)


class _Operations(_Counting, TorchDispatchMode):
    """Operations on tensors of both devices."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), operation.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        mixed = any(map(is_on_device, tensors)) and not all(map(is_on_device, tensors))
        on_device = any(map(is_on_device, tensors))
        if name in WAITING and on_device:
            self.events[f"wait: {name} at {_place()}"] += 1
        if name in INDEXING and on_device:
            self._check_indices(name, args)
        elif name == "copy_" and mixed:
            kind = "copy" if is_on_device(args[0]) else "wait"
            self.events[f"{kind}: copy_ at {_place()}"] += 1
        elif mixed:
            self._check_scalars(operation, name, tensors)
        if kwargs.get("device") is not None:
            target = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
            if name == "_to_copy" and target != on_device:
                kind = "copy" if target else "wait"
                self.events[f"{kind}: to at {_place()}"] += 1
            on_device = target
        result = operation(*tree_map(_hold, args), **tree_map(_hold, kwargs))
        if not on_device or name == "_local_scalar_dense":
            return result
        if "out" in kwargs:
            return kwargs["out"]
        if operation._schema.is_mutable and args and is_on_device(args[0]):
            return args[0]
        return tree_map(_wrap, result)

    def _check_indices(self, name: str, args: Sequence[Any]) -> None:
        indices = [index for index in args[1] if isinstance(index, Tensor)]
        if any(_hold(index).dtype in (torch.bool, torch.uint8) for index in indices):
            self.events[f"wait: boolean index at {_place()}"] += 1
        elif not all(map(is_on_device, indices)):
            self.events[f"copy: index at {_place()}"] += 1
        values = [value for value in args[2:3] if isinstance(value, Tensor) and value.ndim]
        if not all(map(is_on_device, [args[0], *values])):
            raise WrongDeviceError(f"{name} mixes devices at {_place()}")

    def _check_scalars(self, operation: Any, name: str, tensors: Sequence[Tensor]) -> None:
        """Refuse tensors of the CPU, except single numbers, which kernels take by value."""
        others = [tensor for tensor in tensors if not is_on_device(tensor)]
        if name in NO_SCALARS or any(tensor.ndim for tensor in others):
            shapes = [(tuple(tensor.shape), tensor.device.type) for tensor in tensors]
            raise WrongDeviceError(f"{operation} mixes devices at {_place()}: {shapes}")


class _Autocast(torch.autocast):
    """Autocast that treats the pretended device as a CPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


@contextmanager
def pretended_device() -> Iterator[Counter[str]]:
    """Offer the device `meta` within the block; yield the counts of copies and waits."""
    events = Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", _Autocast)
        with _Functions(events), _Operations(events):
            yield events


def to_device(value: Any) -> Any:
    """Return a module or nested tensors on the pretended device, without counting."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None and not is_on_device(tensor):
                        moved = DeviceTensor(tensor.detach().clone())
                        store[name] = moved.requires_grad_(tensor.requires_grad)
        return value
    return tree_map(
        lambda part: to_device(part) if isinstance(part, nn.Module) else _wrap(part), value
    )
