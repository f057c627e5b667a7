"""Reading of pickled weights that imports and runs nothing of what a file names."""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class Stub(dict[Any, Any]):
    """Inert object in the place of one that is not read; of its content it keeps dict items."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore a state, as well as items for a list or a set."""

    append = extend = add = __setstate__
    dump_patches = False  # read by torch in files of old versions
    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key


class _Call:
    """Function that a file may call, but whose attributes it cannot set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        """Ignore a state."""


class _Kind:
    """Type of a NumPy number: only plain ones, because others may hold addresses."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name if re.fullmatch("[biufc][0-9]{1,2}", str(name)) else None
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """Take the byte order of a state."""
        self.order = ">" if state[1] == ">" else "<"

    def number(self, data: Any) -> Any:
        """Return the number with these bytes."""
        if self.name is None or not isinstance(data, bytes):
            return Stub()
        return np.frombuffer(data, f"{self.order}{self.name}", 1)[0].item()


_BUILD = ("_rebuild_parameter", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_tensor_v2")
_KNOWN: dict[str, Any] = {
    **{f"torch._utils.{name}": _Call(getattr(torch._utils, name)) for name in _BUILD},
    "torch._utils._rebuild_parameter_with_state": _Call(
        lambda *parts: torch.nn.Parameter(*parts[:2])
    ),
    "torch._tensor._rebuild_from_type_v2": _Call(lambda *parts: parts[0](*parts[2])),  # no subclass
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "numpy.dtype": _Call(_Kind),
    "numpy._core.multiarray.scalar": _Call(lambda dtype, data=b"": dtype.number(data)),
    "_codecs.encode": _Call(lambda *parts: parts[0].encode("latin1")),  # a NumPy number's bytes
}
"""Stand-ins for the names in a file. None runs code of the file or changes with a state."""
_CONSTANTS = (torch.dtype, torch.layout, torch.qscheme)


def load_pickle(path: Path, mmap: bool = False) -> tuple[Any, list[str]]:
    """Load a file of `torch.save`; every object that is no tensor or plain value is a `Stub`.

    With `mmap`, which files of early versions of torch do not support, no tensor is read yet.

    Returns:
        The content, and the names of the classes and functions that were not read.
    """
    hidden = dict[str, None]()

    class Unpickler(pickle.Unpickler):
        """Unpickler that looks names up in a table, and imports none."""

        def find_class(self, module: str, name: str) -> Any:
            module = module.replace("__builtin__", "builtins").replace("numpy.core", "numpy._core")
            constant = vars(torch).get(name) if module == "torch" else None
            value = constant if isinstance(constant, _CONSTANTS) else _KNOWN.get(f"{module}.{name}")
            if value is None:
                hidden[f"{module}.{name}"] = None
            return Stub if value is None else value

    reader = SimpleNamespace(__name__="restricted_pickle", Unpickler=Unpickler)
    reader.load = lambda file, **keywords: Unpickler(file, **keywords).load()
    with warnings.catch_warnings(action="ignore"):  # of other versions' files
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), []
        except pickle.UnpicklingError:  # never for TorchScript, which the next call would run
            return torch.load(path, "cpu", reader, weights_only=False, mmap=mmap), list(hidden)
