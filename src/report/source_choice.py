"""Ranking of sources for an unseen target, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..analysis.outcomes import Outcomes, joined, outcomes_of, ratio
from ..analysis.ranking import source_rankings
from ..analysis.source_choice import choices
from ..analysis.trainings import network_rankings
from ..artifacts.comparable import ALIKE, differences, networks_of
from ..artifacts.jobs import MORE_IMAGES, FinishedJob, name_jobs
from ..utils.formats import percents
from ..utils.model_names import NO_DEFENCE, ModelRef
from .beside import DIFFERENCES
from .grid import Grid
from .named_tables import points
from .results import open_jobs
from .trainings import check_trainings, seed_names, without_training_seed
from .words import choice_notes, networks_notes, trainings_note


def choose_source(
    folders: Sequence[Path],
    attack: Sequence[str] | None = None,
    eps_255: float | None = None,
    related: bool = True,
) -> list[Grid]:
    """Rank the sources of the jobs in these folders for an unseen target.

    Only untargeted attacks that every single source has are used, from sources and on targets
    without a defence; ensembles that lack one of them are left out.

    Args:
        folders: Folders of sweeps on the same images.
        attack: Attacks to use; None: all attacks that every source has.
        eps_255: Budget in 1/255; None: the first job's reference budget.
        related: False: leave out pairs of models that share weights, architecture or family.

    Returns:
        The first ranking of `source_rankings`, with `on_itself`, the success rate on the source
        itself (NaN if it is no target); `choices`; and the rows of `network_rankings`, if any. The
        attribute `data` has the numbers.

    Raises:
        ValueError: There are too few models, or the jobs differ in more than seed and program.
    """
    alike = [name for name in ALIKE if name not in ("program's code", "seed")]
    same = [name for name in alike if name != "model"]  # names of models tell trainings apart
    named = name_jobs(open_jobs(*folders, related=related), same)
    check_trainings(named)
    jobs = [
        replace(job, title=without_training_seed(job.row_title))
        for job in named
        if job.attacked and not job.record.source_model.is_defended
        if job.record.config["attack"]["target_label"] is None
        if attack is None or {job.attack, job.row_title} & {*attack}
    ]
    if not jobs:
        raise ValueError(
            f"the folders hold no jobs with {', '.join(attack or ['an untargeted attack'])}."
        )
    first = jobs[0].record
    records = [job.record for job in jobs]
    rest, names = [name for name in alike if name not in ("images", "model")], seed_names(records)
    ways = {MORE_IMAGES: ["images"], "Rename one of the networks.": ["model"] * (not names)}
    for way, fields in (ways | {"Choose attacks that share it.": rest}).items():
        if unlike := differences(*records, fields=fields):
            raise ValueError(f"the jobs differ in {', '.join(unlike)}. {way}")
    eps, parts = first.reference if eps_255 is None else eps_255, []
    jobs = _of_shared_attacks(jobs)
    for job in jobs:
        if eps not in job.record.budgets:
            source = job.record.source
            raise ValueError(f"eps={eps:g}/255: {job.attack} from {source} lacks this budget.")
        parts.append(_outcomes(job, first.protocol, eps, names.get(job.record.key, {})))
        job.forget()
    if any(names.values()):
        _refuse_parts_of_sources(parts)
    outcomes = joined(parts).select(defence=NO_DEFENCE)
    chosen, ranked = choices(outcomes, first.seed), source_rankings(outcomes)
    ranked = ranked[~ranked["ensemble"].astype(bool)]
    if ranked.empty:
        raise ValueError("only one source has counted images on other networks; add sources.")
    keys = ["attack", "target"]
    ranked = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)].reset_index(drop=True)
    ranked["on_itself"] = _on_itself(outcomes, ranked["source"])
    attacks = ", ".join(dict.fromkeys(job.row_title for job in jobs))
    heading = f"{attacks} on {first.dataset}, eps = {eps:g}/255, {first.protocol}"
    heading += ", without related pairs" * (not related)
    return [*_tables(heading, ranked, chosen, network_rankings(outcomes))]


def _outcomes(job: FinishedJob, protocol: str, eps: float, names: Mapping[str, str]) -> Outcomes:
    """Return a job's outcomes with new names of models; ensembles keep theirs."""
    rows, networks = job.defended, networks_of(job.record)
    rows = rows.assign(target=[names.get(name, name) for name in rows["target"]])
    source, *targets = (names.get(name, name) for name in (job.record.source, *job.record.targets))
    networks = {names.get(name, name): network for name, network in networks.items()}
    return outcomes_of(rows, job.row_title, source, targets, protocol, eps, networks)


def _refuse_parts_of_sources(parts: Sequence[Outcomes]) -> None:
    """Refuse trainings of several commands, and a source whose pairs would be left out."""
    runs = [(*part.jobs[0], tuple(map(str, part.targets))) for part in parts]
    jobs = pd.DataFrame(runs, columns=["attack", "source", "targets"])
    if jobs.groupby("attack")["source"].agg(frozenset).nunique() > 1:
        raise ValueError("trainings are not of one sweep: run one with training.seed=0,1,2.")
    sets = jobs.groupby("source", sort=False)["targets"].nunique()
    if several := [*sets.index[sets > 1]]:
        raise ValueError(
            f"source {several[0]} has several jobs with other targets. Train each network of a "
            "sweep over training.seed, or name trainings NAME_seedN in one sweep."
        )


def _of_shared_attacks(jobs: Sequence[FinishedJob]) -> list[FinishedJob]:
    """Return the jobs of attacks that every single source has, of sources that have them all."""
    attacks = dict[str, set[str]]()
    for job in jobs:
        attacks.setdefault(job.record.source, set()).add(job.row_title)
    single = [of for source, of in attacks.items() if not ModelRef.parse(source).is_ensemble]
    shared = set.intersection(*single) if single else set()
    if not shared:
        raise ValueError("no attack was run from every source; add the missing jobs.")
    able = {source for source, of in attacks.items() if shared <= of}
    return [job for job in jobs if job.row_title in shared and job.record.source in able]


def _on_itself(outcomes: Outcomes, sources: pd.Series) -> list[Any]:
    """Return the success rates of sources on themselves, averaged over attacks; NaN: no target."""
    rates = ratio(outcomes.fooled.sum(axis=2), outcomes.counted.sum(axis=2))
    jobs = pd.MultiIndex.from_tuples(outcomes.jobs)
    frame = pd.DataFrame(rates, jobs, [*map(str, outcomes.targets)])
    means = frame.groupby(level=[0, 1]).mean().groupby(level=1).mean().reindex(columns=sources)
    return [means.at[source, source] for source in sources]


def _tables(
    heading: str, ranking: pd.DataFrame, choices: pd.DataFrame, networks: pd.DataFrame
) -> Iterator[Grid]:
    """Lay out a choice of sources: the ranking, the choice for each target, and the networks."""
    first, second = "Which source for an unseen target", "Each target in turn as the unseen target"
    heads, notes = ("source", "on others", "on itself"), [trainings_note(ranking, networks)]
    ranks = percents(ranking[["source", "mean", "on_itself"]]).to_numpy().tolist()
    yield Grid(heads, ranks, f"{first}, these trainings: {heading}", notes, data=ranking)
    more = ("target", "chosen", "success", "best", "success", "random")
    chosen = percents(choices[["target", "chosen", "success", "best", "most", "any"]])
    targets, notes = chosen.to_numpy().tolist(), choice_notes(choices)
    yield Grid(more, targets, second, notes, left=(0, 1, 3), data=choices)
    if len(networks):
        table = percents(networks[["source", "trainings", "mean"]].astype({"trainings": str}))
        form = "{:+z.1f} [{:+z.1f}, {:+z.1f}]"
        table["difference"] = points(networks, DIFFERENCES, form)
        columns = ("network", "trainings", "on others", "minus the first")
        title, cells = "Networks, for new trainings and images", table.to_numpy().tolist()
        yield Grid(columns, cells, title, networks_notes(networks), data=networks)
