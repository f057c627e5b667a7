"""Attacks from other libraries, called like the attacks of `src.attacks.zoo`."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature, getdoc, getmembers, isclass, signature
from math import inf, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.refusals import first_line, suggestion, warn_once
from .projection import Budgets, check_budgets, project
from .source import Model, Source, announce

BUDGETS = {"eps", "epsilon", "max_epsilon"}
"""Names that the libraries' classes have for their budget."""
FILLED = BUDGETS | {
    *("model", "norm", "distance", "constraint", "seed"),
    *("model_name", "targeted", "device", "attack", "normalize"),
}
"""Arguments of the libraries' classes that the program fills in; they are not keywords."""
_WAY = "Pass the class, functools.partial of it, or a function (model, images, labels, eps)."


class Call(NamedTuple):
    """Arguments of an attack; an L2 radius is a Euclidean length, labels may be target labels."""

    model: "_Copy"
    images: Tensor
    labels: Tensor
    true_labels: Tensor
    radius: float
    norm: str
    targeted: bool
    seed: int


Run = Callable[[Any, dict[str, Any], Call], Tensor]


@dataclass(frozen=True)
class Library:
    """Attacks from another library, as attributes with the names of their classes.

    Each is a function like the attacks of `src.attacks.zoo`, with the keywords of the class. All
    images share the budgets. Results are inside the ball of `project`; the model and the global
    random generators stay unchanged. Budgets are attacked one after another with the same random
    numbers, which depend on the seeds of all images in a batch.

    Attributes:
        module: Module that contains the classes.
        packages: Packages to install with pip.
        norms: Function that returns which of `linf` and `l2` a class or an object supports.
        run: Function from a class or an object, keywords and a call to adversarial images.
    """

    module: str
    packages: str
    norms: Callable[[Any], tuple[str, ...]]
    run: Run

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the attack of a class; raise ValueError if the class or library is missing."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            classes = dict(getmembers(import_module(self.module), isclass))
        except ImportError as error:
            raise ValueError(
                f"{self.module.partition('.')[0]} cannot be imported ({error}); install it with "
                f"pip install --no-deps {self.packages}"
            ) from error
        norms = {
            key: balls
            for key, attack_class in classes.items()
            if (balls := self.norms(attack_class))
        }
        if name not in norms:
            raise ValueError(
                f"attack.name={name}: {self.module} has no such attack for L-infinity or L2 balls. "
                f"Available: {', '.join(norms)}.{suggestion(name, [*norms])}"
            )
        return make_function(self.run, classes[name], norms[name])


def _norms_of_torchattacks(made: Any) -> tuple[str, ...]:
    measure = re.search(r"Distance Measure\s*:(.*)", getdoc(kind_of(made)) or "")
    names = " ".join(base.__name__ for base in kind_of(made).__mro__)  # torchattack states no more
    stated = getattr(made, "norm", measure[1] if measure else names)
    return tuple(norm for norm in ("linf", "l2") if norm in str(stated).lower())


def _run_torchattacks(made: Any, keywords: dict[str, Any], call: Call) -> Tensor:
    """Run a class or an object of torchattacks or torchattack."""
    name, values = kind_of(made).__name__, dict.fromkeys(BUDGETS, call.radius)
    values |= {"seed": call.seed, "device": call.images.device, "targeted": call.targeted}
    if isclass(made):
        filled = {**values, "norm": {"linf": "Linf", "l2": "L2"}[call.norm], "normalize": None}
        attack = made(call.model, **select(made, filled), **keywords)
    else:
        attack = copy_object(made, call.model, {**values, "attack_mode": "default"})
    if other := {vars(attack)[key] for key in BUDGETS & vars(attack).keys()} - {call.radius}:
        text = f"{name} turns the budget {call.radius:g} into {other.pop():g}."
        raise ValueError(f"{text} Its budget must be in [0, 1] units, such as 8 / 255.")
    if hasattr(attack, "normalization_used"):
        normalises = attack.normalization_used is not None
    else:
        normalises = not torch.equal(attack.normalize(call.images), call.images)
    if normalises:
        raise ValueError(
            f"{name} normalises images, as the model does. Build it without a normalisation, and "
            "put one that the model lacks into the model."
        )
    if call.targeted and hasattr(attack, "set_mode_targeted_by_label"):
        attack.set_mode_targeted_by_label(quiet=True)
    elif call.targeted and not getattr(attack, "targeted", False):
        raise ValueError("Targeted mode is not supported.")
    adversarial: Tensor = attack(call.images, call.labels)
    return adversarial


def _norms_of_foolbox(made: Any) -> tuple[str, ...]:
    if isclass(made) and {"distance", "constraint"} & signature(made).parameters.keys():
        return ("linf", "l2")
    power = getattr(getattr(made, "distance", None), "p", None)
    return ("linf",) if power == inf else ("l2",) if power == 2 else ()


def _run_foolbox(made: Any, keywords: dict[str, Any], call: Call) -> Tensor:
    foolbox: Any = import_module("foolbox")
    filled = {"distance": getattr(foolbox.distances, call.norm), "constraint": call.norm}
    attack = made(**select(made, filled), **keywords) if isclass(made) else copy.deepcopy(made)
    wrapped = foolbox.PyTorchModel(call.model, bounds=(0, 1), device=call.images.device)
    rule = "TargetedMisclassification" if call.targeted else "Misclassification"
    criterion = getattr(foolbox.criteria, rule)(call.labels)
    if not hasattr(attack, "run"):  # only the base classes that users extend have it
        raw: Tensor = attack(wrapped, call.images, criterion, epsilons=call.radius)[0]
        return raw
    bound = "epsilon" if "epsilon" in signature(attack.run).parameters else "early_stop"
    adversarial: Tensor = attack.run(wrapped, call.images, criterion, **{bound: call.radius})
    return adversarial


def kind_of(made: Any) -> Any:
    """Return a class itself, and an object's class."""
    return made if isclass(made) else type(made)


def base_of(kind: type) -> Any:
    """Return the base class of attacks that a class has from a library; None: it has none."""
    libraries = r"(torchattacks?|foolbox|transferattack(_\w+)?)\."
    bases = [base for base in kind.__mro__ if re.match(libraries, base.__module__)]
    return bases[-1] if bases else None


def is_own(kind: type) -> bool:
    """Return True for a class that is a user's own, not one of the library of its base."""
    return kind.__module__.partition(".")[0] != base_of(kind).__module__.partition(".")[0]


def parameters_of(attack_class: Any) -> dict[str, Parameter]:
    """Return a class's arguments by name, with those of the bases that get its `**keywords`."""
    found: dict[str, Parameter] = {}
    for parent in attack_class.__mro__:
        face = signature(parent).parameters
        found = {**face, **found}
        if BUDGETS & face.keys() or all(its.kind is not its.VAR_KEYWORD for its in face.values()):
            break
    return {
        name: parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for name, parameter in found.items()
        if parameter.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    }


def select(attack_class: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that a class accepts."""
    return {key: keywords[key] for key in keywords.keys() & parameters_of(attack_class).keys()}


def copy_object(attack: Any, model: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of an attack object on another model, with other values of its attributes.

    Attack objects in it change likewise. All other attributes stay as they are.

    Raises:
        ValueError: The object cannot be copied, or the other model would lack what its constructor
            did to its own.
    """
    kind, old, memo = type(attack), attack.model, {id(attack.model): model}
    try:
        copied = copy.deepcopy(attack, memo)
    except Exception as error:  # attributes raise all kinds of errors
        raise ValueError(
            f"{kind.__name__} cannot be copied: {first_line(error)}. {_WAY}"
        ) from error
    budgets = BUDGETS & vars(attack).keys() & values.keys()
    if is_own(kind) and any(vars(attack)[key] != values[key] for key in budgets):
        warn_once(
            "%s gets another budget than it was built for: what its constructor computed from the "
            "budget stays as it is. Pass the class to build it for each budget.",
            kind.__name__,
        )
    parts = [*old.modules()] if isinstance(old, nn.Module) else []
    hooked = any(part._forward_hooks or part._backward_hooks for part in parts)
    if hooked or any(id(part) in memo for part in parts[1:]):
        raise ValueError(f"{kind.__name__} uses layers of the model that it was built with. {_WAY}")
    for part in [its for its in memo.values() if base_of(type(its))]:
        for key in values.keys() & vars(part).keys():
            setattr(part, key, values[key])
    return copied


def make_function(run: Run, made: Any, norms: tuple[str, ...]) -> Callable[..., Tensor]:
    """Return a function that runs a class or an object; a class's keywords are its own."""
    kind = kind_of(made)

    @wraps(kind, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def attack(
        model: Model,
        images: Tensor,
        labels: Tensor,
        eps: Budgets,
        *,
        norm: str = norms[0],
        targeted: bool = False,
        true_labels: Tensor | None = None,
        seeds: Tensor | None = None,
        max_batch: int | None = None,
        **keywords: Any,
    ) -> Tensor:
        from pytorch_lightning import seed_everything  # slow to import
        from pytorch_lightning.utilities.seed import isolate_rng

        budgets, images = check_budgets(eps, images).detach(), images.detach()
        if budgets.ndim == 2:
            raise ValueError(f"{kind.__name__} does not support one budget per image.")
        if norm not in norms:
            raise ValueError(f"{kind.__name__} has no norm {norm}. Use {' or '.join(norms)}.")
        rows = torch.arange(len(images))
        seeds = rows if seeds is None else seeds.cpu()
        true_labels = labels if true_labels is None else true_labels
        unit = 1.0 if norm == "linf" else sqrt(images[0].numel())
        radii = budgets.reshape(-1, 1, 1, 1, 1)
        result = images.expand(len(radii), *images.shape).clone()
        for number, radius in enumerate(radii.flatten().tolist()):
            for part in rows.split(max_batch or len(rows)):
                announce(model, slice(int(part[0]), int(part[-1]) + 1))
                seed = int(np.random.SeedSequence(seeds[part].tolist()).generate_state(1)[0])
                batch = images[part].clone(), labels[part].clone(), true_labels[part].clone()
                with torch.enable_grad(), isolate_rng():
                    seed_everything(seed, verbose=False)
                    network = _Copy(model, images)  # a class may change it
                    call = Call(network, *batch, radius * unit, norm, targeted, seed)
                    result[number, part] = run(made, keywords, call).detach().to(images)
        return project(result, images, radii, norm).reshape(budgets.shape + images.shape)

    parameters = parameters_of(made) if isclass(made) else {}
    settings = [parameter for key, parameter in parameters.items() if key not in FILLED]
    main = [*signature(attack, follow_wrapped=False).parameters.values()][:-1]
    main[4] = main[4].replace(annotation=Literal[norms])
    function: Any = attack
    function.draws_per_batch = function.all_budgets = True
    function.__signature__ = Signature([*main[:4], *settings, *main[4:]], return_annotation=Tensor)
    return attack


class _Copy(nn.Module):
    """A frozen copy of a source in the form that libraries expect: a module with a parameter."""

    def __init__(self, model: Model, images: Tensor) -> None:
        super().__init__()
        self.device = nn.Parameter(images.new_zeros(()))  # libraries read the device from it
        self.copy: Any = copy.deepcopy(model)
        self.source = Source(self.copy)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.source.logits(images)
        if logits.ndim == 3:
            raise ValueError("ensemble=loss: libraries need logits; set ensemble=logits.")
        return logits


class FoolboxModel(nn.Module):
    """A model of foolbox as a module from images in [0, 1], with its preprocessing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.transform_bounds((0, 1))

    def forward(self, images: Tensor) -> Any:
        """Return the logits of images in [0, 1], of shape (N, 3, H, W)."""
        return self.model(images)


torchattacks = Library("torchattacks", "torchattacks", _norms_of_torchattacks, _run_torchattacks)
foolbox = Library("foolbox.attacks", "foolbox eagerpy", _norms_of_foolbox, _run_foolbox)
