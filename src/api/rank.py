"""Rank an attack among the stored attacks of a preset, or ask what reviewers ask, in one call."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard
from uuid import uuid4

from omegaconf import DictConfig

from ..artifacts.finished_job import FinishedJob
from ..artifacts.sweep_folders import Sweeps
from ..cache.rows import Rows
from ..config.catalogue import files
from ..config.compose import compose_words
from ..config.errors import REFUSALS, explain
from ..config.fields import distinct
from ..config.read import read_job
from ..config.resolvers import CONF
from ..images.attacker import Attack
from ..report.beside import Ranks, beside, read_preset
from ..report.paper import paper_text
from ..report.results import Results, open_jobs, results_of
from ..run.check_job import check_job, make_planned
from ..run.job import finish_job, prepare_job
from ..run.models import ModelPool
from ..run.paper import paper_jobs
from ..run.stages import Planned
from ..tracking import Tracker
from ..utils.about import listed
from ..utils.refusals import choose
from .transfer import craft, quiet

WORDS = {"small": ("experiment=demo", "epsilon.grid=[4]")}
"""The command line of the jobs of a preset that every machine has, without attack and source."""
_TWO_WAYS = (
    "Stored attacks of equal cost took the better of two ways on the images for tuning: many steps "
    "of the fewest copies, or ten steps (one below 20 gradients) of many copies."
)
_OTHERS = ("tracking=none", "report=none", "trainer.progress_bar=false", "cache.images_mb=0")


def rank(
    attack: Attack | str | Sweeps | Results,
    preset: str = "small",
    *,
    source: str | Sequence[str] | None = None,
    tuning: bool = False,
    gradients: float | None = None,
    name: str = "mine",
    against: str | Sequence[str] | None = None,
) -> Ranks:
    """Rank an attack among the stored attacks of a preset, on the preset's images and networks.

    Args:
        attack: A function `attack(model, images, labels, eps)`. It gets one budget, a number in
            [0, 1], and returns images of the same shape. A function of all budgets gets them as
            (K,), returns (K, N, 3, H, W), and states `all_budgets = True`, as those in
            `src.attacks` do. An object of torchattacks or torchattack, also of a class of
            yours that extends theirs. A class that extends TransferAttack's. The name of an attack.
            Finished jobs: a card or a folder of sweeps.
        preset: Name of the preset; only a card or a folder can be ranked in `photographs`.
        source: One or more of the preset's sources, for a function or a name; None: all.
        tuning: Use the images for tuning alone, to choose settings in less time. To report, leave
            it out: the mean is measured on the other images, because the best of several settings
            gains by luck on these. Finished jobs have their images, and so no `tuning`.
        gradients: Gradients per image of a named attack, which set its steps, as the key
            `attack.gradients` does; None: its own.
        name: The attack's name in the ranking: letters, digits and `_ . + -`.
        against: One or more stored attacks, such as `mi`, that the text shows in a line of their
            own, with difference, interval and p: at their own settings and, if stored, at equal
            cost.

    Returns:
        One result per attack, with the data frames `own_settings` and `equal_cost`; see `Beside`.
        As text they show ranks, differences and tests.

    Raises:
        ValueError: There is no such preset, attack or source; the attack cannot be used; or nothing
            of the jobs can be compared with the preset.

    Examples:
        >>> print(rank("mi", source="vgg_small"))  # doctest: +SKIP
    """
    named = listed(against) or ()
    if _is_finished(attack):
        if tuning or source is not None or gradients is not None:
            raise ValueError("source, tuning and gradients are not for finished jobs.")
        return beside(open_jobs(attack), preset, named)
    # What cannot be used is refused before seconds of reading.
    crafted = None if isinstance(attack, str) else craft(name, attack, {}, "")
    if crafted is not None and gradients is not None:
        raise ValueError("gradients is for the name of an attack. Yours sets its own steps.")
    cost = [] if gradients is None else [f"attack.gradients={gradients}"]
    if crafted is None:
        config = _compose([*WORDS["small"], f"attack={attack}", *cost])
        read_job(config, config.hydra)
    facts, stored = known_preset = read_preset(preset, named)
    if preset not in WORDS:
        none = " It has no images for tuning." * (tuning and not facts["tuning"])
        raise ValueError(
            f"preset {preset}: see {facts['page']} for its images and networks. "
            f"Run the attack on them with the command line, and pass the sweep's folder.{none}"
        )
    sources = list(dict.fromkeys(job.record.source for job in stored))
    chosen = listed(source) or tuple(sources)
    for word in chosen:
        choose("source", word, sources)
    images = len(facts["tuning"]) if tuning else stored[0].record.images
    words = (*WORDS[preset], f"n_images={images}", *_OTHERS)
    pool, call = ModelPool(), uuid4().hex
    with quiet(), TemporaryDirectory() as cache:
        jobs = [
            _run(attack, name, [*words, *cost, f"cache.dir={cache}", f"source={model}"], pool, call)
            for model in distinct(chosen)
        ]
    ranks = beside(jobs, preset, named, known_preset)
    ranks.notes += (_TWO_WAYS,) * any(len(one.equal_cost) for one in ranks)
    return ranks


def paper(
    attack: Attack | str,
    base: str = "mi",
    *,
    source: str | Sequence[str] = ("vgg_small", "resnet_small", "vit_small"),
    n_images: int = 1000,
    name: str = "mine",
) -> str:
    """Answer what reviewers ask of an attack, as `experiment=paper` does.

    Args:
        attack: A function, an object, a class or a name, as for `rank`.
        base: Name of the attack that it is compared with at equal cost.
        source: One or more sources.
        n_images: Number of images; the first 200 are for tuning.
        name: The attack's name in the text.

    Returns:
        The text of `paper.md`, the primary comparison first.

    Raises:
        ValueError: The attack cannot be used, or the base does not take as many gradients.
    """
    if _is_finished(attack) or not source:
        raise ValueError(
            "paper needs a function or the name of an attack, and at least one source."
        )
    pool, call = ModelPool(), uuid4().hex
    with quiet(), TemporaryDirectory() as cache:
        words = ("experiment=paper", f"base={base}", f"n_images={n_images}", f"cache.dir={cache}")
        lines = [[*words, *_OTHERS, f"source={model}"] for model in distinct(listed(source) or ())]
        plan = partial(_plan, attack, name, pool=pool, call=call)
        lines = paper_jobs(lines, plan, partial(files, "model", [CONF]))
        jobs = [_run(attack, name, line, pool, call) for line in lines]
    return paper_text(results_of(jobs))


def _is_finished(attack: Any) -> TypeGuard[Sweeps | Results]:
    """Return False for a function and a name, True for finished jobs; refuse anything else."""
    if callable(attack) or _is_name(attack):
        return False
    if not isinstance(attack, str | Path | Mapping | Results):
        kind = type(attack).__name__
        raise ValueError(f"attack is {kind}. Pass a function, a name, or finished jobs.")
    return True


def _is_name(attack: Any) -> bool:
    """Return True for an attack's name, and for a text that is neither that nor a path."""
    if not isinstance(attack, str):
        return False
    path = Path(attack)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".card"
    return (CONF / "attack" / f"{attack}.yaml").is_file() or not is_path


def _compose(words: Sequence[str]) -> DictConfig:
    """Return the config of a command line; raise a ValueError of one sentence if it is refused."""
    try:
        return compose_words(words)
    except REFUSALS as error:
        raise ValueError(explain(error)) from error


def _run(attack: Any, name: str, words: Sequence[str], pool: ModelPool, call: str) -> FinishedJob:
    """Run a job as the command line would with some words, without files."""
    try:
        planned = _plan(attack, name, words, pool, call)
        rows = Rows(Path(planned.settings.cache.dir))
        finished = finish_job(*prepare_job(planned, pool, Tracker(), rows), None)
    except REFUSALS as error:
        raise ValueError(explain(error)) from error.__cause__
    assert finished is not None
    return replace(finished, title=finished.record.label)


def _plan(attack: Any, name: str, words: Sequence[str], pool: ModelPool, call: str) -> Planned:
    """Check a job of some words, which name another attack or change settings of this one."""
    named = isinstance(attack, str) or any(word.startswith("attack=") for word in words)
    keys = [] if named else [word for word in words if word.startswith("attack.")]
    word = [f"attack={attack}"] if isinstance(attack, str) else ["attack=fgsm"]  # replaced below
    word *= not any(word.startswith("attack=") for word in words)
    config = _compose([*(word for word in words if word not in keys), *word])
    planned = check_job(read_job(config, config.hydra), pool.sets)
    if named:
        return planned
    values = (key.removeprefix("attack.").split("=") for key in keys)
    changed = {key: json.loads(value) for key, value in values}
    crafted, function = craft(name, partial(attack, **changed) if changed else attack, {}, "")
    settings = planned.settings.model_copy(update={"attack": crafted})
    defences = {key: defence.function for key, defence in planned.defences.items()}
    return make_planned(settings, function, defences, call=call)
