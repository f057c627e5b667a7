"""Attacks of other libraries, as functions like the published ones: `torchattacks.MIFGSM`."""

import copy
import random
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from inspect import Parameter, Signature, isclass, signature
from math import inf, prod, sqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from src.attacks.projection import Budgets, checked_budgets, project
from src.attacks.source import Model, Source
from src.utils.checks import suggestion

_FILLED = {"model", "eps", "max_epsilon", "norm", "distance", "constraint", "seed"}
"""Arguments of the libraries' classes that are no keywords of the functions."""


class Library(ABC):
    """Attacks of another library, as attributes by the names of their classes.

    Each is a function like the published ones: the result is inside the ball of `project`, and
    neither the model nor a global random generator changes. Other keywords are those of the class,
    with its defaults. Budgets are attacked one after another, with the same random numbers; an
    attack that looks for the least change runs once. What is random depends on the seeds of all
    images of a batch.

    Attributes:
        name: Of the package.
        packages: What pip is to install.
    """

    name: str
    packages: str

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the attack of a class; ValueError if there is none, or no library."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            with warnings.catch_warnings():  # foolbox 3.3 imports by an old name of SciPy's
                warnings.simplefilter("ignore", DeprecationWarning)
                classes = self.classes(import_module(self.name))
        except ImportError as error:
            raise ValueError(
                f"{self.name} cannot be imported ({error}); it is installed by "
                f"pip install --no-deps {self.packages}"
            ) from error
        norms = {key: each for key, kind in classes.items() if (each := self.norms(kind))}
        if name not in norms:
            raise ValueError(
                f"attack.name={name}: {self.name} has no such attack in L-infinity or L2 balls, "
                f"but {', '.join(sorted(norms))}.{suggestion(name, sorted(norms))}"
            )
        return _function(self, classes[name], norms[name])

    @abstractmethod
    def classes(self, library: Any) -> Mapping[str, type]:
        """Return the library's attack classes by name."""

    @abstractmethod
    def norms(self, kind: Any) -> tuple[str, ...]:
        """Return those of `linf` and `l2` that a class is made for."""

    @abstractmethod
    def has_budget(self, kind: Any) -> bool:
        """Tell whether a class has a budget; one that has none looks for the least change."""

    @abstractmethod
    def run(
        self,
        kind: Any,
        words: Mapping[str, Any],
        norm: str,
        targeted: bool,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        radius: float,
        seed: int,
    ) -> Tensor:
        """Return adversarial images (N, 3, H, W); a radius of L2 is a Euclidean length."""


class _TorchAttacks(Library):
    name = packages = "torchattacks"

    def classes(self, library: Any) -> Mapping[str, type]:
        return {name: getattr(library, name) for name in library.__all__}

    def norms(self, kind: Any) -> tuple[str, ...]:
        stated = re.search(r"Distance Measure\s*:(.*)", kind.__doc__ or "")
        return tuple(norm for norm in ("linf", "l2") if stated and norm in stated[1].lower())

    def has_budget(self, kind: Any) -> bool:
        return bool({"eps", "max_epsilon"} & signature(kind).parameters.keys())

    def run(  # type: ignore[no-untyped-def]
        self, kind, words, norm, targeted, model, images, labels, radius, seed
    ) -> Tensor:
        norm = {"linf": "Linf", "l2": "L2"}[norm]
        given = {"eps": radius, "max_epsilon": radius, "norm": norm, "seed": seed}
        attack = kind(model, **_taken(kind, given), **words)
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(images, labels)


class _Foolbox(Library):
    name, packages = "foolbox", "foolbox eagerpy"

    def classes(self, library: Any) -> Mapping[str, type]:
        base = library.attacks.base
        kinds = base.FixedEpsilonAttack, base.MinimizationAttack
        found = {name: each for name, each in vars(library.attacks).items() if isclass(each)}
        return {name: each for name, each in found.items() if issubclass(each, kinds)}

    def norms(self, kind: Any) -> tuple[str, ...]:
        if {"distance", "constraint"} & signature(kind).parameters.keys():
            return ("linf", "l2")
        known = kind() if isinstance(kind.distance, property) else kind
        p = getattr(getattr(known, "distance", None), "p", None)
        return ("linf",) if p == inf else ("l2",) if p == 2 else ()

    def has_budget(self, kind: Any) -> bool:
        return "epsilon" in signature(kind.run).parameters

    def run(  # type: ignore[no-untyped-def]
        self, kind, words, norm, targeted, model, images, labels, radius, seed
    ) -> Tensor:
        foolbox = import_module(self.name)
        given = {"distance": getattr(foolbox.distances, norm), "constraint": norm}
        attack = kind(**_taken(kind, given), **words)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        rule = "TargetedMisclassification" if targeted else "Misclassification"
        criterion = getattr(foolbox.criteria, rule)(labels)
        bound = {"epsilon" if self.has_budget(kind) else "early_stop": radius}
        try:
            return attack.run(wrapped, images, criterion, **bound)
        except ValueError as error:
            if str(error) != "unsupported criterion":
                raise
            what = "takes no target labels" if targeted else "needs target labels"
            raise ValueError(f"it {what} (attack.target_label)") from error


torchattacks, foolbox = _TorchAttacks(), _Foolbox()


def _taken(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in given.keys() & signature(kind).parameters.keys()}


def _function(library: Library, kind: Any, norms: tuple[str, ...]) -> Callable[..., Tensor]:
    """Return a class as a function whose signature has the class's keywords."""

    @wraps(kind, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def attack(
        model: Model,
        images: Tensor,
        labels: Tensor,
        eps: Budgets,
        *,
        norm: str = norms[0],
        targeted: bool = False,
        seeds: Tensor | None = None,
        max_batch: int | None = None,
        **words: Any,
    ) -> Tensor:
        budgets = checked_budgets(eps, images).detach()
        images, count = images.detach(), len(images)
        each = budgets if budgets.ndim == 2 else budgets.reshape(-1, 1).expand(-1, count)
        run = partial(library.run, kind, words, norm, targeted, _Copy(model, images))
        unit = 1.0 if norm == "linf" else sqrt(prod(images.shape[1:]))
        seeds = torch.arange(count) if seeds is None else seeds
        given = (run, images, labels, seeds.cpu(), max_batch or count)
        sizes = each if library.has_budget(kind) else each.amin().expand(1, count)
        found = torch.stack([_one_budget(*given, own * unit) for own in sizes])
        projected = project(found, images, each[..., None, None, None], norm)
        return projected.reshape(budgets.shape[:1] + images.shape)

    own = [
        each.replace(kind=Parameter.KEYWORD_ONLY)
        for key, each in signature(kind).parameters.items()
        if key not in _FILLED
    ]
    main = [*signature(attack, follow_wrapped=False).parameters.values()][:-1]
    main[4] = main[4].replace(annotation=Literal[norms])
    function: Any = attack
    function.__signature__ = Signature([*main[:4], *own, *main[4:]], return_annotation=Tensor)
    return attack


def _one_budget(
    run: Callable[..., Tensor],
    images: Tensor,
    labels: Tensor,
    seeds: Tensor,
    limit: int,
    radii: Tensor,
) -> Tensor:
    """Return adversarial images (N, 3, H, W), those of one radius and at most `limit` at once."""
    result = images.clone()
    for radius in radii.unique():
        for rows in (radii == radius).nonzero()[:, 0].split(limit):
            with torch.enable_grad(), _seeded(seeds[rows.cpu()], images.device) as seed:
                given = images[rows].clone(), labels[rows].clone()
                result[rows] = run(*given, float(radius), seed).detach().to(images)
    return result


class _Copy(nn.Module):
    """A frozen copy of a source, as libraries take it: a module that has a parameter."""

    def __init__(self, model: Model, images: Tensor) -> None:
        super().__init__()
        self.device = nn.Parameter(images.new_zeros(()))  # which tells libraries the device
        self.copy: Any = copy.deepcopy(model)
        self.source = Source(self.copy)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.source.logits(images)
        if logits.ndim == 3:
            raise ValueError(
                "ensemble=loss has no logits for the loss of another library; ensemble=logits and "
                "ensemble=probabilities have"
            )
        return logits


@contextmanager
def _seeded(seeds: Tensor, device: torch.device) -> Iterator[int]:
    """Seed all global generators with one number made of several; put them back afterwards."""
    seed = int(np.random.SeedSequence(seeds.tolist()).generate_state(1)[0])
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield seed
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
