"""Comparable jobs: the facts in which jobs differ, and the facts that models share."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ..config.sections import network_settings
from ..utils.model_names import ModelRef
from ..utils.package import is_asset
from ..utils.refusals import printable_all
from .record import JobRecord

_FACTS = {
    *("attack", "source", "layer", "targets", "defences", "dataset"),
    *("class_names", "values", "device", "code", "versions"),
}
_SECTIONS = ("attack", "ensemble", "source_defence", "source_draws", "defence")
_CHOICE = {"seed", "images"}
"""Keys of `dataset` that choose images, and change nothing about them."""
_TAGGED = ("timm/", "torchvision/")
"""Providers whose names end in a tag of the weights, as in `resnet50.a1_in1k`."""
RELATED_BY = {"same weights", "same architecture", "same family"}
_COMMON = {"_target_", "model_name", "name", "num_classes", "image_size", "img_size", "stem"}
_COMMON |= {"pretrained", "weights"}


def digest(content: Any) -> str:
    """Return a digest of plain values, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def model_digest(record: JobRecord, name: str) -> str:
    """Return a digest of everything that decides a model's logits: weights, settings and code."""
    return digest([record.weights.get(name), _network(record, name), record.code.get(name)])


def _network(record: JobRecord, name: str) -> dict[str, Any]:
    """Return the settings of a model without its weights; an ensemble has none."""
    return network_settings(record.config["model"].get(name, {}))


def _settings(record: JobRecord) -> list[Any]:
    """Return what decides how a source is attacked, without the number set by `attack.gradients`.

    Records of earlier versions do not state the training images of a fit and their augmentation.
    """
    settings = record.config["attack"].get("settings")
    if re.search(r"\([\d.e+]+ gradients?[,)]", record.label):
        settings = {key: value for key, value in settings.items() if key != "steps"}
    attack, fit = record.config["attack"], ("fit.images", "fit.passes")
    stated = [settings, attack.get("target_label"), record.code.get("attack")]
    stated += [record.config["ensemble"], record.config.get("source_draws", 1)]
    return stated + [record.key_parts.get(name) for name in fit]


FIELDS: Mapping[str, Callable[[JobRecord], Any]] = {
    "images": lambda record: f"{record.images} of digest {record.data}",
    "norm": lambda record: record.norm,
    "epsilon.reference": lambda record: f"{record.reference!r}".removesuffix(".0"),
    "protocol": lambda record: record.protocol,
    "storage": lambda record: record.storage,
    "trainer.precision": lambda record: record.config["trainer"]["precision"],
    "trainer.attack_precision": lambda record: record.config["trainer"]["attack_precision"],
    "trainer.fold_batch_norms": lambda record: record.config["trainer"]["fold_batch_norms"],
    "program's code": lambda record: record.code.get("program", ""),
    "seed": lambda record: record.seed,
    "attack.target_label": lambda record: record.config["attack"]["target_label"],
    "epsilon.grid": lambda record: [*record.budgets[1:]],
    "attack": lambda record: record.crafting,
    "settings": lambda record: digest(_settings(record)),
}
"""Facts of a job by name."""
SETTINGS = "settings"
"""Name of the fact that tells attacks of one label apart."""
OF_MODELS: Mapping[str, Callable[[JobRecord, str], Any]] = {
    "model": model_digest,
    "defence": lambda record, name: digest(
        [record.config["defence"][name], record.code.get(f"defence.{name}")]
    ),
    "weights": lambda record, name: record.weights[name],
    "network": lambda record, name: digest(_network(record, name)),
    "preprocessing": lambda record, name: [
        value for key, value in _network(record, name).items() if key != "network"
    ],
}
"""Facts of each model, or defence, of a job; that of `resnet50` is named `model.resnet50`."""
ALIKE = (*[*FIELDS][:10], "model", "defence")
"""Facts that jobs must share to be averaged and ranked together."""
VARYING = (
    *("source", "layer", "targets", "defences", "budgets", "device", "nondeterministic"),
    *("versions.*", "config.source", "config.targets", "config.defences", "config.source_defence"),
    *("config.epsilon.grid", "config.attack.saved.*", "config.attack.source", "config.training.*"),
    *("config.model.*.weights", "config.model.*.averaged", "config.model.*.feature_layer"),
    *("config.trainer.batch_size", "config.trainer.gradient*"),
)
"""Leaves of a record in which the jobs of a mean may differ: what it is over, and how it ran.

Weights and images have digests, which are facts. Seeds are facts, and rows combine them.
"""
WITHOUT_EFFECT = (
    *("key", "key_parts.*", "crafting", "target_keys.*", "gradients", "fit_gradients"),
    *("zero_gradients", "seconds", "values", "class_names", "attack"),
    *("dataset", "overrides", "flags", "created", "commit"),
    *("config.attack.kind", "config.attack.name", "config.attack.label", "config.attack.norm"),
    *("config.attack.about.*", "config.epsilon.reference", "config.epsilon.below_one"),
    *("config.protocol", "config.storage", "config.seed", "config.n_images", "config.dataset.*"),
    *("config.variants", "config.controls", "config.save_adversarial", "config.diagnostics.*"),
    *("config.measurements.*", "config.clean_accuracy_check.*", "config.report.*"),
    *("config.model.*.url", "config.model.*.expected_accuracy", "config.model.*.training_of"),
    *("config.trainer.accelerator", "config.trainer.devices", "config.trainer.num_nodes"),
    *("config.trainer.strategy", "config.trainer.num_workers"),
    *("config.trainer.progress_bar", "config.beside", "config.base", "config.question"),
    *("config.cache.*", "config.plan.*", "config.rerun", "config.sweep"),
)
"""Leaves of a record that change no number, or that a fact or a leaf that may vary repeats."""
Group = tuple[tuple[str, str], ...]
"""Key of jobs that may be averaged and ranked together: the names and values of `ALIKE`."""
_WORDS: Mapping[str, Callable[[JobRecord], Sequence[str]]] = {
    "images": lambda record: (
        f"{record.images} images",
        f"{round((record.values / 3) ** 0.5)} px",
        f"images {record.data[:6]}",
        f"images {record.data}",
    ),
    "norm": lambda record: (record.norm,),
    "epsilon.reference": lambda record: (f"reference {record.reference:g}",),
    "protocol": lambda record: (record.protocol,),
    "storage": lambda record: (record.storage,),
    "trainer.precision": lambda record: (record.arithmetic,),
}
"""Words for a fact in a title, the shortest first."""


def facts(record: JobRecord, fields: Iterable[str] = ALIKE) -> dict[str, str]:
    """Return some facts of a job as text by name; the names are those of `FIELDS` and models."""
    stated = {}
    for field in fields:
        if field in FIELDS:
            stated[field] = str(FIELDS[field](record))
        else:
            names, fact = sorted(record.weights), OF_MODELS[field]
            if field == "defence":
                names = sorted(record.config.get("defence", {}))
            stated |= {f"{field}.{name}": str(fact(record, name)) for name in names}
    return stated


def differing(*records: JobRecord, fields: Iterable[str] = ALIKE) -> dict[str, list[str]]:
    """Return the values of the facts in which some jobs differ, in their order.

    A model that a job lacks is no difference.
    """
    values = defaultdict[str, dict[str, None]](dict)
    for record in records:
        for name, value in facts(record, fields).items():
            values[name][value] = None
    return {name: [*texts] for name, texts in values.items() if len(texts) > 1}


def differences(*records: JobRecord, fields: Iterable[str] = ALIKE) -> list[str]:
    """Return the facts in which some jobs differ, with their values, such as `norm (linf, l2)`."""
    unlike = differing(*records, fields=fields)
    return [f"{name} ({', '.join(values)})" for name, values in unlike.items()]


def groups_of(records: Iterable[JobRecord], fields: Iterable[str] = ALIKE) -> list[Group]:
    """Return the group of each job, whatever their order.

    The groups of two jobs are equal if and only if they have no `differences`, and the same models
    among those whose name stands for several networks.
    """
    jobs = list(records)
    told = FIELDS.keys() | differing(*jobs, fields=fields).keys()
    return [
        tuple((name, text) for name, text in facts(record, fields).items() if name in told)
        for record in jobs
    ]


def titles_of(groups: Mapping[Group, Sequence[JobRecord]]) -> dict[Group, str]:
    """Return a short text that tells the jobs of each group from those of the others.

    Examples: `500 images`, `images 3f2a9c`, `l2`, `program 1a2b3c`, `resnet50 3f2a9c`, `seed 1`.
    """
    titles: dict[Group, tuple[str, ...]] = dict.fromkeys(groups, ())
    told = {name for group in groups for name, _ in group}
    for name in [*(name for name in FIELDS if name in told), *sorted(told - {*FIELDS})]:
        texts = zip(*(_words(name, records) for records in groups.values()), strict=True)
        best = max(texts, key=lambda choice: len({*choice}))  # the first of several
        longer = {key: (*titles[key], text) for key, text in zip(groups, best, strict=True)}
        if len({*longer.values()}) > len({*titles.values()}):
            titles = longer
    return {key: ", ".join(filter(None, texts)) for key, texts in titles.items()}


def _words(name: str, records: Sequence[JobRecord]) -> Sequence[str]:
    """Return words for a fact that some jobs share, the shortest first."""
    if name in _WORDS:
        return _WORDS[name](records[0])
    stated = (facts(record).get(name) for record in records)
    values = [*dict.fromkeys(filter(None, stated))]
    short = [value[:6] if len(value) > 8 else value for value in values]
    label = re.sub(r"^(model|trainer)\.|'s code$", "", name)
    return [f"{label} {', '.join(texts)}" * bool(texts) for texts in (short, values)]


def recipe(record: JobRecord) -> str:
    """Return a digest of everything that decides a job's rows, except which images, and seeds."""
    settings = [record.config.get(name) for name in _SECTIONS]
    settings += [record.config["trainer"].get("gradient_batch"), record.key_parts.get("fit.passes")]
    dataset = record.config["dataset"]
    settings.append({key: dataset[key] for key in dataset.keys() - _CHOICE})
    parts = [record.config["attack"]["settings"], *record.config["defence"].values()]
    if any("function" in part for part in parts):  # from Python: no key identifies it
        settings.append(record.crafting)
    rest = [field for field in (*ALIKE, "epsilon.grid") if field not in ("images", "seed")]
    stated = record.model_dump(mode="json", include=_FACTS)
    return digest([facts(record, rest), stated, settings])


def experiment(record: JobRecord) -> str:
    """Return a digest of all facts of a job, except the program's version and how it ran.

    The key of the attack is no fact: it names the program, and a call from Python.
    """
    stated = facts(record, (*FIELDS.keys() - {"attack", "program's code"}, *OF_MODELS))
    names = [record.source, record.layer, sorted(record.targets), sorted(record.defences)]
    settings = record.config["attack"]["settings"]
    return digest(printable_all([stated, record.key_parts, settings, names]))


def training_of(record: JobRecord, model: str) -> str:
    """Return which training a model's weights are from: the seed of a training here, or a file.

    Weights that come with their network, and those of ensembles, have an empty text.
    """
    settings = record.config["model"].get(model, {"weights": "included"})
    if (weights := settings.get("weights")) is None:
        return str(record.config.get("training", {}).get("seed", ""))
    return "" if weights == "included" else PurePath(weights).stem


def network_of(record: JobRecord, model: str) -> str:
    """Return the network that a model is a training of; an ensemble is a network of its own.

    It is what the model's file states as `training_of`, or its name without `_seedN`. A model is a
    network of its own if its settings differ in more than the weights from those of that network,
    or of its first training if the job lacks the network; and if another model, or the network
    itself, makes the statement a chain.
    """
    models = record.config["model"]
    stated = {name: _stated_network(name, models) for name in models}
    if (name := stated.get(model, model)) == model:
        return model
    chained = stated.get(name, name) != name or model in {*stated.values()}
    first = name if name in models else min(key for key in stated if stated[key] == name)
    built = [network_settings(models[key]) for key in (model, first)]
    return model if chained or built[0] != built[1] else name


def _stated_network(name: str, models: Mapping[str, Any]) -> str:
    return models[name].get("training_of") or ModelRef((name,)).architecture


def networks_of(record: JobRecord) -> dict[str, str]:
    """Return the network of each model of a job."""
    return {name: network_of(record, name) for name in record.weights}


def overlaps(record: JobRecord, source: str, target: str) -> tuple[str, ...]:
    """Return the facts that a target shares with a source or one of its members.

    - `same weights`: equal digests.
    - `same architecture`: same network name (timm's and torchvision's without tag), arguments.
    - `same family`: same first word of the name before a number, such as `resnet`.
    - `same pretraining`: weights `included` or fine-tuned, with the same tag or name.
    - `same data`: last trained on the job's data set, on the embedded images, or on the data set
      named by the same tag.
    """
    stated, members = _shared(record, target), ModelRef.parse(source).members
    shared = [stated.items() & _shared(record, member).items() for member in members]
    return tuple(name for name in stated if any((name, stated[name]) in pairs for pairs in shared))


def _shared(record: JobRecord, name: str) -> dict[str, str]:
    model = record.config["model"].get(name, {})
    network, weights = model.get("network", {}), str(model.get("weights", ""))
    target = str(network.get("_target_", "torch.nn"))  # parts of torch.nn are no architecture
    stated = network.get("model_name") or network.get("name") or target.rpartition(".")[2]
    stated = "" if target.startswith("torch.nn") else str(stated).lower()
    # Elsewhere a dot may part a package from a class, or belong to a repository.
    tagged = "model_name" in network or stated.startswith(_TAGGED)
    architecture, _, tag = stated.partition(".") if tagged else (stated, "", "")
    family = re.match(r"(?:tf_|wide_)?([a-z]+?)(?=v?\d|_|$)", architecture)
    others = {key: value for key, value in network.items() if key not in _COMMON}
    start = tag or "DEFAULT" if network.get("pretrained") else network.get("weights")
    start = start if weights in ("None", "included") else None
    included = start and (tag.rpartition("_")[2] or "in1k")
    of_file = is_asset(weights) and "cifar10_mini"
    facts = {
        "same weights": record.weights.get(name),
        "same architecture": architecture and architecture + json.dumps(others, sort_keys=True),
        "same family": family and family[1],
        "same pretraining": start,
        "same data": {"None": record.dataset, "included": included}.get(weights, of_file),
    }
    return {name: value for name, value in facts.items() if value}
