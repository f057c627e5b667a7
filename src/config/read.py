"""Convert the composed config to typed settings; later code does not use OmegaConf."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from pydantic import BaseModel, ValidationError

from ..utils.about import About, listed
from ..utils.model_names import NO_DEFENCE, ModelRef, near_models
from ..utils.package import OFFLINE, canonical_name, rename_targets
from ..utils.refusals import suggestion, warn_once
from .attack_settings import COST, attack_label, stated_about, takes
from .command import Command, refuse_replaced
from .compose import PANEL, files, is_public, is_sweep, overrides_of, public_models, without_panels
from .errors import dotted, misread, refusal
from .gradient_cost import at_cost
from .sections import DEFAULT_TARGETS, ModelSettings, ReportCommand, Section
from .settings import Settings

Validated = TypeVar("Validated", bound=BaseModel)


def read_job(config: DictConfig, hydra: Any) -> Settings:
    """Return the settings of a composed job; `hydra` is the section of that name."""
    source, targets, defences, section = _named(config, hydra)
    for key, value in dotted(section):
        refuse_replaced(key, value)
    for group in hydra.runtime.choices:
        if not isinstance(section.get(group, {}), Mapping):
            way = f"in a file, write `override /{group}: NAME` in defaults"
            raise ValueError(f"{group}={section[group]}: {way}")
    _set_reference(section["epsilon"], hydra)
    attack = _attack(section["attack"], hydra)
    attack_origin = attack["kind"]
    for key, names in (
        ("source", source or [attack_origin] * (attack_origin != "crafted")),
        ("targets", targets),
    ):
        if not names:
            known = ", ".join(_complete_files("model", hydra))
            raise ValueError(f"{key} is empty. Use any of {known}.")
    _refuse_what_needs_an_attack(attack, section)
    if section["storage"] is None and attack_origin == "crafted":
        section["storage"] = "uint8" if section["save_adversarial"] else "float32"
    variants = _names(section["variants"])
    if "float32" not in (section["storage"], *variants) and attack_origin == "crafted":
        variants = ["float32", *variants]  # shows the effect of rounding
    settings = _validate(
        Settings,
        {
            **section,
            "attack": attack,
            "source": source,
            "targets": targets,
            "defences": tuple(defences),
            "source_defence": section["source_defence"] or NO_DEFENCE,
            "variants": variants,
            "protocol": {"crafted": "joint", "none": "all"}.get(attack_origin)
            if section["protocol"] is None
            else section["protocol"],
        },
    )
    if not settings.plan.only:
        _refuse_missing_weights(settings)
    if attack_origin != "crafted":
        return settings
    label = attack_label(attack["name"], attack["settings"])  # last: it imports torch
    labelled = settings.attack.model_copy(update={"label": label})
    try:
        labelled_job = settings.model_copy(update={"attack": labelled})
        return at_cost(labelled_job, _typed(overrides_of(hydra)))
    except ValidationError as error:
        raise ValueError(refusal(error)) from error


def _named(
    config: DictConfig, hydra: Any
) -> tuple[list[str], list[str], list[str], dict[str, Any]]:
    """Return a job's source, targets, defences, and plain config with only these models."""
    source, targets = _names(config.source), _names(config.targets)
    if config.targets is None:
        targets = [*DEFAULT_TARGETS, *(name for name in source if name not in DEFAULT_TARGETS)]
    targets = without_panels(targets, _folders(hydra))
    _check_model_keys(config, Command.parse(overrides_of(hydra)).keys)
    defences = [name for name in _names(config.defences) if name != NO_DEFENCE]
    attacked = [name for name in _names(config.source_defence) if name != NO_DEFENCE]
    for group, lists in {
        "model": {"source": source, "targets": targets},
        "defence": {"defences": defences, "source_defence": attacked},
    }.items():
        for key, names in lists.items():
            _check_names(key, names, config.get(group) or DictConfig({}), group, hydra)
    public = public_models([*source, *targets])
    source, targets = ([str(ModelRef.typed(name)) for name in names] for names in (source, targets))
    named = [*source, *targets]
    section = _to_plain(config, {"model": {*named}, "defence": {*defences, *attacked}})
    models = section["model"]
    for name, keys in public.items():
        models[name] = keys | models.get(name, {})
    section["model"] = {name: models[name] for name in named}
    return source, targets, defences, section


def _set_reference(epsilon: dict[str, Any], hydra: Any) -> None:
    """Replace an experiment's reference budget by the largest one if the grid does not have it."""
    experiment, reference = hydra.runtime.choices.get("experiment"), epsilon.get("reference")
    grid = [eps for eps in listed(epsilon.get("grid")) or () if isinstance(eps, int | float)]
    typed = "epsilon.reference" in Command.parse(overrides_of(hydra)).keys
    valid = min(grid, default=-1) >= 0  # others are refused
    if experiment and valid and not typed and reference not in (None, *grid):
        epsilon["reference"] = max(grid)
        warn_once(  # printed before Hydra sets up the log
            f"epsilon.reference={reference:g} of experiment={experiment} is not in epsilon.grid. "
            f"The reference is now the largest budget, {max(grid):g}/255."
        )


def _attack(section: Mapping[str, Any], hydra: Any) -> dict[str, Any]:
    """Return an attack's settings; its name is the file's, including the folder."""
    name = str(hydra.runtime.choices.attack).replace("/", ".")
    keys = {key: value for key, value in section.items() if key != "name"}
    if name == "none":
        return {"kind": name, "name": name, "label": "clean images", **keys}
    if name == "saved":
        return {"kind": name, "name": name, "label": name, "saved": keys}
    if is_sweep(hydra) and str(hydra.sweeper._target_).endswith("BasicSweeper"):
        others = {key for key in _typed(overrides_of(hydra)) if not takes(section, key)}
        section = {key: value for key, value in section.items() if key not in others}
    fields = crafted_keys(name, section)
    return fields | {"label": fields["name"]}


def _typed(overrides: Sequence[str]) -> set[str]:
    """Return the keywords of an attack's function that overrides set."""
    parts = [key.split(".") for key in Command.parse(overrides).keys]
    keys = {part[1] for part in parts if part[0] == "attack" and len(part) > 1}
    return keys - {"_target_", "about", "name", "norm", "target_label", *COST}


def check_applied(jobs: Sequence[tuple[Sequence[str], Settings]]) -> None:
    """Warn if some attacks ignore an `attack.KEY=VALUE`; refuse one that all attacks ignore."""
    attacks = {job.attack.name: job.attack.settings for _, job in jobs if not job.attack.saved}
    for key in sorted(_typed(jobs[0][0])):
        ignoring = [name for name, settings in attacks.items() if key not in settings]
        text = f"attack.{key} does not apply to {', '.join(ignoring)}."
        if ignoring and len(ignoring) == len(attacks):
            raise ValueError(text + suggestion(key, sorted(set().union(*attacks.values()))))
        if ignoring:
            warn_once(text)


def crafted_keys(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `AttackSettings`, except the label, from the keys of an attack's file.

    The attack's name is its file's; for a library, the class follows.
    """
    about = section.get("about") or stated_about(section)
    if isinstance(about, Mapping) and about.get("category") == "library":
        name = f"{name}.{section['name']}"  # the class, chosen by the user
    elif section.get("name", name) not in (name, name.rpartition(".")[2]):
        raise ValueError(f"attack.name={section['name']}: it must be the file's name, {name}.")
    keys = {key: value for key, value in section.items() if key not in ("name", "about")}
    rules: dict[str, Any] = {key: keys.pop(key) for key in COST if key in keys}
    rules |= {key: keys[key] for key in ("norm", "target_label") if key in keys}
    return {"kind": "crafted", "name": name, "settings": keys, "about": about, **rules}


def read_report_command(config: DictConfig) -> ReportCommand:
    """Return the settings of `python -m src.report`."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for key, value in dotted(plain):
        refuse_replaced(key, value)
    return _validate(ReportCommand, plain)


def _validate(settings_class: type[Validated], values: Mapping[str, Any]) -> Validated:
    try:
        return settings_class(**values)
    except ValidationError as error:
        sections: list[type[BaseModel]] = [settings_class, About, *Section.__subclasses__()]
        known = {key for section in sections for key in section.model_fields}
        raise ValueError(refusal(error, sorted(known))) from error


def _names(value: Any) -> list[Any]:
    """Return a name, a list of names or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | ListConfig) else [value]


def _folders(hydra: Any) -> list[str]:
    """Return the folders of config files, the program's own first."""
    return [place.path for place in hydra.runtime.config_sources if place.schema == "file"]


def _complete_files(group: str, hydra: Any) -> list[str]:
    """Return the names of a group's files, except files with a value that the user must set."""
    texts = {
        name: file.read_text("utf-8-sig") for name, file in files(group, _folders(hydra)).items()
    }
    return [name for name, text in texts.items() if not re.search(r": *\?\?\?", text)]


def _check_names(key: str, names: list[Any], catalogue: DictConfig, group: str, hydra: Any) -> None:
    for name in names:
        if isinstance(name, bool):
            raise ValueError(misread(key, name))
        if "_target_" in {**catalogue, **(catalogue.get("network") or {})}:  # no package line
            raise ValueError(
                f"A file in {group}/ lacks its first line, which must be `# @package {group}.NAME`."
            )
        if str(name) in catalogue or (group == "model" and is_public(name)):
            continue
        listed = files(group, _folders(hydra))
        if str(name).startswith("_"):
            raise ValueError(
                f"{key}={name}: a file that begins with _ is a base of other files. Use any of "
                f"{', '.join(sorted(_complete_files(group, hydra)))}."
            )
        text = listed[name].read_text("utf-8-sig") if name in listed else ""
        if name in listed and "." in name:
            raise ValueError(f"{listed[name]}: no dots in names. Rename it and its first line.")
        named = re.search(rf"^# *@package {group}\.(\S+)", text, re.M)
        if named and named[1] != name:
            raise ValueError(
                f"{listed[name]} is named {named[1]} in its first line, which must be "
                f"`# @package {group}.{name}`."
            )
        known = sorted({*map(str, catalogue), *listed} - {name})
        panels = [PANEL + panel for panel in files("panel", _folders(hydra))] * (key == "targets")
        if epoch := re.fullmatch(r"(.+)\.epoch\d+", str(name)):
            way = f"a model NAME whose network is that of {epoch[1]}, with model.NAME.weights=FILE"
            raise ValueError(f"{key}={name} is replaced by {way}.")
        near = suggestion(str(name), [*known, *panels])
        near = near or (near_models(str(name)) if group == "model" else "")
        needy = listed.keys() - _complete_files(group, hydra)
        available = f" Available: {', '.join(other for other in known if other not in needy)}."
        raise ValueError(f"{key}: there is no {group} {str(name)!r}.{near or available}")


def _check_model_keys(config: DictConfig, keys: Sequence[str]) -> None:
    """Refuse an override `model.NAME.KEY=VALUE` of a model or key that does not exist."""
    sections = (config.get("model") or {}).items()
    models = [
        str(name) for name, model in sections if OmegaConf.is_dict(model) and "network" in model
    ]
    fields = [*ModelSettings.model_fields]
    for group, name, field in (key.split(".")[:3] for key in keys if key.count(".") > 1):
        word, known = (field, fields) if name in models else (name, models)
        if group == "model" and word not in known:
            raise ValueError(
                f"{group}.{name}.{field}: there is no such key of a model.{suggestion(word, known)}"
            )


def _to_plain(config: DictConfig, keep: Mapping[str, set[str]]) -> dict[str, Any]:
    """Return a config as resolved plain data; of the groups in `keep`, only the named options.

    Every `_target_` has its canonical name.
    """
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
        for group, names in keep.items():
            files = config.get(group) or {}
            config[group] = {name: files[name] for name in files if name in names}
    for key in Settings.model_fields:  # needed before validation; `~key` may have removed it
        config[key]
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return dict(rename_targets(plain, canonical_name))


def _refuse_missing_weights(settings: Settings) -> None:
    """Refuse missing weight files; also name a folder of images that is missing, too."""
    if missing := [model.missing for model in settings.model.values() if model.missing]:
        source = settings.dataset.model_extra or {}
        root = Path(str(source.get("root"))).expanduser()
        local = str(source.get("_target_")).startswith("src.data.image_files.")  # never downloaded
        raise ValueError(
            f"{len(missing)} weight files are missing in {Path.cwd()}: {', '.join(missing)}. "
            f"{f'dataset.root={root} is not a folder. ' * (local and not root.is_dir())}"
            f"To see the commands that fetch the weights, add plan=only. {OFFLINE}"
        )


def _refuse_what_needs_an_attack(attack: Mapping[str, Any], section: Mapping[str, Any]) -> None:
    """Refuse keys that have no meaning for saved or clean images."""
    if attack["kind"] == "crafted":
        return
    diagnostics = section["diagnostics"].items()
    clean = attack["kind"] == "none"
    wanted = {
        "storage": section["storage"],
        "save_adversarial=true": section["save_adversarial"],
        "diagnostics": any(value for key, value in diagnostics if key != "n_images"),
        "controls=true": clean and section["controls"],
        "source": clean and section["source"] is not None,
    }
    for key in (key for key, value in wanted.items() if value):
        raise ValueError(f"{key} needs an attack on a source, but attack={attack['name']}.")
