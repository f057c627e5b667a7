"""State of a model that an attack has to leave as it is."""

from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

from torch import nn

_PLAIN = (bool, int, float, str, type(None))


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return a model's modes, attributes, hooks and parts, and how often tensors were written.

    Equal states are equal dictionaries; an object counts by its identity. Under the names of
    parameters and buffers stand their version counters, under `NAME: ATTRIBUTE` everything else.
    """
    state: dict[str, Any] = {}
    for name, part in model.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, dict):  # parameters, buffers, parts or hooks, mostly none
                if value:
                    state[f"{name}: {key}"] = [(inner, id(each)) for inner, each in value.items()]
            elif key[0] != "_":  # such as PyTorch's own marks of hooks that were there
                state[f"{name}: {key}"] = value if isinstance(value, _PLAIN) else id(value)
    tensors = chain(model.named_parameters(), model.named_buffers())
    return state | {name: tensor._version for name, tensor in tensors}


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], own: Collection[str] = ()
) -> list[str]:
    """Return the sorted names of what is not the same in two states, those in `own` left out."""
    names = (before.keys() | after.keys()) - set(own)
    return sorted(name for name in names if before.get(name) != after.get(name))
