"""Catalogue: the files of models, defences and panels, by the names that a job gives."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from ..utils.model_names import NO_DEFENCE, near_models
from ..utils.refusals import suggestion
from .command import NAMED, Command
from .errors import misread
from .sections import DEFAULT_TARGETS

PANEL = "panel/"


def files(group: str, folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return a group's files by name; for equal names the first one counts, as in Hydra.

    Files that begin with `_` are left out: only other files include them.
    """
    paths = [path for folder in folders for path in sorted(Path(folder, group).glob("[!_]*.yaml"))]
    return {path.stem: path for path in reversed(paths)}


def is_public(name: Any) -> bool:
    """Return True if a model is a provider's, named `provider/identifier`."""
    return "/" in str(name) and not str(name).startswith(PANEL)


def names_in(value: Any) -> list[Any]:
    """Return a name, a list of names or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | ListConfig) else [value]


class Catalogue:
    """Files of models, defences and panels in the folders of config files, the program's first.

    Raises:
        ValueError: A file in a further folder is named like one of the program's, which hides it.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders
        self.files = {group: files(group, folders) for group in (*NAMED, "panel")}
        self._sections = dict[str, Any]()  # by group and name
        first, *others = map(Path, folders)
        names = [file.relative_to(first) for file in first.rglob("*.yaml")] if others else []
        for folder, name in product(others, names):
            file = folder / name
            if file.is_file() and not file.samefile(first / name):
                way = "the program has a file of this name. Rename it."
                raise ValueError(f"{file} is not read: {way}")

    def add_named(self, config: DictConfig, sources: Sequence[str]) -> None:
        """Put the models and defences that a job names into its config, below the config's keys.

        A complete section of an experiment replaces a file. Panels become their models. Several
        public models among the `sources` of the whole command are each other's targets.

        Raises:
            ValueError: There is no model or defence of a name.
        """
        source = names_in(OmegaConf.select(config, "source"))
        public = dict.fromkeys(filter(is_public, [*sources, *source]))
        default = public if len(public) > 1 else dict.fromkeys([*DEFAULT_TARGETS, *source])
        keys = Command.of(config.hydra).keys
        with open_dict(config):
            if "targets" in config:  # or `~targets` has removed it
                targets = [*default] if config.targets is None else names_in(config.targets)
                config.targets = [member for name in targets for member in self._members(name)]
            for group, key in [(group, key) for group, named in NAMED.items() for key in named]:
                for name in names_in(OmegaConf.select(config, key)):
                    if not is_public(name) if group == "model" else name != NO_DEFENCE:
                        self._add(config[group], group, key, name, keys)
        for key in keys:
            group, name, *rest = [*key.split("."), ""]
            if group in NAMED and len(rest) > 1 and not _is_complete(config[group].get(name)):
                self._section(group, name, key, config[group])

    def _members(self, name: Any) -> list[Any]:
        """Return the models in the file of a panel; of any other name, the name."""
        panels = {PANEL + name: file for name, file in self.files["panel"].items()}
        if name not in panels:
            return [name]
        members = yaml.safe_load(panels[name].read_text(encoding="utf-8"))
        if not isinstance(members, list):
            raise ValueError(f"{panels[name]}: a panel must be a list of names, e.g. [vgg16, vit].")
        return members

    def _add(self, sections: DictConfig, group: str, key: str, name: Any, typed: Any) -> None:
        """Put a model or defence into the `sections` of its group."""
        if isinstance(name, bool):
            raise ValueError(misread(key, name))
        section = sections.get(str(name))
        target = {f"{group}.{name}._target_", f"{group}.{name}.network._target_"}
        has_file = str(name) in self.files[group]
        if not _is_complete(section) or (has_file and not target.isdisjoint(typed)):
            file = self._section(group, str(name), key, sections)
            sections[str(name)] = OmegaConf.merge(file, section or {})

    def _section(self, group: str, name: str, key: str, sections: DictConfig) -> Any:
        """Return the section in the file of a name; refuse a name without a file."""
        if name not in self.files[group]:
            texts = {name: file.read_text("utf-8-sig") for name, file in self.files[group].items()}
            # Files with a value that the user must set are not listed.
            listed = {name for name, text in texts.items() if not re.search(r": *\?\?\?", text)}
            panels = [PANEL + panel for panel in self.files["panel"]] * (key == "targets")
            names = sorted({*listed, *(str(n) for n in sections if _is_complete(sections[n]))})
            near = suggestion(name, [*names, *panels])
            near = near or (near_models(name) if group == "model" else "")
            available = f" Available: {', '.join(names)}. Yours need --config-dir FOLDER."
            raise ValueError(f"{key}: there is no {group} {name!r}.{near or available}")
        if "." in name:
            raise ValueError(f"{self.files[group][name]}: no dots in names. Rename it.")
        return self._read(f"{group}/{name}")

    def _read(self, place: str) -> Any:
        """Return the keys in a file, and in the bases of its `defaults`."""
        if place not in self._sections:
            paths = [Path(folder, f"{place}.yaml") for folder in self.folders]
            if (path := next(filter(Path.is_file, paths), None)) is None:
                raise ValueError(f"defaults of a file: there is no {place}.")
            section: Any = OmegaConf.load(path)
            bases, group = [*section.pop("defaults", ())], place.partition("/")[0]
            if not all(isinstance(base, str) for base in bases):
                raise ValueError(f"{path}: defaults may only have names of {group} files.")
            names = [Path(base.partition("@")[0]).name for base in bases]
            names += ["_self_"] * ("_self_" not in names)  # later ones replace earlier ones
            parts = [section if key == "_self_" else self._read(f"{group}/{key}") for key in names]
            self._sections[place] = OmegaConf.merge(*parts)
        return self._sections[place]


def _is_complete(section: Any) -> bool:
    """Return True if a section of a model or defence needs no file."""
    if not OmegaConf.is_dict(section):
        return False
    return "_target_" in {**section, **(section.get("network") or {})}
