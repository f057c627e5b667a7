"""Attacks of a clone of TransferAttack, as functions like the published ones.

The clone is a folder of the user's; see github.com/Trustworthy-AI-Group/TransferAttack.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
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

from src.attacks.external.libraries import Call, make_function, select
from src.attacks.source import Source, members_of
from src.utils.about import About
from src.utils.refusals import first_line, suggestion

VARIABLE = "TRANSFERATTACK"
"""Environment variable that names the clone's folder."""
_ADDRESS = "https://github.com/Trustworthy-AI-Group/TransferAttack"
_LIST = "python -m src.attacks transferattack"


class TransferAttack:
    """TransferAttack's classes as attributes, by their short names: `transferattack.ops`.

    Each is a function that takes the clone's folder as `root`. Its `in_root(PATH)` is the same
    function for one clone, with the keywords of the class in its signature. Seeds, budgets and
    results are those of `src.attacks.external.libraries.Library`.
    """

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Return the attack of a class, which is looked up in the clone when it is called."""
        if name.startswith("_"):
            raise AttributeError(name)

        def attack(*arguments: Any, root: str | None, **keywords: Any) -> Tensor:
            return _attack_of(root, name)(*arguments, **keywords)

        function: Any = attack
        function.in_root = partial(_attack_of, name=name)
        return attack


def names(root: str) -> list[str]:
    """Return the short names of a clone's classes."""
    return [*_open(root).attack_zoo]


def _attack_of(root: str | None, name: str) -> Callable[..., Tensor]:
    """Return the attack of a clone's class; ValueError if there is none, or it cannot be used."""
    if root is None:
        raise ValueError(
            f"attack.root: name the folder of your clone of TransferAttack ({_ADDRESS}), or set "
            f"{VARIABLE} to it."
        )
    clone = _open(root)
    if name not in clone.attack_zoo:
        near = suggestion(name, names(root))
        raise ValueError(f"attack.name={name}: no such class.{near} List them: {_LIST}")
    try:
        with _quiet():
            kind = clone.load_attack_class(name)
            base = import_module(f"{clone.__name__}.attack").Attack
    except ModuleNotFoundError as error:
        raise ValueError(
            f"attack.name={name}: the class needs the package {error.name}, which is not installed."
        ) from error
    except Exception as error:  # of any kind, as the clone's code raises it
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"attack.name={name}: its module fails with {reason}") from error
    if getattr(kind, "load_model", None) is not base.load_model:
        raise ValueError(f"attack.name={name}: the class loads a network of its own, not yours.")
    faces = (signature(parent) for parent in kind.__mro__)  # some classes hand on any keywords
    face = next(face for face in faces if "epsilon" in face.parameters)
    same = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    kind = type(kind.__name__, (kind,), {**same, "__signature__": face})
    norms = ("linf", "l2") if "norm" in face.parameters else ("linf",)
    place = Parameter("root", Parameter.KEYWORD_ONLY, default=root)
    function: Any = make_function(partial(_run, clone), kind, norms, place)
    function.about = About(category="library", targeted=_takes_targets(kind))
    return function


def _takes_targets(kind: Any) -> Any:
    """Return `About.targeted` of a class."""
    parameter = signature(kind).parameters.get("targeted")
    return parameter is not None and (parameter.default is False or "only")


def _open(root: str) -> Any:
    """Import a clone's package under a name of its own; `sys.path` stays as it is."""
    file = Path(root).resolve() / "transferattack" / "__init__.py"
    if not file.is_file():
        raise ValueError(f"attack.root={root}: no clone of TransferAttack ({_ADDRESS}) is there.")
    name = f"transferattack_{sha256(bytes(file)).hexdigest()[:8]}"
    if name not in sys.modules:
        spec: Any = spec_from_file_location(name, file)
        package = sys.modules[name] = module_from_spec(spec)
        with _quiet():
            spec.loader.exec_module(package)
    return sys.modules[name]


def _run(clone: Any, kind: Any, keywords: dict[str, Any], call: Call) -> Tensor:
    targets = _takes_targets(kind)
    if call.targeted and not targets:
        raise ValueError("the class takes no target labels; attack.target_label=null.")
    if targets == "only" and not call.targeted:
        raise ValueError("the class needs target labels; attack.target_label=random, for example.")
    defaults = {key: each.default for key, each in signature(kind).parameters.items()}
    model, name = _load_source(clone, kind, call)
    filled = {
        **{"model_name": name, "epsilon": call.radius, "device": call.images.device},
        **{"norm": {"linf": "linfty", "l2": "l2"}[call.norm], "targeted": call.targeted},
    }
    if {"alpha", "epsilon"} <= defaults.keys():  # the step keeps its share of the budget
        filled["alpha"] = defaults["alpha"] / defaults["epsilon"] * call.radius
    arguments = select(kind, filled) | {key: keywords[key] for key in keywords.keys() - {"root"}}
    labels = torch.stack([call.true_labels, call.labels]) if call.targeted else call.labels
    made = type(kind.__name__, (kind,), {"load_model": lambda self, model_name: model})
    images, printed = call.images.contiguous(), StringIO()
    with _OnDevice(images.device), _quiet(printed):
        try:
            return images + made(**arguments)(images, labels)
        except SystemExit as error:  # of classes that print why
            reason = printed.getvalue().strip().split("\n")[-1]
            raise ValueError(
                f"the class ends the program ({reason or 'without a reason'})."
            ) from error


@contextmanager
def _quiet(printed: StringIO | None = None) -> Iterator[None]:
    """Keep what the clone prints and warns of off the terminal."""
    with redirect_stdout(printed or StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load_source(clone: Any, kind: Any, call: Call) -> tuple[nn.Module, str]:
    """Return the source as TransferAttack's `load_model` does, and the name of its network."""
    model: Any = copy.deepcopy(call.model.copy).to(memory_format=torch.contiguous_format)
    averages = {getattr(part, "average", "logits") for part in model.modules()}
    if others := averages - {"logits"}:
        raise ValueError(f"ensemble={others.pop()}: TransferAttack averages logits.")
    source, modules = Source(model), members_of(model)
    members = [_Member(source, *numbered) for numbered in enumerate(modules)]
    names = "+".join(member.name for member in members)
    if len(members) > 1 or kind.__module__.startswith(f"{clone.__name__}.ensemble."):
        return import_module(f"{clone.__name__}.utils").EnsembleModel(members), names
    return members[0], names


class _Member(nn.Sequential):
    """Member of a source as a sequence of its normalisation and its network."""

    def __init__(self, source: Source, number: int, module: nn.Module) -> None:
        classifier = next((part for part in module.modules() if hasattr(part, "network")), None)
        network = getattr(classifier, "network", module)
        super().__init__(_Function(getattr(classifier, "prepare", nn.Identity())), network)
        name = str(getattr(classifier, "name", type(network).__name__))
        self.name = name.rpartition("/")[2].partition(".")[0]  # classes know torchvision's names
        self.source, self.number = source, number if len(source.members) > 1 else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, which the source counts."""
        return self.source.logits(images, self.number)


class _Function(nn.Module):
    """Function as a module without parts, so that a network's layers are found in one place."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = (function,)

    def forward(self, images: Tensor) -> Tensor:
        return self.functions[0](images)


class _OnDevice(TorchFunctionMode):
    """Context in which `cuda()` moves to another device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        """Call a function of torch."""
        if function is Tensor.cuda:
            return arguments[0].to(self.device)
        return function(*arguments, **(keywords or {}))


transferattack = TransferAttack()
