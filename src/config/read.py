"""Convert the composed config to typed settings; later code does not use OmegaConf."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import BaseModel, ValidationError

from ..utils.about import About, listed
from ..utils.model_names import NO_DEFENCE, ModelRef, check_listed
from ..utils.package import OFFLINE, canonical_name, rename_targets
from ..utils.refusals import suggestion, warn_once
from .attack_settings import attack_label, stated_about, takes
from .catalogue import is_public, names_in
from .command import NAMED, Command
from .compose import is_sweep
from .errors import refusal
from .gradient_cost import at_cost
from .sections import ReportCommand, Section
from .settings import Settings

Validated = TypeVar("Validated", bound=BaseModel)


def read_job(config: DictConfig, hydra: Any) -> Settings:
    """Return the settings of a composed job; `hydra` is the section of that name."""
    source, targets, defences, section = _named(config)
    for group in hydra.runtime.choices:
        if not isinstance(section.get(group, {}), Mapping):
            way = f"in a file, write `override /{group}: NAME` in defaults"
            raise ValueError(f"{group}={section[group]}: {way}")
    _set_reference(section["epsilon"], hydra)
    attack = _attack(section["attack"], hydra)
    attack_origin = attack["kind"]
    needed = {"source": source if attack_origin == "crafted" else [attack_origin]}
    for key, names in {**needed, "targets": targets}.items():
        if not names:
            raise ValueError(f"{key} is empty. Name a model: a file of conf/model/, or timm/NAME.")
    _refuse_what_needs_an_attack(attack, section)
    if section["storage"] is None and attack_origin == "crafted":
        section["storage"] = "uint8" if section["save_adversarial"] else "float32"
    if section["protocol"] is None:
        section["protocol"] = {"crafted": "joint", "none": "all"}.get(attack_origin)
    variants = names_in(section["variants"])
    if "float32" not in (section["storage"], *variants) and attack_origin == "crafted":
        variants = ["float32", *variants]  # shows the effect of rounding
    section |= {"attack": attack, "source": source, "targets": targets, "variants": variants}
    section["defences"] = tuple(defences)
    section["source_defence"] = section["source_defence"] or NO_DEFENCE
    settings = _validate(Settings, section)
    if not settings.plan.only:
        _refuse_missing_weights(settings)
    if attack_origin != "crafted":
        return settings
    label = attack_label(attack["name"], attack["settings"])  # last: it imports torch
    labelled = settings.attack.model_copy(update={"label": label})
    labelled_job = settings.model_copy(update={"attack": labelled})
    return at_cost(labelled_job, _typed(Command.of(hydra)))


def _named(config: DictConfig) -> tuple[list[str], list[str], list[str], dict[str, Any]]:
    """Return a job's source, targets, defences, and plain config with only these models."""
    source, targets, defences, attacked = (
        [name for name in names_in(config[key]) if name != NO_DEFENCE]
        for keys in NAMED.values()
        for key in keys
    )
    public = {str(ModelRef.typed(name)): name for name in [*source, *targets] if is_public(name)}
    source, targets = ([str(ModelRef.typed(name)) for name in names] for names in (source, targets))
    named = [*source, *targets]
    section = _to_plain(config, {"model": {*named}, "defence": {*defences, *attacked}})
    models = section["model"]
    for name, typed in public.items():
        check_listed(typed)
        from ..models.providers import section_of  # here: loads torch

        models[name] = section_of(typed) | models.get(name, {})
    section["model"] = {name: models[name] for name in named}
    return source, targets, defences, section


def _set_reference(epsilon: dict[str, Any], hydra: Any) -> None:
    """Replace an experiment's reference budget by the largest one if the grid does not have it."""
    experiment, reference = hydra.runtime.choices.get("experiment"), epsilon.get("reference")
    grid = [eps for eps in listed(epsilon.get("grid")) or () if isinstance(eps, int | float)]
    typed = "epsilon.reference" in Command.of(hydra).keys
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
    if is_sweep(hydra):
        others = {key for key in _typed(Command.of(hydra)) if not takes(section, key)}
        section = {key: value for key, value in section.items() if key not in others}
    fields = crafted_keys(name, section)
    return fields | {"label": fields["name"]}


def _typed(command: Command) -> set[str]:
    """Return the keywords of an attack's function that overrides set."""
    parts = [key.split(".") for key in command.keys]
    keys = {part[1] for part in parts if part[0] == "attack" and len(part) > 1}
    return keys - {"_target_", "about", "name", "norm", "target_label", "gradients"}


def check_applied(command: Command, jobs: Sequence[Settings]) -> None:
    """Warn if some attacks ignore an `attack.KEY=VALUE`; refuse one that all attacks ignore."""
    attacks = {job.attack.name: job.attack.settings for job in jobs if not job.attack.saved}
    for key in sorted(_typed(command)):
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
    rules: dict[str, Any] = {"gradients": keys.pop("gradients", None)}
    rules |= {key: keys[key] for key in ("norm", "target_label") if key in keys}
    return {"kind": "crafted", "name": name, "settings": keys, "about": about, **rules}


def read_report_command(config: DictConfig) -> ReportCommand:
    """Return the settings of `python -m src.report`."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return _validate(ReportCommand, plain)


def _validate(settings_class: type[Validated], values: Mapping[str, Any]) -> Validated:
    try:
        return settings_class(**values)
    except ValidationError as error:
        sections: list[type[BaseModel]] = [settings_class, About, *Section.__subclasses__()]
        keys = {key for section in sections for key in section.model_fields}
        raise ValueError(refusal(error, sorted(keys))) from error


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
        "attack.gradients": section["attack"].get("gradients"),
    }
    for key in (key for key, value in wanted.items() if value):
        raise ValueError(f"{key} needs an attack on a source, but attack={attack['name']}.")
