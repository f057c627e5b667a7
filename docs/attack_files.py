"""Files in `conf/attack/` and a stub, made from the functions of `src.attacks`: `make configs`.

Files of saved sets, of no attack and of other libraries are written by hand. Editors read the stub:
at run time the decorator `attack` makes the signatures.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from inspect import Parameter, formatannotation, getdoc, getfile, isfunction, signature
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from src import attacks
from src.attacks import zoo
from src.attacks.settings import Settings
from src.config.sections import PROGRAM_KEYWORDS
from src.utils.about import About

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "attack"
STUB = Path(attacks.__file__).with_suffix(".pyi")
COMMON = ("steps", "step_size_255", "relative_step_size", "step_rule", "norm", "keep_best", "loss")
LAST = ("target_label", "decay")
HIDDEN = {"lookahead", "score", "sizes", "chain_rule", "nearest", *PROGRAM_KEYWORDS}
"""Keywords that would make another attack of it."""
OF_STEPS = {"step_size_255", "keep_best", "random_start"}
"""Settings that attacks of one step have no use for."""
LEAST_LIKELY = {"llc": "fgsm", "illc": "bim"}
"""Attacks that are others with the least likely class as target label."""
LEAST_LIKELY_NAMES = {
    "llc": "Least Likely Class method",
    "illc": "Iterative Least Likely Class method",
}


def main() -> None:
    """Write the files."""
    for name, text in attack_files().items():
        (FOLDER / f"{name}.yaml").write_text(text, encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")


def attack_files() -> dict[str, str]:
    """Return the text of each attack's file by its name."""
    functions = {name: each for name, each in zoo.offered().items() if is_attack(each)}
    texts = {name: _text(each, each.about, _label(each)) for name, each in functions.items()}
    for name, other in LEAST_LIKELY.items():
        does = f"`{other}` towards the least likely class"
        changes = {"name": LEAST_LIKELY_NAMES[name], "does": does, "targeted": "only"}
        changes |= {"paper": attacks.bim.about.paper, "year": attacks.bim.about.year}
        about = functions[other].about.model_copy(update=changes)
        texts[name] = _text(functions[other], about, "least_likely")
    return texts


def stub() -> str:
    """Return the text of the stub: what `src.attacks` offers, each attack with its keywords."""
    face = ast.parse(Path(attacks.__file__).read_text(encoding="utf-8")).body
    imports = [one for one in face if isinstance(one, ast.ImportFrom) and one.module]
    kept = [("." * one.level + one.module, name.name) for one in imports for name in one.names]
    offered = sorted((its.__module__, name) for name, its in zoo.offered().items())
    made = [name for _, name in offered if is_attack(getattr(attacks, name))]
    parts = [(module, name) for module, name in offered if name not in made]
    kept += [(module.removeprefix("src.attacks"), name) for module, name in parts]
    return "\n".join(
        [
            '"""Attacks, for editors. Made by `make configs`."""\n',
            "from collections.abc import Callable, Mapping, Sequence",
            "from typing import Any, Literal\n",
            "from torch import Tensor",
            "from torch.nn import Module\n",
            "from ..utils.about import About",
            *(f"from {module} import {name} as {name}" for module, name in kept),
            "",
            "class _Stated:",
            "    __name__: str",
            "    about: About",
            "    counts: Mapping[str, Callable[[Any], float]]\n",
            *(_signature(name, getattr(attacks, name)) for name in made),
        ]
    )


def _signature(name: str, function: Any) -> str:
    """Return an attack's definition in the stub."""
    parameters = signature(function).parameters
    kinds = {key: each.annotation for key, each in parameters.items()}
    hints = get_type_hints(SimpleNamespace(__annotations__=kinds))  # without limits of values
    words = [f"{key}: {_type(hints[key])}{_default(parameters[key])}" for key in kinds]
    lines = [f"        {word},".replace("'", '"') for word in ["self", *words[:4], "*", *words[4:]]]
    kind = f"_{name.title().replace('_', '')}"
    head, end = [f"class {kind}(_Stated):", "    def __call__("], "    ) -> Tensor: ...\n"
    return "\n".join([*head, *lines, end, f"{name}: {kind}\n"])


def _type(kind: Any) -> str:
    """Return a type as the stub says it."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]
    text = " | ".join(formatannotation(part) for part in parts).replace("NoneType", "None")
    return re.sub(r"(\w+\.)+(?=[A-Z])", "", text.replace("inspect._empty", "Any"))


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if value is Parameter.empty:
        return ""
    return f" = {value!r}" if isinstance(value, str | float | int | None) else " = ..."


def is_attack(value: Any) -> bool:
    """Tell whether a value is made by `attack`, not a class or another library's."""
    return isfunction(value) and hasattr(value, "about")


def _label(function: Any) -> str | None:
    """Return the rule for target labels: attacks made for those have random ones."""
    return "random" if function.about.category == "targeted" else None


def _text(function: Any, about: About, target_label: str | None) -> str:
    place = f"{function.__module__.replace('.', '/')}.py"
    authors = re.search(r"Reference: ([^(:]+).*?(\(\d{4}\))", function.__doc__, re.S)
    by = f"{authors[1].strip()} {authors[2]}. " if authors else ""
    texts = {name: _formula(count) for name, count in function.counts.items()}
    about = about.model_copy(update=texts)
    stated = about.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"# {about.does}.",
        f"# {by}Made by `make configs` from {place}.",
        f"_target_: src.attacks.{function.__name__}",
        *_settings(function, target_label),
        yaml.safe_dump({"about": stated}, sort_keys=False, width=1000),
    ]
    return "\n".join(lines)


def _formula(count: Any) -> str:
    """Return what a count of an attack computes, for K budgets and M members, as text."""
    line, tree = count.__code__.co_firstlineno, ast.parse(Path(getfile(count)).read_bytes())
    (node,) = (
        each
        for each in ast.walk(tree)
        if isinstance(each, ast.Lambda | ast.FunctionDef) and each.lineno == line
    )
    body: Any = node.body if isinstance(node, ast.Lambda) else node.body[-1].value
    text = ast.unparse(body).replace("n.budgets", "K").replace("n.members", "M")
    return text.replace("n.", "")


def _settings(function: Any, target_label: str | None) -> Iterator[str]:
    """Yield the lines of an attack's settings, each with what it means."""
    meanings = {**_meanings(getdoc(Settings) or ""), **_meanings(function.__doc__)}
    meanings["target_label"] = (
        "null: untargeted; or the class to reach: data, least_likely, random or next"
    )
    parameters = signature(function).parameters
    values = {name: parameters[name].default for name in _shown(function)}
    values["target_label"] = target_label
    for name in dict.fromkeys((*COMMON, *LAST, *values)):
        if name in values:
            kind = parameters[name].annotation if name in parameters else None
            choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
            named = [choice for choice in choices if choice not in meanings[name]]
            more = f": {', '.join(choices[:-1])} or {choices[-1]}" if named else ""
            line = yaml.safe_dump({name: _plain(values[name])}, default_flow_style=True, width=1000)
            yield f"{line.strip()[1:-1]} # {meanings[name]}{more}"


def _shown(function: Any) -> list[str]:
    """Return keywords in the order of the function: common ones, its own, and what differs."""
    parameters, plain = signature(function).parameters, signature(attacks.bim).parameters
    shown = {*COMMON, *(["layer"] if "layers" in function.about.needs else ())}
    if "estimator" not in parameters:  # it has one of its own
        shown.add("decay")
    if "random_start" in parameters and parameters["random_start"].default:
        shown |= {"start_radius", "restarts"}
    hidden = HIDDEN if "steps" in parameters else HIDDEN | OF_STEPS
    return [
        name
        for name, each in list(parameters.items())[4:]
        if name in shown or name not in plain or each.default != plain[name].default
        if name not in hidden
    ]


def _meanings(text: str) -> dict[str, str]:
    """Return the first sentence on each argument in a docstring, as a comment in a file."""
    meanings = {}
    for name, said in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.M):
        first = re.split(r"\. |\.$|, see ", " ".join(said.split()))[0]
        first = first.replace("None", "null").replace("`", "")
        meanings.setdefault(name, first if first[:2].isupper() else first[0].lower() + first[1:])
    return meanings


def _plain(value: Any) -> Any:
    """Return a default as a value of YAML."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"_target_": f"src.attacks.{type(value).__name__}", **asdict(value)}
    return value


if __name__ == "__main__":
    main()
