"""Kernels that PyTorch's documentation calls nondeterministic on a GPU, refused on a CPU."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

LIST = json.loads(Path(__file__).with_suffix(".json").read_bytes())
"""`torch`, a version, and `kernels`: lines of `use_deterministic_algorithms`' documentation about
what it refuses, each with the operators meant; lines about other devices have none."""
REFUSED = {name for names in LIST["kernels"].values() for name in names}


class _Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        operator, overload = function._schema.name.removeprefix("aten::"), function._overloadname
        weighted = operator != "bincount" or len(args) > 1 or "weights" in (kwargs or {})
        if {operator, f"{operator}.{overload}"} & REFUSED and weighted:
            raise RuntimeError(f"{operator} does not have a deterministic implementation")
        return function(*args, **kwargs or {})


@contextmanager
def refuse_nondeterministic() -> Iterator[None]:
    """Raise RuntimeError for operators that a GPU computes differently in each run."""
    with _Refusing():
        yield
