"""Names on a command line: the files that they stand for, panels of targets, public models."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.config.fields import of_epoch, short_name
from src.config.sections import STUDY
from src.utils.public_models import check_listed
from src.utils.refusals import suggestion

PANEL = "panel/"


def with_files(words: Sequence[str], folders: Sequence[str | Path]) -> list[str]:
    """Return a command's words with those that load the models and defences that it names.

    A file is loaded if the command or its experiment has the file's name anywhere. A whole section
    in the experiment takes the place of a file. Several public sources without targets are one
    another's.

    Args:
        words: The words as typed; `model=` or `defence=` among them is taken as it is.
        folders: The folders of config files, the program's own first.
    """
    folders = [*folders, *re.findall(r"file://([^'\"\],]+)", " ".join(words))]
    experiments = _experiments(words, folders)
    text = " ".join([*STUDY, *words, *map(str, experiments)])
    panels = [_read(file) for name, file in files("panel", folders).items() if PANEL + name in text]
    text = f"{text} {panels}"
    loaded = []
    for group in ("model", "defence"):
        named = {*re.findall(r"[\w./@+-]+", text), *re.findall(rf"\b{group}\.([\w-]+)", text)}
        named |= {of_epoch(name)[0] for name in named}
        whole = {name for study in experiments for name in _sections(study.get(group))}
        chosen = ",".join(sorted((named & files(group, folders).keys()) - whole))
        typed = any(word.lstrip("+").startswith(f"{group}=") for word in words)
        loaded += [] if typed else [f"{group}=[{chosen}]"]
    return [*words, *loaded, *_public_targets(words, experiments)]


def _public_targets(words: Sequence[str], experiments: Sequence[dict[str, Any]]) -> list[str]:
    """Return the targets of several public sources, where none are named: one another."""
    typed = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    public = re.findall(r"[\w.@-]+(?:/[\w.@-]+)+", typed.get("source", ""))
    named = "targets" in typed or any(study.get("targets") for study in experiments)
    return [f"targets=[{','.join(public)}]"] if len(public) > 1 and not named else []


def files(group: str, folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return the files of a group by name; of two with one name the first, as Hydra does."""
    found = [path for folder in folders for path in sorted(Path(folder, group).glob("*.yaml"))]
    return {path.stem: path for path in reversed(found)}


def without_panels(names: Iterable[Any], folders: Sequence[str | Path]) -> list[Any]:
    """Return the names of targets, with those of its file in the place of each panel."""
    panels = {PANEL + name: file for name, file in files("panel", folders).items()}
    targets: list[Any] = []
    for name in names:
        if not str(name).startswith(PANEL):
            targets.append(name)
        elif name not in panels:
            near = suggestion(name, [*panels])
            raise ValueError(f"targets={name}: the panels are {', '.join(panels)}.{near}")
        elif isinstance(members := _read(panels[name]), list):
            targets += members
        else:
            raise ValueError(f"{panels[name]}: a panel is a list of names, such as [vgg16, vit].")
    return targets


def is_public(name: Any) -> bool:
    """Tell whether a model is a provider's, named `provider/identifier`."""
    return "/" in str(name) and not str(name).startswith(PANEL)


def public_models(names: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of public models by their short names."""
    public = [name for name in names if is_public(name)]
    if not public:
        return {}
    for name in public:
        check_listed(name)
    from src.models.providers import section_of  # here: it loads torch

    return {short_name(name): section_of(name) for name in public}


def _experiments(words: Sequence[str], folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return the contents of a command's experiments, and of those that these extend."""
    known, contents = files("experiment", folders), dict[str, Any]()
    values = [word.partition("experiment=")[2] for word in words]
    names = re.findall(r"[\w.-]+", " ".join(values))
    while names:
        name = names.pop()
        if name in known and name not in contents:
            content = _read(known[name])
            contents[name] = content if isinstance(content, dict) else {}
            bases = [base for base in contents[name].get("defaults") or () if isinstance(base, str)]
            names += re.findall(r"[\w.-]+", " ".join(bases))
    return [*contents.values()]


def _sections(group: Any) -> list[str]:
    """Return the names in an experiment's group whose sections need no file."""
    sections = group.items() if isinstance(group, dict) else ()
    return [
        name
        for name, keys in sections
        if isinstance(keys, dict) and "_target_" in {**keys, **(keys.get("network") or {})}
    ]


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
