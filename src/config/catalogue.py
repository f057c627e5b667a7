"""Catalogue: the files of models, defences and panels, by the names that a job gives."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from ..utils.model_names import NO_DEFENCE, ModelRef, check_listed, near_models
from ..utils.refusals import suggestion
from .command import NAMED, Command
from .errors import misread
from .sections import DEFAULT_TARGETS, DefenceSettings, ModelSettings

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
        self._read = dict[Path, DictConfig]()
        own, *others = map(Path, folders)
        names = [file.relative_to(own) for file in own.rglob("*.yaml")] if others else []
        for folder, name in product(others, names):
            file = folder / name
            if file.is_file() and not file.samefile(own / name):
                raise ValueError(
                    f"{file} is not read: the program has a file of this name. Rename it."
                )

    def add_named(self, config: DictConfig, sources: Sequence[str]) -> None:
        """Put the files of a job's models and defences into its config, below the config's keys.

        A section that is complete, as in an experiment, needs no file. Panels become their models.
        Several public models among the `sources` of the whole command are each other's targets.

        Raises:
            ValueError: There is no file of a name, or no model or defence of a typed key.
        """
        source = names_in(OmegaConf.select(config, "source"))
        public = list(dict.fromkeys(filter(is_public, [*sources, *source])))
        with open_dict(config):
            if "targets" in config:  # or `~targets` has removed it
                default = public if len(public) > 1 else dict.fromkeys([*DEFAULT_TARGETS, *source])
                targets = default if config.targets is None else names_in(config.targets)
                config.targets = self._targets([*targets])
            command = Command.of(config.hydra)
            for group, keys in NAMED.items():
                for key in keys:
                    for name in names_in(OmegaConf.select(config, key)):
                        typed = {f"{group}.{name}._target_", f"{group}.{name}.network._target_"}
                        self._add(config[group], group, key, name, typed.isdisjoint(command.keys))
        self._check_keys(config, command)

    def complete(self, group: str) -> list[str]:
        """Return the names of a group's files, except files with a value that the user must set."""
        texts = {name: file.read_text("utf-8-sig") for name, file in self.files[group].items()}
        return sorted(name for name, text in texts.items() if not re.search(r": *\?\?\?", text))

    def _targets(self, names: Sequence[Any]) -> list[Any]:
        """Return the names of targets; each panel is replaced by the names in its file."""
        targets: list[Any] = []
        panels = {PANEL + name: file for name, file in self.files["panel"].items()}
        for name in names:
            if not str(name).startswith(PANEL):
                targets.append(name)
            elif name not in panels:
                near = suggestion(name, [*panels])
                raise ValueError(
                    f"targets={name}: no such panel. Panels: {', '.join(panels)}.{near}"
                )
            else:
                members = yaml.safe_load(panels[name].read_text(encoding="utf-8"))
                if not isinstance(members, list):
                    raise ValueError(
                        f"{panels[name]}: a panel must be a list of names, e.g. [vgg16, vit]."
                    )
                targets += members
        return targets

    def _add(
        self, sections: DictConfig, group: str, key: str, name: Any, replaceable: bool
    ) -> None:
        """Put a file into the `sections` of its group; a complete section may replace the file."""
        if isinstance(name, bool):
            raise ValueError(misread(key, name))
        name, section = str(name), sections.get(str(name))
        if is_public(name) if group == "model" else name == NO_DEFENCE:
            return
        if name not in self.files[group]:
            if section is None:
                self._refuse(group, key, name, [*map(str, sections)])
        elif "." in name:
            raise ValueError(f"{self.files[group][name]}: no dots in names. Rename it.")
        elif not (replaceable and _is_complete(section)):
            sections[name] = OmegaConf.merge(self._load(self.files[group][name]), section or {})

    def _load(self, file: Path) -> DictConfig:
        """Return the keys in a file, and in the bases of its `defaults`."""
        if file not in self._read:
            section = OmegaConf.load(file)
            if not isinstance(section, DictConfig):
                raise ValueError(f"{file}: it must have keys, such as {file.parent.name}s have.")
            named = [str(base).partition("@")[0] for base in section.pop("defaults", ())]
            bases = []
            for base in named:
                if base != "_self_":
                    places = (
                        Path(folder, file.parent.name, f"{Path(base).name}.yaml")
                        for folder in self.folders
                    )
                    found = next(filter(Path.is_file, places), None)
                    if found is None:
                        raise ValueError(f"{file}: defaults: there is no file {base}.yaml.")
                    bases.append(self._load(found))
            self._read[file] = OmegaConf.merge(*bases, section)
        return self._read[file]

    def _refuse(self, group: str, key: str, name: str, sections: Sequence[str]) -> NoReturn:
        """Refuse a name without a file or section."""
        complete = self.complete(group)
        if name.startswith("_"):
            raise ValueError(
                f"{key}={name}: a file that begins with _ is a base of other files. Use any of "
                f"{', '.join(complete)}."
            )
        if epoch := re.fullmatch(r"(.+)\.epoch\d+", name):
            way = f"a model NAME whose network is that of {epoch[1]}, with model.NAME.weights=FILE"
            raise ValueError(f"{key}={name} is replaced by {way}.")
        panels = [PANEL + panel for panel in self.files["panel"]] * (key == "targets")
        near = suggestion(name, [*sections, *self.files[group], *panels])
        near = near or (near_models(name) if group == "model" else "")
        available = f" Available: {', '.join(sorted({*sections, *complete}))}."
        raise ValueError(f"{key}: there is no {group} {name!r}.{near or available}")

    def _check_keys(self, config: DictConfig, command: Command) -> None:
        """Refuse `GROUP.NAME.KEY=VALUE` of a model, defence or key that does not exist."""
        for override in command.overrides:
            group, name, key = [*override.key_or_group.split("."), "", "", ""][:3]
            if group not in NAMED or not key or override.get_key_element()[0] == "+":
                continue
            sections = config[group].items()
            names = [
                *self.files[group],
                *(its for its, section in sections if _is_complete(section)),
            ]
            if name in self.files[group] and group == "defence":
                keys = [*self._load(self.files[group][name]), *DefenceSettings.model_fields]
            else:
                keys = [*ModelSettings.model_fields] if group == "model" else [key]
            word, known = (key, keys) if name in names else (name, names)
            if word not in known:
                raise ValueError(
                    f"{group}.{name}.{key}: there is no such key of a {group}."
                    f"{suggestion(word, [*map(str, known)])}"
                )


def _is_complete(section: Any) -> bool:
    """Return True if a section of a model or defence needs no file."""
    if not OmegaConf.is_dict(section):
        return False
    return "_target_" in {**section, **(section.get("network") or {})}


def public_models(names: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the config sections of public models by their short names."""
    public = [name for name in names if is_public(name)]
    if not public:
        return {}
    for name in public:
        check_listed(name)
    from ..models.providers import section_of  # here: loads torch

    return {str(ModelRef.typed(name)): section_of(name) for name in public}
