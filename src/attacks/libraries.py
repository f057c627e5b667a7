"""Attacks from other libraries, called like the attacks of `src.attacks.zoo`."""

import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from importlib import import_module
from inspect import Parameter, Signature, getdoc, getmembers, isclass, signature
from math import isclose, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.networks import copy_network
from ..utils.refusals import choose, warn_once
from .projection import Budgets, check_budgets, project
from .source import Model, Source, announce

_BUDGETS = {"eps", "epsilon", "max_epsilon"}
_FILLED = _BUDGETS | {
    *("model", "norm", "seed", "model_name", "name", "targeted", "device", "attack", "normalize"),
}
"""Arguments of the libraries' classes that the program fills in; they are not keywords."""
LENGTHS = {*_BUDGETS, "alpha"}
"""Arguments of the libraries' classes for the budget, and for the step in its unit."""
TARGETED_WAY = "Build it without target labels, and pass target_labels= to choose them."
_WAY = "Pass: lambda model, images, labels, eps: {}(model, eps=eps)(images, labels)"


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


Run = Callable[[Any, dict[str, Any], Call], Any]


class Torchattacks:
    """Classes of torchattacks as attributes with their names: `torchattacks.MIFGSM`.

    Each is a function like the attacks of `src.attacks.zoo`, with the keywords of the class. All
    images share the budgets. Results are inside the ball of `project`; the caller of a model that
    counts projects them itself. The model and the global random generators stay unchanged. Budgets
    are attacked one after another with the same random numbers, which depend on the seeds of all
    images in a batch.
    """

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the attack of a class; raise ValueError if the class or library is missing."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            members = getmembers(import_module("torchattacks"), isclass)
        except ImportError as error:
            raise ValueError(
                f"torchattacks cannot be imported ({error}); install it with "
                "pip install --no-deps torchattacks"
            ) from error
        classes = {key: attack_class for key, attack_class in members if _norms(attack_class)}
        attack_class = classes[choose("attack.name", name, classes)]
        return make_function(_run_class, attack_class, _norms(attack_class))


def _norms(attack_class: Any) -> tuple[str, ...]:
    measure = re.search(r"Distance Measure\s*:(.*)", getdoc(attack_class) or "")
    return tuple(norm for norm in ("linf", "l2") if measure and norm in measure[1].lower())


def _run_class(attack_class: Any, keywords: dict[str, Any], call: Call) -> Any:
    name = {"linf": "Linf", "l2": "L2"}[call.norm]
    filled = {"eps": call.radius, "max_epsilon": call.radius, "norm": name, "seed": call.seed}
    attack = attack_class(call.model, **select(attack_class, filled), **keywords)
    if call.targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(call.images, call.labels)


def select(attack_class: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that a class accepts."""
    return {key: keywords[key] for key in keywords.keys() & defaults_of(attack_class).keys()}


def defaults_of(function: Any) -> dict[str, Any]:
    """Return the defaults in a signature by keyword."""
    return {key: parameter.default for key, parameter in signature(function).parameters.items()}


def make_function(run: Run, attack_class: Any, norms: tuple[str, ...]) -> Callable[..., Tensor]:
    """Return a function that runs a class, with the class's keywords in its signature."""

    @wraps(attack_class, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
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
            raise ValueError(f"{attack_class.__name__} does not support one budget per image.")
        if norm not in norms:
            raise ValueError(f"{attack_class.__name__} has only norm {norms[0]}.")
        rows = torch.arange(len(images))
        seeds = rows if seeds is None else seeds.cpu()
        true_labels = labels if true_labels is None else true_labels
        unit = 1.0 if norm == "linf" else sqrt(images[0].numel())
        radii, name = budgets.reshape(-1, 1, 1, 1, 1), attack_class.__name__
        result = images.expand(len(radii), *images.shape).clone()
        for number, radius in enumerate(radii.flatten().tolist()):
            for part in rows.split(max_batch or len(rows)):
                announce(model, slice(int(part[0]), int(part[-1]) + 1))
                seed = int(np.random.SeedSequence(seeds[part].tolist()).generate_state(1)[0])
                plain = images[part].clone(memory_format=torch.contiguous_format)
                batch = plain, labels[part].clone(), true_labels[part].clone()
                with torch.enable_grad(), isolate_rng():
                    seed_everything(seed, verbose=False)
                    network = _Copy(model, images)  # a class may change it
                    call = Call(network, *batch, radius * unit, norm, targeted, seed)
                    made = floats_like(plain, run(attack_class, keywords, call), name)
                    result[number, part] = made.detach().to(images)
        inside = result if hasattr(model, "expect_images") else project(result, images, radii, norm)
        return inside.reshape(budgets.shape + images.shape)

    parameters = [
        value for key, value in signature(attack_class).parameters.items() if key not in _FILLED
    ]
    settings = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    main = [*signature(attack, follow_wrapped=False).parameters.values()][:-1]
    main[4] = main[4].replace(annotation=Literal[norms])
    function: Any = attack
    function.draws_per_batch = function.all_budgets = True
    function.__signature__ = Signature([*main[:4], *settings, *main[4:]], return_annotation=Tensor)
    return attack


def floats_like(images: Tensor, made: Any, name: str) -> Tensor:
    """Return what an attack made, as a tensor; refuse other types and shapes than the images'."""
    try:
        found = torch.as_tensor(made)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} returns {type(made).__name__} instead of a tensor.") from None
    if not found.is_floating_point() or found.shape != images.shape:
        returned = f"{tuple(found.shape)} of {found.dtype}"
        raise ValueError(f"{name} returns {returned} instead of floats {tuple(images.shape)}.")
    return found


class _Copy(nn.Module):
    """A frozen copy of a source in the form that libraries expect: a module with a parameter."""

    def __init__(self, model: Model, images: Tensor) -> None:
        super().__init__()
        self.device = nn.Parameter(images.new_zeros(()))  # libraries read the device from it
        self.copy: Any = copy_network(model)
        self.source = Source(self.copy)
        self.eval().requires_grad_(False)
        self.register_forward_pre_hook(keep_layout)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.source.logits(images)
        if logits.ndim == 3:
            raise ValueError("ensemble=loss: libraries need logits; set ensemble=logits.")
        return logits


def keep_layout(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Make gradients contiguous, so that `view` works on them whatever layout the model has."""
    if inputs[0].requires_grad:
        inputs[0].register_hook(Tensor.contiguous)


def base_of(attack: Any) -> Any:
    """Return the last base class of an attack's class that a library has; None: it has none."""
    kind = attack if isclass(attack) else type(attack)
    libraries = r"(torchattacks?|foolbox|transferattack(_\w+)?)\."
    bases = [base for base in kind.__mro__ if re.match(libraries, base.__module__)]
    return bases[-1] if bases else None


def is_own(attack: Any) -> bool:
    """Return True for an object of a class that its library does not have."""
    return type(attack).__module__.partition(".")[0] != base_of(attack).__module__.partition(".")[0]


def from_object(attack: Any) -> Callable[..., Tensor]:
    """Return the function of an attack object of torchattacks or torchattack.

    The object may be of a class of one's own. It is copied with the source as its model and with
    the budget; all other attributes stay as they are.

    Raises:
        ValueError: It is a class or of another library, or its budget cannot be set.
    """
    if isclass(attack):
        raise ValueError(f"{attack.__name__} is a class. Pass an object of it.")
    kind, state = type(attack), vars(attack)
    name, bases = kind.__name__, [base.__name__ for base in kind.mro()]
    way = "Pass a function (model, images, labels, eps) that calls it."
    if base_of(attack).__module__.startswith("foolbox"):
        raise ValueError(f"{name} is an attack of foolbox, which has its own models. {way}")
    if is_own(attack) and _BUDGETS.isdisjoint(state):
        raise ValueError(f"{name} has no attribute eps for its budget. {way}")
    stated = str(state.get("norm", _norms(kind) or bases)).lower()
    norms = ("l2",) if re.search("^2|l2", stated) else ("linf",)
    run = partial(_run_object, attack)
    function: Any = make_function(lambda _, keywords, call: run(call), kind, norms)
    function.of_object = True  # which has its settings
    function.lengths = {key: state[key] for key in LENGTHS & state.keys()}
    settings = (signature(kind).parameters.keys() & state.keys()) - _FILLED
    return partial(function, **{key: state[key] for key in settings})  # for the record


def _run_object(attack: Any, call: Call) -> Any:
    """Call a copy of an object of torchattacks or torchattack on the source."""
    name, old, memo = type(attack).__name__, attack.model, {id(attack.model): call.model}
    copied = copy_network(attack, memo)
    parts = [*old.modules()] if isinstance(old, nn.Module) else []
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks")
    hooked = any(getattr(part, hooks) for part in parts for hooks in kinds)
    if hooked or any(id(part) in memo for part in parts[1:]):
        raise ValueError(f"{name} has layers of the model it was built with. {_WAY.format(name)}")
    budgets = {vars(attack)[key] for key in _BUDGETS & vars(attack).keys()}
    fixed = (vars(attack).get("alpha") or 0) * vars(attack).get("steps", 0)
    if (is_own(attack) or any(isclose(fixed, eps) for eps in budgets)) and budgets != {call.radius}:
        text = "%s was built for another budget. If steps depend on its budget, p%s"
        warn_once(text, name, _WAY.format(name)[1:])
    values = dict.fromkeys(_BUDGETS, call.radius) | {"attack_mode": "default", "seed": call.seed}
    values |= {"device": call.images.device, "targeted": call.targeted}
    for part in [part for part in memo.values() if base_of(part)]:  # others may be inside
        _check_mode_and_unit(part, call.norm)
        others = _BUDGETS - {"eps"} if "eps" in vars(part) else set[str]()
        for key in (values.keys() - others) & vars(part).keys():
            setattr(part, key, values[key])
    normalise = vars(copied).get("normalize", torch.clone)  # of torchattack
    changed = not torch.equal(normalise(call.images), call.images)
    if changed or getattr(copied, "normalization_used", None):  # of torchattacks
        way = "Build it without a normalisation, and put one that the model lacks into the model."
        raise ValueError(f"{name} normalises images, as the model does. {way}")
    if call.targeted and "attack_mode" in vars(copied):
        copied.set_mode_targeted_by_label(quiet=True)
    elif call.targeted and "targeted" not in vars(copied):
        raise ValueError("Targeted mode is not supported.")
    return copied(call.images, call.labels)


def _check_mode_and_unit(attack: Any, norm: str) -> None:
    """Refuse an object in targeted mode, or with a budget for pixels from 0 to 255."""
    name, state = type(attack).__name__, vars(attack)
    if state.get("attack_mode", "default") != "default" or state.get("targeted"):
        text = "is set to targeted mode, which the program sets itself"
        raise ValueError(f"{name} {text}. {TARGETED_WAY}")
    for key in sorted(_BUDGETS & state.keys()) if norm == "linf" else ():
        if isinstance(state[key], int | float) and state[key] > 1:
            way = f"Build it with {key} and steps in this unit, such as {key}=8/255."
            raise ValueError(f"{name} has {key}={state[key]:g}, but pixels are in [0, 1]. {way}")


torchattacks = Torchattacks()
