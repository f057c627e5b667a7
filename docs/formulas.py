"""The docstrings of attacks and defences as Markdown, with headings and links to the code."""

import re
import sys
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any, get_args

import yaml
from attack_files import is_attack
from catalogue import ARXIV, CONF, REPOSITORY
from hydra.utils import get_class

from src import attacks
from src.attacks.loop import ascend
from src.attacks.projection import project
from src.attacks.settings import Settings
from src.defences import AttackedDefence
from src.defences.feature_squeezing import soft_round
from src.utils.about import About


def formulas() -> str:
    """Return a section per category of attacks, and one of defences."""
    parts = ["## All attacks", *_several(ascend, project, Settings)]
    functions = [each for each in vars(attacks).values() if is_attack(each)]
    functions.sort(key=lambda each: (each.__module__, each.__name__))
    for category in get_args(About.model_fields["category"].annotation):
        chosen = [each for each in functions if each.about.category == category]
        parts += [f"## {category.capitalize()}"] if chosen else []
        parts += [_part(f"attack/{each.__name__}", each) for each in chosen]
    parts.append("## Defences")
    for path in sorted((CONF / "defence").glob("*.yaml")):
        keys = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts.append(_part(f"defence/{path.stem}", get_class(keys["_target_"])))
    parts += ["## Gradients of defences", *_several(AttackedDefence, soft_round)]
    return "\n\n".join(parts)


def _several(*things: Any) -> list[str]:
    return [_part(thing.__name__, thing) for thing in things]


def _part(name: str, thing: Any) -> str:
    """Return a heading, links and a docstring."""
    code = Path(sys.modules[thing.__module__].__file__ or "").relative_to(REPOSITORY)
    links = [f"[Code](../{code})"]
    links += [f"[defaults](../conf/{name}.yaml)"] if "/" in name else []
    text = "\n".join(markdown(getdoc(thing) or ""))
    return f"### `{name.rpartition('/')[2]}`\n\n{text}\n\n{', '.join(links)}"


def markdown(docstring: str) -> Iterator[str]:
    """Yield the lines of a docstring, its sections as lists."""
    section = False
    for line in docstring.splitlines():
        if re.fullmatch("(Args|Attributes|Examples|Returns|Raises):", line):
            section = line != "Examples:"
            yield line.replace("Args", "Arguments").replace("Attributes", "Arguments") + "\n"
        elif section and line.startswith("    "):
            item = re.sub(r"^([*]{0,2}\w+): ", r"- `\1`: ", line[4:])
            yield re.sub("^ +", "  ", item)
        else:
            section = section and not line
            line = re.sub(r"arXiv (\d{4}\.\d+)", rf"arXiv [\1]({ARXIV}\1)", line)
            yield re.sub("::$", ":", line).removesuffix("  # doctest: +SKIP")
