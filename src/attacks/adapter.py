"""Attacks as people bring them: functions, and classes and objects of other libraries."""

import copy
from collections.abc import Callable
from functools import partial, wraps
from inspect import isclass, signature
from typing import Any

import torch
from torch import Tensor

from .libraries import (
    BUDGETS,
    base_of,
    foolbox,
    is_own,
    kind_of,
    make_function,
    parameters_of,
    torchattacks,
)
from .transferattack_clone import make_attack

_LIBRARIES = {"foolbox": foolbox, "torchattack": torchattacks, "torchattacks": torchattacks}


def adapt(attack: Any) -> Any:
    """Return a function of all budgets at once, like those in `src.attacks`.

    Args:
        attack: A function `attack(model, images, labels, eps)` with one budget, a number in [0, 1],
            that returns images of the same shape; one that states `all_budgets = True`, like those
            in `src.attacks`, which gets budgets (K,) and returns (K, N, 3, H, W); or a class or an
            object with a base class of torchattacks, torchattack, foolbox or TransferAttack. A
            class is built for each budget. An object is copied with the budget; its other
            attributes stay as they are.

    Raises:
        ValueError: The budget of a class or an object cannot be set.
    """
    made = attack.func if isinstance(attack, partial) and isclass(attack.func) else attack
    kind = kind_of(made)
    if not base_of(kind):
        stated = (getattr(its, "all_budgets", False) for its in (attack, made, kind))
        return attack if any(stated) or not callable(attack) else _each_budget(attack)
    library = _LIBRARIES.get(base_of(kind).__module__.partition(".")[0])
    known = parameters_of(kind) if isclass(made) else vars(made)
    if is_own(kind) and library is not foolbox and BUDGETS.isdisjoint(known):
        raise ValueError(
            f"{kind.__name__} has no eps, so its budget cannot be set. Pass a function (model, "
            "images, labels, eps) that makes and calls it."
        )
    if library:
        function = make_function(library.run, made, library.norms(made) or ("linf",))
    else:
        function = make_attack(made, kind.__name__)
    return partial(function, **attack.keywords) if made is not attack else function


def _each_budget(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that calls another one with each budget, on copies of all else."""

    @wraps(function, updated=())
    def attack(model: Any, images: Tensor, labels: Tensor, eps: Tensor, **keywords: Any) -> Tensor:
        if eps.ndim == 2:
            raise ValueError("it takes one budget for all images, not one per image.")
        results = []
        for budget in eps.tolist():
            its, *batch, words = copy.deepcopy((model, images, labels, keywords))
            result = function(its, *batch, budget, **words)
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            if shape != tuple(images.shape) and "iterates" not in keywords:
                raise ValueError(
                    f"it returns {shape} instead of {tuple(images.shape)}, one image per image. A "
                    "function that takes all budgets at once must state all_budgets = True."
                )
            results.append(result.detach())
        return torch.stack(results, dim=-5)

    vars(attack)["__signature__"] = signature(getattr(function, "forward", function))
    return attack
