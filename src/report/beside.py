"""Attacks beside the stored attacks of a preset: ranks, differences and tests on equal images."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..analysis.multiple_comparisons import FEWEST_TESTED
from ..analysis.outcomes import Outcomes, joined, outcomes_of
from ..analysis.ranking import rankings
from ..artifacts.card import read_facts
from ..artifacts.comparable import ALIKE, differences, differing, networks_of
from ..artifacts.finished_job import FinishedJob
from ..artifacts.jobs import find_jobs, name_jobs
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..artifacts.sweep_folders import Sweeps, named_folders
from ..config.fields import find_preset
from ..utils.package import PACKAGE
from ..utils.refusals import choose
from .grid import Grid
from .words import absent_sentence, alike_sentences, rank_sentence, said

DIFFERENCES = ("difference", "difference_low", "difference_high")
"""Columns with the difference from the attack and its interval."""
NEAR = 0.05
"""Largest relative difference of two equal costs."""
_COLUMNS = ["rank", "attack", "gradients", "mean", "low", "high", "mean_tuned"]
_COLUMNS += [*DIFFERENCES, "p", "undecided", "discordance", "depends_on", "lacks"]
_COLUMNS += ["images", "targets", "sources", "storage"]
_TOLERATED = {"images", "epsilon.reference", "protocol", "program's code", "model"}
"""Facts in which jobs of one attack may differ; images and models are compared one by one."""
_BUDGET = ("clipped", "over_budget")  # alarms of images outside the budget
_LINE = "{:>4}  {:<30} {:>9}  {:>6}  {}"


@dataclass(frozen=True)
class Beside:
    """An attack beside the stored attacks of a preset.

    Attributes:
        attack: The attack's name here.
        title: The preset, the source, the budget and the denominators.
        own_settings: The attack among the stored attacks at their own settings: the columns of
            `rankings` with `difference` = the row minus this attack, tested against this attack
            alone; `gradients` per image; `mean_tuned`, the mean on the images for tuning; and
            `storage`, the format of the images that all numbers are of.
        equal_cost: The same among the stored attacks of equal cost; empty if none is stored.
        cost: Gradients per image; NaN if unknown.
        notes: What was not compared, and why; images that were clipped to the budget, or exceed it;
            and a leader without a gradient of the source.
        named: Stored attacks that the text also shows, by their titles in the rankings.
        eps_255, protocol: Budget and protocol of the stored attacks.
        by_budget: Outcomes by budget on the images that all numbers are of: of this attack, and at
            the stored budget of all attacks at their own settings.
        images: Digests of these images.
        reported: Whether images for tuning are left out.
        base: The stored attack whose function this one has; may be empty.
        jobs: Keys of the attack's jobs that are compared.
    """

    attack: str
    title: str
    own_settings: pd.DataFrame
    equal_cost: pd.DataFrame
    cost: float
    notes: tuple[str, ...]
    named: Mapping[str, str] = field(default_factory=dict)
    eps_255: float = nan
    protocol: str = ""
    by_budget: Mapping[float, Outcomes] = field(default_factory=dict)
    images: Collection[str] = ()
    reported: bool = False
    base: str = ""
    jobs: frozenset[str] = frozenset()

    def __str__(self) -> str:
        lines = [f"{self.attack} beside {self.title}", *[self.tuned] * bool(self.tuned)]
        for grid in self.grids:
            rows = (_LINE.format(*row).rstrip() for row in [grid.heads, *grid.texts])
            lines += ["", grid.caption, *rows, *grid.notes]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    @property
    def tuned(self) -> str:
        """The mean on the images for tuning, which all rankings share, as text; may be empty."""
        mean = self.own_settings.set_index("attack")["mean_tuned"][self.attack]
        return "" if np.isnan(mean) else f"mean success on the images for tuning: {mean:.1%}"

    @property
    def grids(self) -> list[Grid]:
        """The rankings that have rows: the attack, its neighbours, the first and the named."""
        cost, grids = f"gradients per image: {self.cost:g}, within {NEAR:.0%}", list[Grid]()
        heads = ("rank", "attack", "gradients", "mean", f"minus {self.attack}")
        for heading, table in {
            "Stored attacks at their own settings": self.own_settings,
            f"Stored attacks of equal cost ({cost})": self.equal_cost,
        }.items():
            if table.empty:
                continue
            absent = absent_sentence(table, self.named)
            notes = [*alike_sentences(table, self.attack), *said((absent, True))]
            caption = f"{heading}:\n{rank_sentence(table, self.attack)}"
            caption += " for reporting" * self.reported
            rows = neighbours(table, self.attack, *self.named)
            grids.append(Grid(heads, [*rows], caption, notes=notes, left=(0, 1)))
        return grids


class Ranks(tuple[Beside, ...]):
    """Results of several attacks; as text, one after another.

    Attributes:
        notes: Notes that all of several results share, and the attacks of which nothing was
            compared, and why.
    """

    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self), *["\n".join(self.notes)] * bool(self.notes)])


def beside(
    jobs: Sequence[FinishedJob],
    preset: str,
    against: Sequence[str] = (),
    known_preset: tuple[dict[str, Any], list[FinishedJob]] | None = None,
) -> Ranks:
    """Rank each attack of some jobs among the stored attacks of a preset.

    Images are found by their digests. Jobs, targets and images that differ from the stored ones are
    left out and named. The stored budget and denominators are used. `against` names stored attacks
    that each result shows, too. `known_preset` is what `read_preset` returned before.

    Raises:
        ValueError: There is no such preset or stored attack, or nothing of the jobs can be compared
            with it.
    """
    facts, stored = known_preset or read_preset(preset, against)
    attacks: dict[str, list[FinishedJob]] = {}
    alike = [name for name in ALIKE if name not in _TOLERATED]
    for job in name_jobs([job for job in jobs if job.attacked], alike):
        attacks.setdefault(job.row_title, []).append(job)
    stored_by = dict[tuple[str, tuple[str, ...]], Outcomes]()
    names = {job.row_title for job in stored}
    named = {job.row_title: job.record.attack for job in stored if job.record.attack in against}
    results, refused = list[Beside](), dict[str, list[str]]()
    for attack, sources in attacks.items():
        title = attack
        while title in names | ({*attacks} - {attack}):
            title += " (mine)"
        result = _beside(title, sources, stored, facts, stored_by)
        results += [replace(result, named=named)] if isinstance(result, Beside) else []
        refused |= {} if isinstance(result, Beside) else {attack: result}
    if not results:
        reasons = dict.fromkeys(reason for texts in refused.values() for reason in texts)
        why = " ".join(reasons) or "There is no attack."
        raise ValueError(f"nothing can be compared with preset {preset}. {why}")
    first = results[0].notes if len(results) > 1 else ()
    shared = [note for note in first if all(note in rank.notes for rank in results)]
    rest = [tuple(note for note in rank.notes if note not in shared) for rank in results]
    ranks = Ranks(replace(rank, notes=notes) for rank, notes in zip(results, rest, strict=True))
    ranks.notes = (*shared, *(f"{attack}: {' '.join(texts)}" for attack, texts in refused.items()))
    return ranks


def beside_text(sweeps: Sequence[Sweeps], preset: str, against: Sequence[str] = ()) -> str:
    """Return the results of `beside` for the jobs of sweeps as text to print after a table."""
    find_preset(preset)  # a wrong name is refused before the jobs are read
    return f"\n{beside(find_jobs(named_folders(*sweeps)), preset, against)}\n"


def read_preset(name: str, against: Sequence[str] = ()) -> tuple[dict[str, Any], list[FinishedJob]]:
    """Return the facts and the jobs of a stored preset; refuse attacks `against` that it lacks."""
    path = find_preset(name)
    jobs = [replace(job, title="") for job in find_jobs([path])]  # other code is tolerated
    attacks = sorted({job.record.attack for job in jobs})
    for attack in against:
        choose("against", attack, attacks)
    return read_facts(path), jobs


def neighbours(table: pd.DataFrame, attack: str, *named: str) -> Iterator[tuple[str, ...]]:
    """Yield the first of a ranking, an attack, its neighbours, and the named attacks.

    A row has rank, attack, gradients per image, mean, and the difference from the attack with its
    interval and p.
    """
    ranked = table.dropna(subset="rank").reset_index(drop=True)
    at = int(ranked.index[ranked["attack"] == attack][0])
    also = ranked.index[ranked["attack"].isin(named)]
    for place in sorted({0, at - 1, at, at + 1, *also} & {*ranked.index}):
        row = ranked.iloc[place]
        cost = "" if np.isnan(row["gradients"]) else f"{row['gradients']:g}"
        yield f"{row['rank']:.0f}", row["attack"], cost, f"{row['mean']:.1%}", margin_text(row)


def margin_text(row: Mapping[str, Any]) -> str:
    """Return the difference of a row in points, with its interval and p if it is tested."""
    points = [points_text(row[key]) for key in DIFFERENCES if not np.isnan(row[key])]
    ends = f" [{', '.join(points[1:])}], p = {row['p']:.2g}" if points[1:] else ""
    return "".join(points[:1]) + ends


def points_text(difference: float) -> str:
    """Return a difference in points; without a sign where it rounds to 0."""
    points = round(100 * difference, 1)
    return f"{points:+.1f}" if points else "0.0"


def _beside(
    title: str,
    jobs: Sequence[FinishedJob],
    stored: Sequence[FinishedJob],
    facts: Mapping[str, Any],
    cache: dict[tuple[str, tuple[str, ...]], Outcomes],
) -> Beside | list[str]:
    """Return an attack beside the stored ones, or why nothing of it can be compared."""
    first, notes = stored[0].record, dict[str, None]()
    sources, costs = dict[str, Outcomes](), dict[str, float]()
    over = dict[str, dict[float, list[Outcomes]]]()
    for source in dict.fromkeys(job.record.source for job in jobs):
        seeds = [job for job in jobs if job.record.source == source]
        over[source], costs[source], reasons = _of_source(title, seeds, stored, first)
        notes |= dict.fromkeys(reasons)
        notes |= {row.finding: None for job in seeds for row in job.alarms if row.name in _BUDGET}
        if seeds_of := over[source].get(first.reference):
            sources[source] = joined(seeds_of)
    counted = {source: _counted(part) for source, part in sources.items()}
    untuned = {source: int(_untuned(part, facts).sum()) for source, part in counted.items()}
    fewest = next((n for n in (FEWEST_TESTED, 1) if n <= max(untuned.values(), default=0)), 0)
    for source in [name for name in sources if untuned[name] < fewest or not len(counted[name])]:
        few = f"{untuned[source]} counted images for reporting; needed are {FEWEST_TESTED}"
        notes[f"Not compared: source {source} has {few}."] = None
        del sources[source], counted[source]
    if not sources:
        return [*notes]
    shared = {name: tuple(part.model for part in both.targets) for name, both in sources.items()}
    alike = [(job, shared[job.record.source]) for job in stored if job.record.source in shared]
    theirs = pd.Series([cost_of(job) for job, _ in alike], [job.row_title for job, _ in alike])
    mean = float(np.mean([costs[source] for source in sources]))
    cost = {**theirs.groupby(level=0).mean(), title: mean}
    of_own = {job.row_title for job, _ in alike if job.record.label == job.record.attack}
    near = {name for name in cost if abs(cost[name] - mean) <= NEAR * mean} - {title}
    set_to = {job.record.attack for job, _ in alike if job.row_title in near - of_own}
    near -= {job.row_title for job, _ in alike if job.record.label in set_to}  # once per attack
    if np.isnan(mean):
        notes["Not compared at equal cost: the job has several budgets, or a fit."] = None
    elif not near:
        notes[f"No stored attack costs {mean:g} gradients per image."] = None
    for job, targets in alike:
        if job.row_title in of_own | near and (job.record.key, targets) not in cache:
            outcome = at_reference(job.predictions, job.row_title, job.record, targets, first)
            cache[job.record.key, targets] = outcome
            job.forget()
    index = np.unique(np.concatenate([*counted.values()]))
    tables, parts = list[pd.DataFrame](), list[Outcomes]()
    for chosen in (near, of_own):
        parts = [cache[job.record.key, of] for job, of in alike if job.row_title in chosen]
        table = pd.DataFrame(columns=["attack"])
        if chosen:
            table = rank_untuned([*sources.values(), *parts], index, facts, title)
        tables.insert(0, table.assign(gradients=table["attack"].map(cost), storage=first.storage))
    if tables[0].empty:
        return [*notes, "No image is counted for every attack."]
    if (reported := _untuned(index, facts).sum()) < FEWEST_TESTED:
        tuning = f"Images for tuning: {len(index) - reported} of {len(index)}."
        others = f"the mean is then that of the other {first.images - len(facts['tuning'])}"
        notes[f"{tuning} To report, run all {first.images} images: {others}."] = None
    if lost := (near | of_own) - {*tables[0]["attack"], *tables[1]["attack"]}:
        lack = f"{len(lost)} stored attacks are not ranked: they lack one of these sources"
        notes[f"{lack} ({', '.join(sorted(lost)[:3])}{', ...' * (len(lost) > 3)})."] = None
    leader = tables[0]["attack"].iloc[0]
    for name in (name for name in (leader, title) if not cost[name]):
        leads = " has the highest mean, but" * (name == leader)
        notes[f"{name}{leads} used no gradient of the source."] = None
    version = f"preset {facts['preset']}, version {facts['preset_version']}"
    place = f"source {tables[0]['source'].iloc[0]}, eps = {first.reference:g}/255"
    stated = f"{version}: {place}, protocol {first.protocol}"
    among_own, among_near = (table.reindex(columns=_COLUMNS) for table in tables)
    tested = tested_images(index, facts)
    images = np.unique(np.concatenate([sources[name].index for name in sources]))
    images = np.setdiff1d(images, facts["tuning"] if len(tested) < len(index) else ())
    by_budget = dict[float, Outcomes]()
    for eps in {budget for name in sources for budget in over[name]}:
        joinable = [*chain(*(over[name].get(eps, []) for name in sources))]
        joinable += parts if eps == first.reference else []
        by_budget[eps] = joined(joinable).on_images(images)
    rows = stored[0].predictions
    digests = frozenset(rows.loc[rows["index"].isin(images), "image"])
    stored[0].forget()
    function = str(jobs[0].record.config["attack"]["settings"].get("_target_", ""))
    base = function.rpartition(".")[2] if function.startswith(f"{PACKAGE}.attacks.") else ""
    base *= base in {*among_own["attack"]} - {title}
    keys = frozenset(job.record.key for job in jobs if job.record.source in sources)
    result = Beside(title, stated, among_own, among_near, mean, (*notes,), base=base, jobs=keys)
    result = replace(result, eps_255=first.reference, protocol=first.protocol, by_budget=by_budget)
    return replace(result, images=digests, reported=len(tested) < len(index))


def _of_source(
    title: str, jobs: Sequence[FinishedJob], stored: Sequence[FinishedJob], first: JobRecord
) -> tuple[dict[float, list[Outcomes]], float, list[str]]:
    """Return an attack's outcomes from one source by budget, its cost, and what is not compared."""
    other = next((job for job in stored if job.record.source == jobs[0].record.source), None)
    if other is None:
        return {}, nan, [f"Not compared: source {jobs[0].record.source} is not stored."]
    common = [_common(job, first, other.record) for job in jobs]
    notes = [reason for _, reasons in common for reason in reasons]
    fitting = [job for job, (targets, _) in zip(jobs, common, strict=True) if targets]
    shared = [name for name in first.targets if all(name in part for part, _ in common if part)]
    parts, costs = dict[float, list[Outcomes]](), list[float]()
    for job in fitting if shared else ():
        rows, reasons = _comparable_rows(job, other, shared, first)
        notes += reasons
        if len(rows):
            for eps in {first.reference, *job.record.budgets} - {0.0}:
                outcome = at_reference(rows, title, job.record, shared, first, eps)
                parts.setdefault(eps, []).append(outcome)
            costs.append(cost_of(job))
        job.forget()
    if not parts:
        return {}, nan, notes
    models = {*shared, *other.record.source_model.members}
    lacking = ", ".join(target for target in other.record.targets if target not in models)
    source = f"Source {other.record.source}:"
    notes += [f"{source} all means are without target {lacking}."] * bool(lacking)
    notes += [f"{source} mean of {len(costs)} seeds."] * (len(costs) > 1)
    return parts, float(np.mean(costs)), notes


def _counted(seeds: Outcomes) -> NDArray[np.int64]:
    """Return the numbers of the images that every seed counts for some other network."""
    jobs = [*range(len(seeds.jobs))]
    pairs = seeds.pairs([0], range(len(seeds.targets)))
    counted = [np.isfinite(seeds.scores(jobs, target)) for _, target in pairs]
    return seeds.index[np.any(counted, axis=0)] if counted else seeds.index[:0]


def _comparable_rows(
    job: FinishedJob, stored: FinishedJob, targets: Sequence[str], first: JobRecord
) -> tuple[pd.DataFrame, list[str]]:
    """Return a job's rows on stored images, with the stored clean classes; and what differs."""
    notes, pair = list[str](), ["index", "target", "defence"]
    variant = f"{PREDICTIONS}-{first.storage}"
    rows = job.table(variant) if variant in job.tables else job.predictions
    if "image" not in rows:
        raise ValueError(
            "A frame has no digests of images: name the folder of the sweep, or a card."
        )
    clean = stored.predictions[stored.predictions["eps_255"] == 0]
    stored.forget()
    images = clean.drop_duplicates("image").set_index("image")["index"]
    rows = rows[rows["image"].isin(images.index)]
    if absent := job.record.images - rows["image"].nunique():
        notes.append(f"Not compared: {absent} of {job.record.images} images are not stored.")
    rows = rows.assign(index=rows["image"].map(images)).drop_duplicates([*pair, "eps_255"])
    rows = rows.merge(clean[[*pair, "label", "predicted"]], on=pair, suffixes=("", "_stored"))
    if wrong := rows.loc[rows["label"] != rows["label_stored"], "index"].nunique():
        return rows[:0], [f"Not compared: {wrong} images have other labels than the stored ones."]
    used = rows["target"].isin([*targets, *job.record.source_model.members])
    kept = rows["predicted"].where(rows["eps_255"] > 0, rows["predicted_stored"])
    other = rows.loc[used & (rows["predicted"] != kept), "index"].unique()
    if len(other):
        notes.append(
            f"The stored clean predictions decide which images count. {len(other)} of the job's "
            f"differ: {', '.join(map(str, other[:9]))}{', ...' * (len(other) > 9)}."
        )
    return rows.assign(predicted=kept), notes


def _common(job: FinishedJob, first: JobRecord, stored: JobRecord) -> tuple[list[str], list[str]]:
    """Return the targets of a job that can be compared with the stored ones, and why others not."""
    record, start = job.record, "Not compared:"
    both_stored = f"{PREDICTIONS}-{first.storage}" in job.tables
    fields = ["norm", "trainer.precision", "attack.target_label", *["storage"] * (not both_stored)]
    if unlike := differences(record, stored, fields=fields):
        return [], [f"{start} the job and the stored one differ in {', '.join(unlike)}."]
    if first.reference not in record.budgets:
        budgets = ", ".join(f"{eps:g}" for eps in record.budgets if eps)
        return [], [f"{start} budgets {budgets}/255; stored is {first.reference:g}/255."]
    members = record.source_model.members
    others = differing(record, stored, fields=["weights", "preprocessing"])
    different = {name: _difference(name, record, others) for name in record.weights}
    for name in members:
        if differs := different.get(name):
            return [], [f"{start} source {name} {differs}."]
    targets = [name for name in record.targets if name in stored.targets]
    shared = [name for name in targets if not different[name]]
    behind = ", ".join(record.defences)
    notes = [f"The ranks leave out targets behind {behind}."] * bool(behind)
    code = differing(record, stored, fields=["program's code"])
    notes += ["The stored attacks were run by other code of this program."] * bool(code)
    notes += [f"{start} target {name} {different[name]}." for name in targets if different[name]]
    if {*shared} <= {*members}:
        models = ", ".join(name for name in stored.targets if name not in members)
        return [], [*notes, f"{start} no target is shared; those stored are {models}."]
    absent = [name for name in record.targets if name not in targets]
    return shared, notes + [f"{start} target {name} is not stored." for name in absent]


def _difference(name: str, record: JobRecord, others: Collection[str]) -> str:
    """Say what of a model differs from the stored one, weights or preprocessing, or nothing."""
    if f"weights.{name}" in others:
        model = record.config["model"].get(name, {})
        built = "_target_" in model.get("network", {})
        passed = not built and model.get("weights") == "included"  # to `transfer`
        weights = "a module passed to transfer" if passed else "weights"
        return f"has another digest of {weights} than the stored one"
    return "has another preprocessing than the stored one" * (f"preprocessing.{name}" in others)


def at_reference(
    rows: pd.DataFrame,
    attack: str,
    record: JobRecord,
    targets: Sequence[str],
    first: JobRecord,
    eps_255: float | None = None,
) -> Outcomes:
    """Return a job's outcomes at the stored or another budget, with the stored denominators."""
    plain = [name for name in targets if name in record.targets]
    eps = first.reference if eps_255 is None else eps_255
    place = first.protocol, eps, networks_of(record)
    return outcomes_of(rows, attack, record.source, plain, *place)


def cost_of(job: FinishedJob) -> float:
    """Return the gradients per image; NaN if several budgets or a fit share them."""
    rows = job.read(PREDICTIONS).select(["eps_255", "gradients"])
    mean = pc.mean(rows.filter(pc.greater(rows["eps_255"], 0))["gradients"]).as_py()
    alone = not mean or sum(eps > 0 for eps in job.record.budgets) == 1
    return nan if mean is None or not alone or job.record.fit_gradients != 0 else float(mean)


def _untuned(index: NDArray[np.int64], facts: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which images are not for tuning, shape (N,)."""
    return ~np.isin(index, facts["tuning"])


def tested_images(index: NDArray[np.int64], facts: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return those of some images that are not for tuning, or all if these are too few."""
    untuned = _untuned(index, facts)
    return index[untuned] if untuned.sum() >= FEWEST_TESTED else index


def rank_untuned(
    parts: Sequence[Outcomes],
    index: NDArray[np.int64],
    facts: Mapping[str, Any],
    against: str | None = None,
) -> pd.DataFrame:
    """Rank attacks on those of some images that are not for tuning, if these are enough.

    Returns:
        The columns of `rankings` for the mean over sources, and `mean_tuned`, the mean on the
        images for tuning.
    """
    tables = []
    for images in (tested_images(index, facts), index[~_untuned(index, facts)]):
        chosen = [part.on_images(images) for part in parts]
        ranked = rankings(joined(chosen), against=against)
        # Without a source that counts no image, a mean would be of other sources than it says.
        whole = len(ranked) and all(part.counted.any() for part in chosen)
        tables.append(ranked[ranked["source"] == ranked["source"].iloc[0]] if whole else ranked[:0])
    table, tuned = tables
    return table.assign(mean_tuned=table["attack"].map(tuned.set_index("attack")["mean"]))
