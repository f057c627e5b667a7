"""Digest of state that a state dict does not hold as tensors: attributes, packed weights."""

import hashlib
import json
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum
from functools import partial
from io import BytesIO
from operator import attrgetter
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..utils.package import canonical_name
from ..utils.refusals import first_line

_EVERY_MODULE = vars(nn.Module()).keys()
_HOOKS = [name for name in _EVERY_MODULE if re.match(r"_(?!load).*hooks$", name)]
_PLAIN = (NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.memory_format)
_SHOWN = {"_flat_weight_refs"}  # references of recurrent layers to their parameters


class StateDigest:
    """Digest of a network's state, except the tensors in its state dict.

    This state consists of the modules' attributes, buffers that are not persistent, extra state and
    packed weights. Functions and classes count by their names, devices do not count. Hooks,
    functions without a name and other objects have no digest, because they may hold anything.

    Attributes:
        text: 16 hexadecimal digits, of everything that has a digest.
        has_weights: True if the state has tensors, arrays or extra state.
        opaque: The first part without a digest, in words; empty: there is none.
    """

    def __init__(self, network: nn.Module) -> None:
        self.has_weights, self.opaque = False, ""
        self._known: dict[int, tuple[str, Any]] = {}  # with the objects, so that ids stay unique
        parts = list[Any]()
        try:
            parts = self._parts_of_network(network)
        except Exception as error:  # of any type: objects decide how they are read
            self.opaque = f"its state ({first_line(error)})"
        self.text = text_digest(json.dumps(parts))

    def _parts_of_network(self, network: nn.Module) -> list[Any]:
        state = network.state_dict()
        for named in (network.named_parameters, network.named_buffers):
            for name, value in named(remove_duplicate=False):
                if torch.is_tensor(state.get(name)):
                    self._known[id(value)] = f"{name} of the state dict", value
        others = {name: value for name, value in state.items() if not torch.is_tensor(value)}
        self.has_weights = bool(others)
        return [self._parts(network, "network"), self._parts(others, "its extra state")]

    def _parts(self, value: Any, place: str) -> Any:
        """Return a value as nested lists of texts; `place` names it in messages."""
        if isinstance(value, Tensor | nn.Module):
            if id(value) in self._known:
                return self._known[id(value)][0]
            self._known[id(value)] = str(len(self._known)), value
        kind = type(value)
        if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
            return self._parts_of_module(value, place)
        if isinstance(value, Tensor) or (kind is np.ndarray and not value.dtype.hasobject):
            self.has_weights = True
            written = tensor_bytes(value) if isinstance(value, Tensor) else [value.dumps()]
            return hashlib.sha256(b"".join(written)).hexdigest()
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return [str(value.dtype), value.tobytes().hex()]
        if kind in _PLAIN:
            return [kind.__name__, repr(value)]
        if isinstance(value, torch.device):
            return "device"
        if isinstance(value, Enum):
            return [self._parts(kind, place), value.name, self._parts(value.value, place)]
        if kind in (dict, OrderedDict):
            return [
                [self._parts(key, place), self._parts(item, f"{place}[{key!r:.40}]")]
                for key, item in value.items()
            ]
        if kind in (set, frozenset):
            return sorted(json.dumps(self._parts(item, place)) for item in value)
        if kind is list or (isinstance(value, tuple) and not hasattr(value, "__dict__")):
            items = [self._parts(item, f"{place}[{n}]") for n, item in enumerate(value)]
            return [kind.__name__, *items]
        if _is_named(value):
            name = [canonical_name(str(value.__module__)), value.__qualname__]
            return [*name, self._parts(held, place)] if (held := _held_by(value)) else name
        if isinstance(value, MethodType):
            return [self._parts(item, place) for item in (value.__func__, value.__self__)]
        if kind is partial:
            return [self._parts(item, place) for item in (value.func, value.args, value.keywords)]
        if isinstance(value, fx.Graph):
            called = [node.target for node in value.nodes if node.op == "call_function"]
            return [value.python_code("self").src, self._parts(called, place)]
        if isinstance(value, torch.ScriptObject):
            return self._parts(value.__getstate__(), place)
        self.opaque = self.opaque or f"{place} ({kind.__qualname__})"
        return kind.__qualname__

    def _parts_of_module(self, module: nn.Module, place: str) -> Any:
        attributes, kind = vars(module), type(module)
        if any(map(attributes.get, _HOOKS)):
            self.opaque = self.opaque or f"a hook of {place}"
        kind = fx.GraphModule if isinstance(module, fx.GraphModule) else kind  # each has its own
        names = ("_parameters", "_buffers", "_modules")
        parts = {f"{place}.{key}": item for name in names for key, item in attributes[name].items()}
        names_there = sorted(attributes.keys() - _EVERY_MODULE - _SHOWN)
        parts |= {f"{place}.{name}": attributes[name] for name in names_there}
        return [self._parts(kind, place), *([key, self._parts(parts[key], key)] for key in parts)]


def text_digest(text: str) -> str:
    """Compute the digest of a text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tensor_bytes(value: Tensor) -> Iterable[bytes | memoryview]:
    """Yield what identifies a tensor; device, memory format and gradients make no difference."""
    yield f"{value.dtype} {tuple(value.shape)}\n".encode()
    if not value.numel():
        return  # its strides may be 0, which no view as bytes can have
    plain = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
    if plain and not value.is_quantized:
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    else:  # quantised, sparse or a subclass
        torch.save(value.detach().cpu(), file := BytesIO())
        yield file.getbuffer()


def _is_named(value: Any) -> bool:
    """Return True for a function or class that its module has under its name."""
    if isinstance(value, BuiltinFunctionType):
        return isinstance(value.__self__, type | ModuleType | None)
    if not isinstance(value, type | FunctionType):
        return False
    module = sys.modules.get(str(value.__module__))
    names = (value.__qualname__, value.__name__)  # torch's functional pools have the second alone
    return any(_get(module, name) is value for name in names)


def _get(module: ModuleType | None, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _held_by(value: Any) -> list[Any]:
    """Return the values that a function carries beside its code; none for a class."""
    if not isinstance(value, FunctionType):
        return []
    named = {name: attribute for name, attribute in vars(value).items() if name != "__wrapped__"}
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    held = [value.__defaults__, value.__kwdefaults__, cells, named]
    return held if any(held) else []
