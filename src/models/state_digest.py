"""Digests of state that a state dict does not hold as tensors: attributes, packed weights."""

import copyreg
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

_PLAIN = bool | int | float | complex | str | bytes | None
_EVERY_MODULE = vars(nn.Module()).keys()
_REGISTERED = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def state_digest(network: nn.Module) -> tuple[str | None, bool]:
    """Compute the digest of a network's state, except the tensors in its state dict.

    This state consists of the modules' attributes (tensors, arrays, numbers, texts and objects that
    hold them), buffers that are not persistent, hooks, extra state and packed quantised weights.
    Functions and classes count by their names, devices do not count.

    Returns:
        16 hexadecimal digits, or None if an object cannot be taken apart, as in TorchScript; and
        False if the state has no weights: no tensors, arrays, extra state or objects of this kind.
    """
    state, digests = network.state_dict(), _Digests()
    others = {name: value for name, value in state.items() if not torch.is_tensor(value)}
    every = (network.named_parameters, network.named_buffers)
    for name, value in chain(*(named(remove_duplicate=False) for named in every)):
        if torch.is_tensor(state.get(name)):
            digests.known[id(value)] = value, "in the state dict"
    try:
        digest = digests.of([network, others])
        return digest, bool(others) or digests.weights
    except Exception:  # of any type: objects decide how they are pickled
        return None, True


def value_digest(value: Any) -> str:
    """Compute the digest of a value; raise an exception of any type if it cannot be taken apart."""
    return _Digests().of(value)


def tensor_bytes(value: Tensor) -> Iterable[bytes | memoryview]:
    """Yield what identifies a tensor; device, memory format and gradients make no difference."""
    yield f"{value.dtype} {tuple(value.shape)}\n".encode()
    if type(value) is not nn.Parameter and hasattr(value, "__tensor_flatten__"):  # a subclass
        names, facts = value.__tensor_flatten__()
        yield value_digest([facts, *(getattr(value, name) for name in names)]).encode()
        return
    if value.is_quantized:
        tensor = ("q_scale", "q_zero_point")
        channel = ("q_per_channel_scales", "q_per_channel_zero_points", "q_per_channel_axis")
        names = tensor if "tensor" in str(value.qscheme()) else channel
        yield value_digest([getattr(value, name)() for name in names]).encode()
    dense = value.detach().cpu().to_dense() if value.layout != torch.strided else value.detach()
    yield dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


class _Digests:
    """Digests of values and of all values within them.

    Attributes:
        known: Values by id, with their digests. They stay alive, so that no id is used twice.
        weights: True if there was a tensor or an array.
    """

    def __init__(self) -> None:
        self.weights = False
        self.known: dict[int, tuple[Any, str]] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a value, as 16 hexadecimal digits."""
        if isinstance(value, _PLAIN):
            return _hash(type(value).__name__.encode(), repr(value).encode())
        if id(value) not in self.known:
            self.known[id(value)] = value, "cycle"
            name = f"{type(value).__module__}.{type(value).__qualname__}"
            self.known[id(value)] = value, _hash(name.encode(), *self._parts(value))
        return self.known[id(value)][1]

    def _parts(self, value: Any) -> Iterable[bytes | memoryview]:
        """Return what identifies a value among those of its type."""
        self.weights |= isinstance(value, Tensor | np.ndarray)
        if isinstance(value, Tensor):
            return tensor_bytes(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return [f"{value.dtype.str} {value.shape}".encode(), np.ascontiguousarray(value).data]
        if isinstance(value, set | frozenset):
            return sorted(self.of(item).encode() for item in value)
        return (self.of(part).encode() for part in self._values(value))

    def _values(self, value: Any) -> Iterable[Any]:
        """Return the values that a composite value consists of."""
        if isinstance(value, nn.Module):
            attributes = {name: its for name, its in vars(value).items() if name in _REGISTERED}
            attributes |= {name: list(getattr(value, name).values()) for name in _HOOKS}
            own = vars(value).keys() - _EVERY_MODULE - {"_torchdynamo_wrapper_id"}  # an address
            return attributes, {name: vars(value)[name] for name in sorted(own)}
        if isinstance(value, list | tuple):
            return value
        if type(value) in (dict, OrderedDict):
            return chain(*value.items())
        if isinstance(value, MethodType):
            return value.__func__, value.__self__
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            names = (value.__module__, value.__qualname__)
            return (*names, value.__defaults__, value.__kwdefaults__, cells)
        if isinstance(value, type | BuiltinFunctionType):
            return value.__module__, value.__qualname__
        if isinstance(value, ModuleType):
            return (value.__name__,)
        if isinstance(value, fx.Graph):
            return (value.python_code("self").src,)
        if isinstance(value, torch.device):
            return ()
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return (reduced,)
        parts: list[Any] = list(reduced)  # callable, its arguments, state, iterators of items
        return [list(part) if hasattr(part, "__next__") else part for part in parts]


def _hash(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} ".encode())
        digest.update(part)
    return digest.hexdigest()[:16]
