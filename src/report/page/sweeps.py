"""One page for sweeps that cannot be compared: each as on a page of its own, and what differs."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, combinations
from string import ascii_uppercase
from typing import Any

from ...artifacts.comparable import ALIKE, Group, differing, digest, facts, titles_of
from ...artifacts.record import JobRecord
from ..grid import Grid
from ..results import JobResults, Results, titled_anew
from ..view import View, ranked_first, view_of
from ..words import Answer, apart_answer, said
from .figures import page_charts
from .html import COLOURS, Report

_BUDGETS, _PROGRAM = "epsilon.grid", "program's code"
_LABELS = {_BUDGETS: "budgets, /255", _PROGRAM: "program"}
_DIGITS = 8
"""View digits of a digest."""
_CHOICE = ("seed", "n_images", "images")
"""Keys of a data set that choose images."""


def sweeps_apart(results: Results) -> list[Results]:
    """Return the results of each group of comparable jobs, with the names that jobs have there.

    Jobs on clean images and audits are with the first group, ranks with that of all their jobs; a
    page shows no rank of jobs of several groups.
    """
    parts, clean = dict[Group, list[Sequence[JobResults]]](), list[Sequence[JobResults]]()
    for row, group in zip(results.rows, results.groups, strict=True):
        (parts.setdefault(group, []) if row[0].job.attacked else clean).append(row)
    if len(parts) < 2:
        return [results]
    sweeps = list[Results]()
    for group, rows in parts.items():
        sweeps.append(Results(titled_anew(rows), [group] * len(rows), results.ranks))
    first, *others = sweeps
    rows, groups = [*first.rows, *clean], [first.groups[0]] * (len(first.rows) + len(clean))
    return [replace(results, rows=rows, groups=groups), *others]


@dataclass(frozen=True)
class _Sweep:
    """A sweep beside others, with its report and its letter."""

    letter: str
    results: Results
    report: Report

    @cached_property
    def view(self) -> View:
        return view_of(self.results)

    @cached_property
    def records(self) -> list[JobRecord]:
        return [job.job.record for row in self.results.attacked for job in row]

    @property
    def first(self) -> JobRecord:
        return self.records[0]

    @property
    def budgets(self) -> list[float]:
        return sorted({eps for record in self.records for eps in record.budgets} - {0.0})

    @property
    def indices(self) -> set[int]:
        """The numbers of its images in their data set."""
        return {*next(iter(self.results.attacked[0][0].outcomes.values())).index.tolist()}

    @property
    def folders(self) -> str:
        """The names of its folders, which may be the user's."""
        return "+".join(dict.fromkeys(name for job in self.results.jobs for name in job.sweeps))

    @property
    def about(self) -> str:
        """The number of counted images, and the budgets."""
        ranked, total = ranked_first(self.results, self.view.choice), self.first.images
        counted = f"{ranked['images'].iloc[0]:g} of {total} images counted" if len(ranked) else ""
        return f"{counted or f'{total} images'}; budgets {_listed(self.budgets)}/255"


def together(parts: Sequence[Results], reports: Sequence[Report]) -> Report:
    """Return the report of sweeps that cannot be compared, from the report of each.

    `page` has the axes, pairs and budgets of all sweeps, and `answers` by the letters of those that
    are shown. The page of a sweep has its `letter`, `name` and `about`, and colours and ends of
    axes that all sweeps share.
    """
    letters = [*ascii_uppercase, *map(str, range(len(ascii_uppercase), len(parts)))]
    sweeps = [*map(_Sweep, letters, parts, reports)]
    pairs = {f"{one.letter}+{two.letter}": (one, two) for one, two in combinations(sweeps, 2)}
    answers: dict[str, Sequence[str]] = {name: _answer(*pair) for name, pair in pairs.items()}
    answers |= {sweep.letter: sweep.report.page["answer"] for sweep in sweeps}
    names, pages = _names(sweeps), [report.page for report in reports]
    axes = {
        axis: [*dict.fromkeys(name for page in pages for name in page["axes"][axis])]
        for axis in pages[0]["axes"]
    }
    colours = {name: number for number, name in enumerate(axes["attack"][:COLOURS], 1)}
    subtitles = [page["subtitle"].split(", ") for page in pages]
    shared = [text for text in subtitles[0] if all(text in part for part in subtitles)]
    top, end = max(page["top"] for page in pages), max(max(sweep.budgets) for sweep in sweeps)
    first = {**pages[0]["first"], "sweep": next(iter(pairs)), "eps": _budget(*sweeps[:2])}
    page = {
        "title": "Transfer of adversarial examples",
        "subtitle": ", ".join([f"{len(sweeps)} sweeps", *shared]),
        **{"first": {**first, "view": "results", "target": ""}, "answers": answers},
        **{"axes": {**axes, "eps_255": sorted(axes["eps_255"])}, "shown": pages[0]["shown"]},
        "pairs": [pair for page in pages for pair in page["pairs"]],
        "having": {
            text: "".join(sweep.letter for sweep in sweeps if eps in sweep.budgets)
            for page in pages
            for eps, text, _ in page["budgets"]
        },
        "budgets": sorted({budget for page in pages for budget in page["budgets"]}),
        "screens": [
            {**screen, **{key: f"{screen[key]} {sweep.letter}" for key in ("view", "label")}}
            | {"letter": sweep.letter}
            for sweep, page in zip(sweeps, pages, strict=True)
            for screen in page["screens"]
        ],
        "diagnosed": all(page["diagnosed"] for page in pages),
        "command": "\n".join(page["command"] for page in pages),
        "accuracy": [
            (f"{sweep.letter}: {model}", lines)
            for sweep in sweeps
            for model, lines in sweep.report.page["accuracy"]
        ],
    }
    reports_by, terms, rankings = dict[str, Report](), dict[str, Any](), list[Grid]()
    for sweep, name in zip(sweeps, names, strict=True):
        its_page = {**sweep.report.page, "letter": sweep.letter, "name": name, "about": sweep.about}
        half = page_charts(sweep.budgets, top, {"success": 158}, end)["success"]
        its_page |= {"colours": colours, "charts": {**its_page["charts"], "half": half}}
        reports_by[sweep.letter] = replace(sweep.report, page=its_page)
        (heading, rows), *others = sweep.report.terms.items()
        terms[f"{heading}: {sweep.letter}, {name}"] = rows
        for grid in sweep.report.rankings:
            rankings.append(replace(grid, caption=f"{sweep.letter}, {name}: {grid.caption}"))
    return Report(
        reports[0].title,
        answers[page["first"]["sweep"]],
        tuple(dict.fromkeys(alarm for report in reports for alarm in report.alarms)),
        page=page,
        terms={**terms, **dict(others)},
        rankings=rankings,
        sweeps=reports_by,
        differs=_differing(sweeps, names),
    )


def _names(sweeps: Sequence[_Sweep]) -> list[str]:
    """Return the names of the sweeps' folders, or what tells the sweeps apart."""
    if len({*(names := [sweep.folders for sweep in sweeps])}) == len(names):
        return names
    return [*titles_of({sweep.results.groups[0]: sweep.records for sweep in sweeps}).values()]


def _unlike(*sweeps: _Sweep) -> list[str]:
    """Return the facts in which sweeps differ.

    The digests of their networks may differ by the program alone; then the weights count.
    """
    records = [sweep.records for sweep in sweeps]
    unlike = differing(*chain(*records), fields=[*ALIKE, "weights", _BUDGETS])
    seeds = {frozenset(record.seed for record in group) for group in records}
    left_out = ["model." if _PROGRAM in unlike else "weights.", *["seed"] * (len(seeds) == 1)]
    return [name for name in unlike if not name.startswith((*left_out,))]


def _differing(sweeps: Sequence[_Sweep], names: Sequence[str]) -> Grid:
    """Return a table of the facts in which sweeps differ."""
    unlike, stated = _unlike(*sweeps), [facts(x.first, ["model", "weights"]) for x in sweeps]
    networks = [name for name in unlike if name in stated[0]]
    rows = [
        (_LABELS.get(name, name), *(_text(name, text, sweeps) for text in sweeps))
        for name in unlike
        if name not in networks
    ]
    if networks:
        label = networks[0] + f" and {len(networks) - 1} more" * (len(networks) > 1)
        rows.append((label, *(digest([x.get(n) for n in networks])[:_DIGITS] for x in stated)))
    heads = ["differs", *(f"{x.letter} {name}" for x, name in zip(sweeps, names, strict=True))]
    rows = [(label, *texts) for label, *texts in rows if len({*texts}) > 1]
    return Grid(heads, rows, left=range(len(heads)))


def _text(name: str, sweep: _Sweep, sweeps: Sequence[_Sweep]) -> str:
    """Return a fact of a sweep in words."""
    record, first = sweep.first, sweeps[0]
    other, commits = first.first, [one.first.commit for one in sweeps]
    if name == "images":
        if sweep is not first and _data_set(record) == _data_set(other):
            both = len(sweep.indices & first.indices)
            return f"{record.images}, of which {both} are in {first.letter}"
        of = f" of {record.dataset}" * (record.dataset != other.dataset)
        pixels = f", {round((record.values / 3) ** 0.5)} px" * (record.values != other.values)
        others = ", others" * (sweep is not first and not of + pixels)
        return f"{record.images}{of}{pixels}{others}"
    if name == _BUDGETS:
        return _listed(sweep.budgets)
    if name == _PROGRAM and len({*commits}) == len(commits):
        return record.commit[:_DIGITS]
    value = facts(record).get(name, "none")
    return value[:_DIGITS] if re.fullmatch("[0-9a-f]{16}", value) else value


def _data_set(record: JobRecord) -> dict[str, Any]:
    entries = record.config["dataset"].items()
    return {key: value for key, value in entries if key not in _CHOICE and value is not None}


def _listed(budgets: Sequence[float]) -> str:
    return ", ".join(f"{eps:g}" for eps in budgets)


def _budget(one: _Sweep, two: _Sweep) -> float:
    """Return the reference budget of one of two sweeps, that the other has, too, if possible."""
    either = (one.first.reference, two.first.reference)
    return next((eps for eps in either if eps in one.budgets and eps in two.budgets), either[0])


def _answer(one: _Sweep, two: _Sweep) -> Answer:
    """State which attack is first in each of two sweeps, and what would make them comparable."""
    eps = _budget(one, two)
    ranked = {
        sweep.letter: ranked_first(sweep.results, replace(sweep.view.choice, eps=eps))
        for sweep in (one, two)
    }
    return apart_answer(ranked, f" at {eps:g}/255", _again(one, two))


def _again(*sweeps: _Sweep) -> str:
    """Say how to run the older of two sweeps again, so that they can be compared."""
    old, new = sorted(sweeps, key=lambda sweep: max(record.created for record in sweep.records))
    unlike, keys = _unlike(old, new), dict[str, str]()
    before, after = (
        dict(word.partition("=")[::2] for word in sweep.first.overrides) for sweep in (old, new)
    )
    for key in {**after, **before}:
        name = "images" if key.partition(".")[0] in ("n_images", "dataset") else key
        value = after.get(key, _setting(new.first, key))
        if value and name in unlike and value != before.get(key, _setting(old.first, key)):
            keys[name] = f"{keys.get(name, '')} {shlex.quote(f'{key}={value}')}"
    rest = [name for name in unlike if name not in {*keys, _PROGRAM, _BUDGETS}]
    by = f" by the program of {new.letter}" * (_PROGRAM in unlike)
    equal = said(("".join(keys.values()), keys), (f" equal {', '.join(rest)}", rest))
    words = f" with{' and'.join(equal)}" * bool(equal)
    return f"to compare them, run {old.letter} again{by}{words}"


def _setting(record: JobRecord, key: str) -> str:
    """Return a setting of a job as it is typed; empty for a section."""
    value: Any = record.config
    for part in key.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    text = "null" if value is None else f"{value}".replace(" ", "")
    return text * (not isinstance(value, dict))
