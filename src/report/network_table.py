"""Table of the networks of sources, for new trainings and new images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from ..analysis.outcomes import Outcomes, joined, outcomes_of
from ..analysis.trainings import network_rankings
from ..artifacts.comparable import ALIKE, differences, networks_of
from ..artifacts.finished_job import FinishedJob
from ..artifacts.jobs import MORE_IMAGES, name_jobs
from ..utils.formats import percents
from ..utils.model_names import NO_DEFENCE, ModelRef
from .beside import DIFFERENCES
from .grid import Grid
from .results import Results
from .trainings import check_trainings, seed_names, without_training_seed
from .words import networks_notes, points


def network_table(results: Results) -> Grid:
    """Rank the networks of the sources, see `compare_networks`.

    Untargeted attacks that every single source has are used, from sources and on targets without a
    defence, at the first job's reference budget.

    Raises:
        ValueError: There are too few jobs, or they differ in more than seed, model and program.
    """
    alike = [name for name in ALIKE if name not in ("program's code", "seed")]
    same = [name for name in alike if name != "model"]  # names of models tell trainings apart
    named = name_jobs(results.jobs, same)
    check_trainings(named)
    jobs = _of_shared_attacks(
        [
            replace(job, title=without_training_seed(job.row_title))
            for job in named
            if job.attacked and not job.record.source_model.is_defended
            if job.record.config["attack"]["target_label"] is None
        ]
    )
    records = [job.record for job in jobs]
    rest, names = [name for name in alike if name not in ("images", "model")], seed_names(records)
    ways = {MORE_IMAGES: ["images"], "Rename one of the networks.": ["model"] * (not names)}
    for way, fields in (ways | {"Choose attacks that share it.": rest}).items():
        if unlike := differences(*records, fields=fields):
            raise ValueError(f"the jobs differ in {', '.join(unlike)}. {way}")
    first = records[0]
    eps, parts = first.reference, []
    for job in jobs:
        if eps not in job.record.budgets:
            source = job.record.source
            raise ValueError(f"eps={eps:g}/255: {job.attack} from {source} lacks this budget.")
        parts.append(_outcomes(job, first.protocol, eps, names.get(job.record.key, {})))
        job.forget()
    if any(names.values()):
        _refuse_parts_of_sources(parts)
    rows = network_rankings(joined(parts).select(defence=NO_DEFENCE))
    if rows.empty:
        raise ValueError("No source has several trainings. Name them NAME and NAME_seed1.")
    attacks = ", ".join(dict.fromkeys(job.row_title for job in jobs))
    place = f"{attacks} on {first.dataset}, eps = {eps:g}/255, {first.protocol}"
    cells = percents(rows[["source", "trainings", "mean"]].astype({"trainings": str}))
    cells["difference"] = points(rows, DIFFERENCES, "{:+z.1f} [{:+z.1f}, {:+z.1f}]")
    heads = ("network", "trainings", "on others", "minus the first")
    title = f"Networks, for new trainings and images: {place}"
    return Grid(heads, cells.to_numpy().tolist(), title, networks_notes(rows), data=rows)


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
