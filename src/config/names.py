"""Names on a command line: their files, panels of targets, public models."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.config.sections import DEFAULT_TARGETS
from src.utils.model_names import ModelRef, check_listed
from src.utils.refusals import suggestion

PANEL = "panel/"


def with_files(overrides: Sequence[str], folders: Sequence[str | Path]) -> list[str]:
    """Return a command's overrides, plus overrides that load the models and defences it names.

    A file is loaded if its name appears anywhere in the command or its experiment. A complete
    section in the experiment replaces a file. If several public sources have no targets, the
    sources are each other's targets.

    Args:
        overrides: The overrides as typed; `model=` or `defence=` is used unchanged.
        folders: The folders of config files, the program's own first.
    """
    folders = [*folders, *re.findall(r"file://([^'\"\],]+)", " ".join(overrides))]
    experiments = _experiments(overrides, folders)
    text = " ".join([*DEFAULT_TARGETS, *overrides, *map(str, experiments)])
    panels = [_read(file) for name, file in files("panel", folders).items() if PANEL + name in text]
    text = f"{text} {panels}"
    loaded = []
    for group in ("model", "defence"):
        named = {*re.findall(r"[\w./@+-]+", text), *re.findall(rf"\b{group}\.([\w-]+)", text)}
        named |= {ModelRef((name,)).base for name in named}
        sections = {name for study in experiments for name in _sections(study.get(group))}
        chosen = ",".join(sorted((named & files(group, folders).keys()) - sections))
        typed = any(word.lstrip("+").startswith(f"{group}=") for word in overrides)
        loaded += [] if typed else [f"{group}=[{chosen}]"]
    # Few files have this key, so that Hydra would refuse to set it.
    words = [re.sub(r"^(?=model\.[^=]+\.averaged=)", "++", word) for word in overrides]
    return [*words, *loaded, *_public_targets(overrides, experiments)]


def _public_targets(overrides: Sequence[str], experiments: Sequence[dict[str, Any]]) -> list[str]:
    """Return several public sources as each other's targets, if no targets are named."""
    typed = {
        key.lstrip("+"): value for key, _, value in (word.partition("=") for word in overrides)
    }
    public = re.findall(r"[\w.@-]+(?:/+[\w.@-]+)+", typed.get("source", ""))
    named = "targets" in typed or any(study.get("targets") for study in experiments)
    return [f"targets=[{','.join(public)}]"] if len(public) > 1 and not named else []


def files(group: str, folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return a group's files by name; for equal names the first one counts, as in Hydra."""
    paths = [path for folder in folders for path in sorted(Path(folder, group).glob("*.yaml"))]
    return {path.stem: path for path in reversed(paths)}


def without_panels(names: Iterable[Any], folders: Sequence[str | Path]) -> list[Any]:
    """Return the names of targets; each panel is replaced by the names in its file."""
    panels = {PANEL + name: file for name, file in files("panel", folders).items()}
    targets: list[Any] = []
    for name in names:
        if not str(name).startswith(PANEL):
            targets.append(name)
        elif name not in panels:
            near = suggestion(name, [*panels])
            raise ValueError(f"targets={name}: no such panel. Panels: {', '.join(panels)}.{near}")
        elif isinstance(members := _read(panels[name]), list):
            targets += members
        else:
            raise ValueError(f"{panels[name]}: a panel must be a list of names, e.g. [vgg16, vit].")
    return targets


def is_public(name: Any) -> bool:
    """Return True if a model is a provider's, named `provider/identifier`."""
    return "/" in str(name) and not str(name).startswith(PANEL)


def public_models(names: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the config sections of public models by their short names."""
    public = [name for name in names if is_public(name)]
    if not public:
        return {}
    for name in public:
        check_listed(name)
    from src.models.providers import section_of  # here: loads torch

    return {str(ModelRef.typed(name)): section_of(name) for name in public}


def _experiments(overrides: Sequence[str], folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return the contents of a command's experiments, and of the experiments that they extend."""
    known, contents = files("experiment", folders), dict[str, Any]()
    values = [word.partition("experiment=")[2] for word in overrides]
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
    """Return the names in an experiment's group that have complete sections and need no file."""
    sections = group.items() if isinstance(group, dict) else ()
    return [
        name
        for name, keys in sections
        if isinstance(keys, dict) and "_target_" in {**keys, **(keys.get("network") or {})}
    ]


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))
