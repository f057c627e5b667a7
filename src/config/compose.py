"""Compose the jobs of a command line before any of them runs, and find the names in it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ..utils.hydra_versions import VERSION_BASE
from ..utils.model_names import ModelRef, check_listed
from ..utils.refusals import suggestion
from .command import Command, flat, parse_for
from .hydra_internals import split_jobs
from .sections import DEFAULT_TARGETS

PANEL = "panel/"


def with_files(command: Command, folders: Sequence[str | Path]) -> list[str]:
    """Return a command's overrides, plus overrides that load the models and defences it names.

    The command, its experiments and its panels name them. A complete section in an experiment
    replaces a file. If several public sources have no targets, the sources are each other's
    targets. `model=` or `defence=` in the command is used unchanged.

    Args:
        command: The command.
        folders: The folders of config files, the program's own first.

    Raises:
        ValueError: A file in a further folder is named like one of the program's.
    """
    folders = [*folders, *command.folders]
    _refuse_unread(*map(Path, folders))
    experiments = _experiments(command.experiments, folders)
    named = {"model": {*DEFAULT_TARGETS, *command.models}, "defence": {*command.defences}}
    complete: dict[str, set[str]] = {"model": set(), "defence": set()}
    for study in experiments:
        named["model"] |= {*flat(study.get("source")), *flat(study.get("targets"))}
        named["defence"] |= {*flat(study.get("defences")), *flat(study.get("source_defence"))}
        for group in named:
            sections = study[group] if isinstance(study.get(group), dict) else {}
            named[group] |= sections.keys()
            complete[group] |= {name for name, keys in sections.items() if _is_complete(keys)}
    panels = {PANEL + name: file for name, file in files("panel", folders).items()}
    for panel in named["model"] & panels.keys():
        named["model"] |= {*flat(_read(panels[panel]))}
    loaded = []
    for group, names in named.items():
        chosen = sorted((names & files(group, folders).keys()) - complete[group])
        loaded += [] if group in command.keys else [f"{group}=[{','.join(chosen)}]"]
    public = dict.fromkeys(filter(is_public, command.sources))
    has_targets = "targets" in command.keys or any(study.get("targets") for study in experiments)
    if len(public) > 1 and not has_targets:
        loaded.append(f"targets=[{','.join(public)}]")
    return [*command.words, *Command.parse(loaded).words]


def _refuse_unread(own: Path, *others: Path) -> None:
    """Refuse files that Hydra does not read, because the program has one of the same name."""
    names = [file.relative_to(own) for file in own.rglob("*.yaml")]
    for folder, name in product(others, names):
        file = folder / name
        if file.is_file() and not file.samefile(own / name):
            raise ValueError(f"{file} is not read: the program has a file of this name. Rename it.")


def files(group: str, folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return a group's files by name; for equal names the first one counts, as in Hydra.

    Files that begin with `_` are left out: only other files include them.
    """
    paths = [path for folder in folders for path in sorted(Path(folder, group).glob("[!_]*.yaml"))]
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
    from ..models.providers import section_of  # here: loads torch

    return {str(ModelRef.typed(name)): section_of(name) for name in public}


def _experiments(chosen: Sequence[str], folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return the contents of the chosen experiments, and of the experiments that they extend."""
    names, contents = list(chosen), dict[str, dict[str, Any]]()
    while names:
        name = names.pop()
        places = (Path(folder, "experiment", f"{name}.yaml") for folder in folders)
        file = next((place for place in places if place.is_file()), None)
        if file is None or name in contents:
            continue
        content = _read(file)
        contents[name] = content if isinstance(content, dict) else {}
        for entry in contents[name].get("defaults") or ():
            group, options = ("", entry) if isinstance(entry, str) else next(iter(entry.items()))
            paths = [f"{group}/{option}".partition("@")[0] for option in flat(options)]
            names += [path.rpartition("experiment/")[2].lstrip("/") for path in paths]
    return [*contents.values()]


def _is_complete(section: Any) -> bool:
    """Return True if an experiment's section of a model or defence needs no file."""
    if not isinstance(section, dict):
        return False
    return "_target_" in {**section, **(section.get("network") or {})}


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def overrides_of(hydra: Any) -> list[str]:
    """Return the overrides of a job or command as text, with interpolations as typed."""
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return list(words)


def is_sweep(hydra: Any) -> bool:
    """Return True if the command has `-m`, according to Hydra's settings."""
    return str(hydra.mode).endswith("MULTIRUN")


def has_basic_sweeper(config: DictConfig) -> bool:
    """Return True if Hydra's own sweeper runs the jobs, so that their overrides are known."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def has_basic_launcher(config: DictConfig) -> bool:
    """Return True if the jobs run one after another in this process."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def runs_here(config: DictConfig) -> bool:
    """Return True if Hydra's own launcher or joblib's runs the jobs on this machine."""
    return str(config.hydra.launcher._target_).endswith(("BasicLauncher", "JoblibLauncher"))


def compose_jobs(config: DictConfig) -> Iterator[DictConfig]:
    """Yield the configs of a command's jobs; only the first one if the sweeper is adaptive."""
    if not is_sweep(config.hydra) or not has_basic_sweeper(config):
        yield config
        return
    loader = GlobalHydra.instance().config_loader()
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    for job in split_jobs(parse_for(loader, [*fixed, *overrides_of(config.hydra)])):
        yield loader.load_sweep_config(config, job)


def compose_words(
    folder: Path, overrides: Sequence[str], config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config from overrides, outside of a Hydra run.

    Args:
        folder: Folder of the primary config.
        overrides: Overrides, as on the command line.
        config_dir: Folder of more config files, as for `--config-dir`.

    Raises:
        ValueError: There is no such folder; Hydra would only warn.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"config_dir={config_dir}: there is no such folder.")
    command = Command.parse(overrides)
    overrides = with_files(command, [folder, *([] if config_dir is None else [config_dir])])
    if config_dir is not None:
        path = str(Path(config_dir).resolve()).replace("'", "\\'")
        overrides = [f"hydra.searchpath=['file://{path}']", *overrides]
    running = GlobalHydra.instance().hydra  # the caller's Hydra, if any
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), **VERSION_BASE):
            return compose("config", list(overrides), return_hydra_config=True)
    finally:
        if running is not None:
            GlobalHydra.instance().initialize(running)
