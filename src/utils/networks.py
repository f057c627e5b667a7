"""Copies of networks."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NetworkT = TypeVar("NetworkT")


def copy_network(network: NetworkT, memo: dict[int, Any] | None = None) -> NetworkT:
    """Return a deep copy of a network, wherever it keeps tensors of its last pass.

    Args:
        network: The network; it is not changed.
        memo: Objects by id of those that they replace in the copy, as for `copy.deepcopy`.
    """
    # With gradients, the copied weights of a traced module are not leaves.
    with _Detached(), torch.no_grad():
        return copy.deepcopy(network, memo)


class _Detached(TorchFunctionMode):
    """Mode in which a deep copy of a tensor with a graph has none; torch refuses such tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))
