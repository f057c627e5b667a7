"""Digests of state that a state dict does not hold as tensors: attributes, packed weights."""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Set
from io import BytesIO
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..utils.package import canonical_name

_EVERY_MODULE = vars(nn.Module()).keys()
_NAMED = (type, BuiltinFunctionType, ModuleType)
_OF_A_CLASS = (FunctionType, Tensor, np.ndarray, int, float, str)


def state_digest(
    network: nn.Module, counted: Set[bytes] | None = None
) -> tuple[str | None, bool, Mapping[bytes, list[Any]]]:
    """Compute the digest of a network's state, except the tensors in its state dict.

    This state consists of the modules' attributes (tensors, arrays, numbers, texts and objects that
    hold them), buffers that are not persistent, hooks, extra state and packed quantised weights.
    Functions and classes count by their names, devices do not count.

    Args:
        network: The network.
        counted: Digests of the tensors and arrays that count; None: all of them.

    Returns:
        16 hexadecimal digits, or None if an object cannot be pickled, as in TorchScript; False if
        the state has no weights: no tensors, arrays, extra state or objects of this kind; and its
        tensors and arrays by their digests.
    """
    pickler = _Pickler(counted)
    try:
        state = network.state_dict()
        others = {name: value for name, value in state.items() if not torch.is_tensor(value)}
        for named in (network.named_parameters, network.named_buffers):
            for name, value in named(remove_duplicate=False):
                if torch.is_tensor(state.get(name)):
                    pickler.known[id(value)] = f"{name} of the state dict", value
        digest = pickler.digest([network, others])
        return digest, bool(others or pickler.contents), pickler.contents
    except Exception:  # of any type: objects decide how they are pickled
        return None, True, {}


def value_digest(value: Any) -> str:
    """Compute the digest of a value; raise an exception of any type if it cannot be pickled."""
    return _Pickler().digest(value)


def tensor_bytes(value: Tensor) -> Iterable[bytes | memoryview]:
    """Yield what identifies a tensor; device, memory format and gradients make no difference."""
    yield f"{value.dtype} {tuple(value.shape)}\n".encode()
    plain = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
    if plain and not value.is_quantized:
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    else:  # quantised, sparse or a subclass
        torch.save(value.detach().cpu(), file := BytesIO())
        yield file.getbuffer()


class _Pickler(pickle.Pickler):
    """Pickler whose output depends on content alone, for digests.

    Attributes:
        known: Tensors and modules by id, each after the text or number that stands for it.
        contents: Tensors that were not known, and arrays, by their digests.
        counted: Digests of tensors and arrays that count; None: all count.
    """

    def __init__(self, counted: Set[bytes] | None = None) -> None:
        self.file = BytesIO()
        super().__init__(self.file, protocol=4)
        self.fast = True  # equal texts are written alike, whether they are one object or two
        self.known: dict[int, tuple[str | int, Any]] = {}
        self.contents, self.counted = dict[bytes, list[Any]](), counted

    def digest(self, value: Any) -> str:
        """Return the digest of a value, as 16 hexadecimal digits."""
        self.dump(value)
        return hashlib.sha256(self.file.getbuffer()).hexdigest()[:16]

    def persistent_id(self, value: Any) -> Any:
        """Return what stands for a value; None: the value itself."""
        if isinstance(value, Tensor | nn.Module):
            if id(value) in self.known:
                return self.known[id(value)][0]
            self.known[id(value)] = len(self.known), value  # kept, so that no id is used twice
        if isinstance(value, Tensor | np.ndarray):
            written = tensor_bytes(value) if isinstance(value, Tensor) else [value.dumps()]
            content = hashlib.sha256(b"".join(written)).digest()
            if self.counted is not None and content not in self.counted:
                return "not counted"
            self.contents.setdefault(content, []).append(value)
            return content if isinstance(value, Tensor) else None
        if isinstance(value, nn.Module):
            hook_names = sorted(
                name for name in vars(value) if re.match("_(for|back)ward.*hooks$", name)
            )
            hooks = [(name, list(vars(value)[name].values())) for name in hook_names]
            own = vars(value).keys() - _EVERY_MODULE - {"_torchdynamo_wrapper_id"}  # an address
            names = ("_parameters", "_buffers", "_modules", *sorted(own))
            return type(value), hooks, [(name, vars(value)[name]) for name in names]
        if isinstance(value, set | frozenset):
            return sorted(map(value_digest, value))
        if isinstance(value, FunctionType):
            if id(value) in self.known:  # it may hold itself
                return self.known[id(value)][0]
            self.known[id(value)] = len(self.known), value
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            names = (_module_of(value), value.__qualname__)
            parts = (value.__code__.co_code, value.__defaults__, value.__kwdefaults__)
            its = {k: v for k, v in vars(value).items() if not k.startswith("_torchdynamo")}
            return *names, *parts, its, cells
        if isinstance(value, MethodType):
            return value.__func__, value.__self__
        if isinstance(value, type) and "<locals>" in value.__qualname__:
            if id(value) in self.known:
                return self.known[id(value)][0]
            self.known[id(value)] = len(self.known), value
            items = [(k, v) for k, v in vars(value).items() if isinstance(v, _OF_A_CLASS)]
            return value.__qualname__, value.__bases__, sorted(items, key=itemgetter(0))
        if isinstance(value, _NAMED):
            return _module_of(value), getattr(value, "__qualname__", value.__name__)
        if isinstance(value, fx.Graph):
            return value.python_code("self").src
        return "device" if isinstance(value, torch.device) else None


def _module_of(value: Any) -> Any:
    name = getattr(value, "__module__", "")
    return name and canonical_name(name)
