"""Attacks as people bring them: functions, and objects and classes of other libraries."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.networks import copy_network
from ..utils.refusals import first_line
from .libraries import TARGETED_WAY, base_of, from_object, keep_layout
from .transferattack_clone import from_class

_WAY = "A function that takes all budgets at once must state all_budgets = True."


def adapt(attack: Any) -> Any:
    """Return a function of all budgets at once, like those in `src.attacks`.

    Args:
        attack: A function `attack(model, images, labels, eps)` with one budget, a number in [0, 1],
            that returns images of the same shape; one that states `all_budgets = True`, like those
            in `src.attacks`, which gets budgets (K,) and returns (K, N, 3, H, W); an object as for
            `from_object`; or a class of TransferAttack or with a base class of it.

    Raises:
        ValueError: An object or a class cannot be used, or the attack is set to targeted mode.
    """
    if isinstance(attack, partial) and not attack.args:
        if attack.keywords.get("targeted"):
            raise ValueError(f"targeted=True: the program sets this itself. {TARGETED_WAY}")
        return partial(adapt(attack.func), **attack.keywords)
    if base := base_of(attack):
        name = getattr(attack, "__name__", type(attack).__name__)
        is_clone = base.__module__.startswith("transferattack")
        return from_class(attack, name) if is_clone else from_object(attack)
    return attack if getattr(attack, "all_budgets", False) else _each_budget(attack)


def _each_budget(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that calls another one with each budget, on copies of all else."""
    face = function.forward if isinstance(function, nn.Module) else function  # with a signature

    @wraps(face, updated=())
    def attack(model: Any, images: Tensor, labels: Tensor, eps: Tensor, **keywords: Any) -> Tensor:
        results = []
        for budget in eps.tolist():
            network, *batch = copy_network((model, images.contiguous(), labels))
            if isinstance(network, nn.Module):
                network.register_forward_pre_hook(keep_layout)
            tensors = {
                key: value.clone() for key, value in keywords.items() if torch.is_tensor(value)
            }
            try:
                result = function(network, *batch, budget, **keywords | tensors)
            except AttributeError as error:
                if isinstance(error.obj, float):
                    raise ValueError(f"{first_line(error)}: eps is one number. {_WAY}") from error
                raise
            if not isinstance(result, Tensor):
                kind, way = type(result).__name__, "torch.as_tensor converts an array."
                raise ValueError(f"it returns {kind} instead of a tensor. {way}")
            if result.shape != images.shape:
                returned, expected = tuple(result.shape), tuple(images.shape)
                raise ValueError(f"it returns {returned} instead of {expected}. {_WAY}")
            results.append(result.detach().clone())  # the function may reuse its memory
        return torch.stack(results, dim=-5)

    return attack
