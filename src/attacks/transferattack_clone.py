"""Attacks from a clone of TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack)."""

import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..utils.devices import named_errors
from ..utils.networks import copy_network
from ..utils.package import command
from ..utils.refusals import suggestion
from .libraries import Call, base_of, defaults_of, floats_like, make_function, select
from .source import Source, members_of

_NORMS = {"linf": "linfty", "l2": "l2"}


class TransferAttack:
    """TransferAttack's classes as attributes with their short names: `transferattack.ops`.

    Each is a function like those of `Library`; its keyword `root` is the folder of the clone.
    `transferattack.ops.in_root(PATH)` returns the function for one clone, whose signature has the
    keywords of the class.
    """

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the attack of a class; calling it looks the class up in the clone."""
        if name.startswith("_"):
            raise AttributeError(name)

        def attack(*arguments: Any, root: str, **keywords: Any) -> Tensor:
            return _find(name, root)(*arguments, **keywords)

        vars(attack).update(in_root=partial(_find, name), all_budgets=True)
        return attack


def _find(name: str, root: str | None) -> Callable[..., Tensor]:
    """Return the attack of a clone's class; raise ValueError if it is missing or unusable."""
    clone = open_clone(root)
    if name not in clone.attack_zoo:
        way = f"List them: {command('attacks')} transferattack"
        near = suggestion(name, [*clone.attack_zoo])
        raise ValueError(f"attack.name={name}: no such class.{near} {way}")
    with named_errors(f"attack.name={name}"), warnings.catch_warnings(action="ignore"):
        attack_class = clone.load_attack_class(name)
    place = Parameter("root", Parameter.KEYWORD_ONLY, default=root)
    return from_class(attack_class, f"attack.name={name}", place)


def from_class(attack_class: Any, who: str, *more: Parameter) -> Callable[..., Tensor]:
    """Return the function of a class, also of one's own; `more` are further keywords."""
    base = base_of(attack_class)
    if not hasattr(attack_class, "__mro__"):
        raise ValueError(f"{who}: its objects load a network. Pass the class {who}.")
    if attack_class.load_model is not base.load_model:
        raise ValueError(f"{who}: the class loads its own network, not your source.")
    faces = (signature(parent).parameters for parent in attack_class.__mro__)
    face = next(face for face in faces if "epsilon" in face)  # some classes pass on any keywords
    parameters = [
        parameter
        for parameter in face.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    changes: dict[str, Any] = {"__module__": attack_class.__module__}
    changes["__signature__"] = signature(attack_class).replace(parameters=[*parameters, *more])
    norms = tuple(_NORMS) if "norm" in face else ("linf",)
    made = type(attack_class.__name__, (attack_class,), changes)
    return make_function(partial(_run, base.__module__.rpartition(".")[0]), made, norms)


def open_clone(root: str | None) -> Any:
    """Import a clone's package under a unique name, without changing `sys.path`."""
    file = Path(root or "").resolve() / "transferattack" / "__init__.py"
    if root is None or not file.is_file() or "attack_zoo" not in file.read_text():
        way = "name the folder of your TransferAttack clone, here or in the variable TRANSFERATTACK"
        raise ValueError(f"attack.root={root or 'null'}: {way}.")
    name = f"transferattack_{sha256(bytes(file)).hexdigest()[:8]}"
    if name not in sys.modules:
        spec: Any = spec_from_file_location(name, file)
        package = module_from_spec(spec)
        spec.loader.exec_module(package)
        sys.modules[name] = package
    return sys.modules[name]


def _run(package: str, attack_class: Any, keywords: dict[str, Any], call: Call) -> Tensor:
    """Run a class on a source and return its adversarial images."""
    defaults = defaults_of(attack_class)
    if call.targeted and "targeted" not in defaults:
        raise ValueError("the class has no target labels: set attack.target_label=null.")
    if defaults.get("targeted") is True and not call.targeted:
        raise ValueError("the class needs target labels, such as attack.target_label=random.")
    filled = {"epsilon": call.radius, "targeted": call.targeted, "device": call.images.device}
    model, filled["norm"] = _load_source(package, attack_class, call), _NORMS[call.norm]
    filled["model_name"] = getattr(model, "name", None) or [part.name for part in model.models]
    if all(isinstance(defaults.get(key), int | float) for key in ("alpha", "epsilon")):
        # A step keeps its share of the budget; for None the class has a rule of its own.
        filled["alpha"] = defaults["alpha"] / defaults["epsilon"] * call.radius
    filled = select(attack_class, filled) | {
        key: keywords[key] for key in keywords.keys() - {"root"}
    }
    labels = torch.stack([call.true_labels, call.labels]) if call.targeted else call.labels
    made = type(
        attack_class.__name__, (attack_class,), {"load_model": lambda self, model_name: model}
    )
    images, printed = call.images.contiguous(), StringIO()
    on_cpu = _WithoutCuda() if images.device.type == "cpu" else nullcontext()
    with redirect_stdout(printed), warnings.catch_warnings(action="ignore"), on_cpu:
        try:
            change = made(**filled)(images, labels)
        except SystemExit as error:  # raised by classes that print the reason
            reason = printed.getvalue().strip().rpartition("\n")[2]
            raise ValueError(f"the class exits the program: {reason or 'no reason'}") from error
    return images + floats_like(images, change, attack_class.__name__)


def _load_source(package: str, attack_class: Any, call: Call) -> Any:
    """Return a copy of the source in the form that TransferAttack expects."""
    model: Any = copy_network(call.model.copy).to(memory_format=torch.contiguous_format)
    averages = [getattr(part, "average", None) for part in model.modules()]
    if others := {"probabilities", "loss"} & {*averages}:
        raise ValueError(f"ensemble={others.pop()}: TransferAttack needs ensemble=logits.")
    source = Source(model.requires_grad_(True))  # some classes differentiate only layers
    members = [_Member(source, *numbered) for numbered in enumerate(members_of(model))]
    modules = [base.__module__ for base in attack_class.__mro__]
    alone = len(members) == 1 and not any(f"{package}.ensemble." in module for module in modules)
    return members[0] if alone else import_module(f"{package}.utils").EnsembleModel(members)


class _Member(nn.Sequential):
    """Member of a source as a sequence of normalisation and network."""

    def __init__(self, source: Source, number: int, member: nn.Module) -> None:
        outer: Any = next((part for part in member.modules() if hasattr(part, "network")), None)
        first = nn.Identity()
        super().__init__(first, getattr(outer, "network", member))
        vars(first)["forward"] = getattr(outer, "prepare", first.forward)
        name = str(getattr(outer, "name", "source"))
        self.name = name.rpartition("/")[2].partition(".")[0]  # classes know torchvision's names
        self.source, self.number = source, number if len(source.members) > 1 else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits; the source counts the pass."""
        return self.source.logits(images, self.number)


class _WithoutCuda(TorchFunctionMode):
    """Mode in which `cuda()` does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a torch function, except `Tensor.cuda`."""
        return args[0] if func is Tensor.cuda else func(*args, **(kwargs or {}))


transferattack = TransferAttack()
