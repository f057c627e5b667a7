"""First screens of an audit, and of attacks among stored ones: other rows for the page's regions.

A screen has axes and rows as the results have, on which the same renderers work. On the axes of an
audit, attacks are defences, sources and targets are attacks and sources of tries, defences are
targets, and budgets are numbers of tries. Those of a rank are its own, but defences are rankings.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import TRANSFER, WHITE_BOX
from ...analysis.estimates import MEAN
from ...analysis.intervals import wilson_interval
from ...analysis.outcomes import Outcomes
from ...utils.model_names import NO_DEFENCE, ModelRef
from .. import charts
from ..audit import Audit, paired
from ..beside import DIFFERENCES, Beside, points_text
from ..results import Results
from ..words import COUNTED, defence_notes, ordinal, rank_answer, stranger_answer, tries_text
from .figures import page_charts
from .rows import of_axes, percent

WITHIN = "target_correct"
"""Protocol of an audit's rows; `_ALONE` has each try alone, and any try of a row or column."""
_ALONE = "alone"
_STEPS = (1, 2, 3, 5, 10, 20, 50)
"""Numbers of tries to choose from, beside all."""
_COMPARED = ("bim", "fgsm")
_LISTED = 12
"""Stored attacks that are always listed, and the most of those that are not told apart."""
_HEIGHTS = {"success": 230, "image": 80}
_CORRECT = ["still_correct", *(f"robust_accuracy{end}" for end in ("", "_low", "_high"))]

Screen = dict[str, Any]


def screens_of(results: Results, page: Mapping[str, Any]) -> list[Screen]:
    """Return the screens that the page opens with instead of its results."""
    screens = [_audit(results)] if any(audit.fooled is not None for audit in results.audits) else []
    keys = {job.record.key for job in results.jobs}
    ranks = [rank for rank in results.ranks if rank.jobs <= keys]
    return [*screens, *([_rank(results, ranks, page)] if ranks else [])]


def _screen(rows: pd.DataFrame, axes: Mapping[str, list[Any]], **parts: Any) -> Screen:
    """Return a screen of rows with `success` of `denominator` images, or those still correct."""
    rows = rows.reindex(columns=[*dict.fromkeys([*rows, *_CORRECT, "confidence", "abstained"])])
    rows = rows.assign(overlap="", source=rows["source"].replace(MEAN, charts.theme.MEAN))
    answers = parts["answers"]
    return {
        **{"axes": axes, "rows": of_axes(rows, axes), "sources": {}, "shown": {"fooled": "fooled"}},
        **{"answer": next(iter(answers.values())), "targeted": [False] * len(axes["attack"])},
        **parts,
    }


# An audit.


def _audit(results: Results) -> Screen:
    record = results.attacked[0][0].job.record
    eps, total = record.reference, record.images
    audits = {ModelRef.parse(x.target).columns: x for x in results.audits if x.target}
    refused = [{"heading": audit.sentence} for audit in audits.values() if audit.fooled is None]
    audits = {pair: audit for pair, audit in audits.items() if audit.fooled is not None}
    models, defences = ([*dict.fromkeys(names)] for names in zip(*audits, strict=True))
    tries = [one for audit in audits.values() for one in _order(audit)]
    attacks, sources = ([*dict.fromkeys(names)] for names in zip(*tries, strict=True))
    most = max(len(audit.tries) for audit in audits.values())
    steps = [*(q for q in _STEPS if q < most), most]
    tried = [float(q) for q in range(1, most + 1)]
    axes = {
        **{"attack": defences, "source": ["", *attacks], "target": ["", *sources]},
        **{"defence": models, "protocol": [WITHIN, _ALONE], "eps_255": [0.0, *tried]},
    }
    rows = [row for pair, audit in audits.items() for row in _tries_rows(audit, *pair, axes)]
    highs = [audit.tries["fooled_high"].max() for audit in audits.values()]
    top = float(min(1.0, np.ceil(10 * np.nanmax([*highs, 0.1])) / 10))  # of the axis
    alarms = [alarm for row in results.rows for job in row for alarm in job.alarms]
    idle = [x.finding.removeprefix("defence ") for x in alarms if x.name == "idle_defence"]
    rates = results.select(protocol=WITHIN, eps_255=eps, target=models)
    abstaining = {*rates.loc[rates["abstained"] > 0, "defence"]}
    order = {model: audit for (model, _), audit in reversed(audits.items())}
    rankings, tiles, answers = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for at, model in enumerate(models):
        of_model = {name: audit for (other, name), audit in audits.items() if other == model}
        notes = [*_notes(of_model, total, dict(text.split(": ", 1) for text in idle)), *refused]
        for q in range(1, len(order[model].tries) + 1):
            listed = [_outcome(name, audit, q, total) for name, audit in of_model.items()]
            rankings[f"{at}.0.{q}"] = {"rows": [*listed, *notes], "notes": []}
            tiles[f"{at}.{q}"] = _tiles(of_model, q, total, abstaining)
        for name, audit in of_model.items():
            full = str(ModelRef.parse(model, name))
            answer = stranger_answer(audit.tries, total, full, eps)
            answers[f"{at}.{defences.index(name)}"] = answer
    scale = f"times {float(f'{127 / eps:.2g}'):g}"
    place = f"at {eps:g}/255"
    named = ", ".join(models) if len(models) < 3 else f"{len(models)} models"
    return _screen(
        pd.DataFrame(rows),
        axes,
        **{"view": "audit", "label": "Audit", "tries": True, "behind": "attack"},
        title=f"Audit of {named}, {eps:g}/255",
        **{"rankings": rankings, "tiles": tiles, "answers": answers, "steps": steps},
        budgets=[(0, "0", "clean"), *((q, f"{q:g}", tries_text(int(q))) for q in tried)],
        controls={"budget": "tries", "defence": "target"}
        | ({"attack": "defence"} if len(defences) > 1 else {}),
        colours={name: number for number, name in enumerate(defences[:3], 1)},
        order=[_order(order[model]) for model in models],
        jobs=[("", model) for model in models],
        **{"pairs": [], "means": [""] * len(defences), "scales": [scale] * len(axes["eps_255"])},
        titles={
            "ranking": f"All {total} images after {{budget}} {place}",
            "matrix": f"Each try alone, and together: % fooled {place}",
            "curves": f"Fooled within so many tries {place}",
            **{"last": "k / n", "mean": "any of them"},
            "note": "Attack (row) from public model (column); small number: place in the order of "
            f"the tries{' without a defence' * (len(defences) > 1)}. Margins: fooled by any try of "
            "the row or column. Bottom right: by any.",
            "curve": "share of the images that the target classifies correctly; bands: 95 %",
            "image": "confidence over the tries: dot right, cross wrong",
        },
        legend=[
            "The order of the tries was learned on other images. Who must guess it needs more "
            "tries; all reach the same in any order.",
            "",
        ],
        charts=page_charts(steps, top, _HEIGHTS, most, bands=True),
        first={
            **{"attack": defences[0], "source": "", "target": "", "defence": models[0]},
            **{"protocol": WITHIN, "eps": float(most)},
        },
    )


def _order(audit: Audit) -> list[tuple[str, str]]:
    """Return attack and source of the tries in the order that was learned on all images."""
    return [*audit.tries[["attack", "source"]].itertuples(index=False, name=None)]


def _tries_rows(
    audit: Audit, model: str, defence: str, axes: Mapping[str, list[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the share fooled by each try alone, by any of several, and within q tries."""
    at = {"attack": defence, "defence": model, "relation": TRANSFER, "pairs": nan}
    tries, n = audit.fooled.columns, len(audit.fooled)
    for names in product(*([name or MEAN for name in axes[key]] for key in ("source", "target"))):
        chosen = [all(a in (b, MEAN) for a, b in zip(names, one, strict=True)) for one in tries]
        if not any(chosen):
            continue
        k = int(audit.fooled.loc[:, chosen].any(axis=1).sum())
        low, high = (float(end) for end in wilson_interval(k, n))
        yield {
            **at,
            **dict(zip(("source", "target"), names, strict=True)),
            **{"protocol": _ALONE, "eps_255": 0.0, "success": k, "denominator": n},
            **{"success_rate": k / n, "success_rate_low": low, "success_rate_high": high},
        }
    for row in audit.tries.to_dict("records"):
        ends = {f"success_rate{end}": row[f"fooled{end}"] for end in ("", "_low", "_high")}
        counts = {"success": round(row["fooled"] * n), "denominator": n}
        where = {"source": MEAN, "target": MEAN, "protocol": WITHIN, "eps_255": float(row["q"])}
        yield {**at, **where, **counts, **ends}


def _counts(audit: Audit, q: int) -> tuple[Any, int, int]:
    """Return the row of `tries` for q tries, and the counts of fooled and of counted images."""
    rows = audit.tries
    row, n = rows.iloc[min(q, len(rows)) - 1], len(audit.fooled)
    return row, round(row["fooled"] * n), n


def _outcome(name: str, audit: Audit, q: int, total: int) -> dict[str, Any]:
    """Return what q tries reach behind a defence, with what becomes of all images."""
    row, k, n = _counts(audit, q)
    parts = [(n - k, "not fooled"), (k, "fooled"), (total - n, "wrong when clean")]
    title = "no defence" if name == NO_DEFENCE else name
    title += f" ({tries_text(row['q'])})" * bool(row["q"] < q)
    texts = {"title": title, "behind": f"{k} / {n}", "span": "", "q": float(row["q"])}
    cost = f"{row['gradients']:,.0f}".replace("nan", "")
    return {"name": name, "rank": "", "gradients": cost, "lacks": "", **texts, "parts": parts}


def _tiles(audits: Mapping[str, Audit], q: int, total: int, abstaining: set[str]) -> list[Any]:
    """Return the tiles, which count all images."""
    clean = len(next(iter(audits.values())).fooled)
    tiles = [("clean accuracy", {"text": percent(clean / total)}, f"{clean} / {total}", False, "")]
    for name, audit in [*audits.items()][:2]:
        _, k, n = _counts(audit, q)
        word = "not fooled" if name in abstaining else "robust"
        title = "robust accuracy" if name == NO_DEFENCE else f"{word}, with {name}"
        note = f"{n - k} / {total}, {tries_text(min(q, len(audit.tries)))}"
        tiles.append((title, {"text": percent((n - k) / total)}, note, False, ""))
    return tiles


def _notes(
    audits: Mapping[str, Audit], total: int, idle: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return lines on what each defence stops of the tries, and on classes."""
    texts = list[str]()
    for name, audit in audits.items():
        if name != NO_DEFENCE and (plain := audits.get(NO_DEFENCE)):
            clean = [len(audit.fooled) / total for audit in (plain, audit)]
            adaptive = any(ModelRef.parse(source).defence == name for _, source in audit.fooled)
            text = idle.get(name, "")
            texts += defence_notes(paired(plain, audit), name, clean, text, adaptive)
    behind = {name: f"Behind {name}: " * (name != NO_DEFENCE) for name in audits}
    texts += [f"{behind[name]}{audit.classes}" for name, audit in audits.items() if audit.classes]
    return [{"heading": text} for text in texts]


# Attacks among stored ones.


def _rank(results: Results, ranks: Sequence[Beside], page: Mapping[str, Any]) -> Screen:
    tables = [(rank, "own settings", rank.own_settings) for rank in ranks]
    tables += [(rank, "equal cost", rank.equal_cost) for rank in ranks if len(rank.equal_cost)]
    among = [f"{rank.attack}, {name}" if len(ranks) > 1 else name for rank, name, _ in tables]
    titles = {job.record.key: (job.attack, job.record.source) for job in results.jobs}
    named = {titles[key]: rank.attack for rank in ranks for key in rank.jobs}
    stored = dict.fromkeys(name for *_, table in tables for name in table["attack"])
    attacks = [*dict.fromkeys([*named.values(), *stored])]
    pairs = [[named[*key], *key[1:], at] for *key, at in page["pairs"] if (*key,) in named]
    sources = [*dict.fromkeys(source for _, source, _ in pairs)]
    source = sources[0] if len(sources) == 1 else f"{len(sources)} sources"
    first, eps = ranks[0], ranks[0].eps_255
    budgets = sorted({budget for rank in ranks for budget in rank.by_budget})
    rows, rankings = list[pd.DataFrame](), dict[str, Any]()
    tiles, answers, colours = dict[str, Any](), dict[str, Any](), dict[str, dict[str, int]]()
    others = {str(target) for rank in ranks for target in _other_models(rank.by_budget[eps])}
    targets = [name for name in page["axes"]["target"][1:] if name in others]
    for at, (rank, _, table) in enumerate(tables):
        ranked = table.dropna(subset="rank").reset_index(drop=True)
        parts = [_by_target(part, budget) for budget, part in rank.by_budget.items()]
        of_targets = pd.concat(parts)
        of_targets = of_targets[of_targets["attack"].isin(ranked["attack"])]
        rows.append(_rank_rows(rank, ranked, of_targets).assign(defence=among[at]))
        jobs = [row[0] for row in results.attacked if row[0].job.record.key in rank.jobs]
        spent = np.mean([job.cost.get("gradients_per_image", nan) for job in jobs])
        listed = _ranked(rank, ranked, "" if np.isnan(spent) else f"{spent:,.0f} in all")
        blank = {"rank": "", "behind": "", "span": "", "line": {}}
        alone: list[Any] = [row | blank for row in listed if row["name"] == rank.attack]
        alone.append({"heading": f"Stored attacks have {eps:g}/255 only."})
        for place, budget in enumerate(budgets, 1):
            chosen = listed if budget == eps else alone
            under = _places(rank, ranked, of_targets, targets) if budget == eps else []
            rankings[f"{at}.0.{place}"] = {"rows": chosen, "notes": [], "under": under}
        here = f"{at}.{budgets.index(eps) + 1}"
        row: Any = ranked.set_index("attack").loc[rank.attack]
        if row["mean_tuned"] == row["mean_tuned"]:
            tuned = {"text": percent(row["mean_tuned"])}
            tiles[here] = [("transfer, tuning", tuned, "images for tuning", False)]
        lead, rest, details = rank_answer(table, rank.attack, rank.base, eps)
        details += (
            f" From {source}, beside {rank.title.partition(':')[0]}. Counted: the "
            f"{row['images']:g} {COUNTED[rank.protocol]}"
            f"{', those for tuning left out' * rank.reported}; {row['storage']} images."
        )
        answers[str(at)] = (lead, rest, details.strip())
        base = [rank.base] * (rank.base in {*ranked["attack"]})
        curves = dict.fromkeys([rank.attack, *base, ranked["attack"].iloc[0]])
        colours[among[at]] = {name: number for number, name in enumerate(curves, 1)}
    notes = [*results.ranks.notes, *(note for rank in ranks for note in rank.notes)]
    axes: dict[str, list[Any]] = {
        **{"attack": attacks, "source": [source], "target": ["", *targets], "defence": among},
        **{"protocol": [first.protocol, "all"], "eps_255": [0.0, *budgets]},
    }
    clean = _clean(results, first, targets)
    rows += [clean.assign(defence=name) for name in among]
    return _screen(
        pd.concat(rows).assign(source=source),
        axes,
        **{"view": "rank", "label": "Rank", "by": "attack", "images": _images(results, first)},
        title=f"Rank of {', '.join(rank.attack for rank in ranks)}",
        **{"rankings": rankings, "tiles": tiles, "answers": answers, "pairs": pairs},
        budgets=[(budget, f"{budget:g}", f"{budget:g}/255") for budget in axes["eps_255"]],
        controls={"budget": "budget", "attack": "attack", "defence": "among", "target": "target"},
        colours=colours,
        **{"own": {name: rank.attack for name, (rank, *_) in zip(among, tables, strict=True)}},
        jobs=[(named.get(job, job[0]), job[1]) for job in page["jobs"]],
        **{"means": [source] * len(attacks), "scales": page["scales"]},
        titles={
            "ranking": f"Ranked at {{budget}}, from {source}",
            "matrix": "By target at {budget}: % fooled",
            "curves": f"Over the budget, mean of {len(targets)}",
            "last": f"minus {first.attack}" if len(ranks) == 1 else "minus it",
            "mean": "mean of others",
            "note": " ".join(dict.fromkeys(notes)),
            "curve": f"fooled, /255; stored attacks have {eps:g}/255 only",
            "image": "confidence: dot right, cross wrong",
        },
        legend=[
            "Points: difference in success. =: cannot be told apart. Lines: 95 % intervals of the "
            "difference, tested together. In all: gradients of all budgets together.",
            "",
        ],
        charts=page_charts(budgets, 1.0, _HEIGHTS),
        first={
            **{"attack": first.attack, "source": source, "target": "", "eps": eps},
            **{"defence": among[0], "protocol": first.protocol},
        },
    )


def _by_target(outcomes: Outcomes, eps: float) -> pd.DataFrame:
    """Return the share fooled by attack, target and relation.

    Shares are means over sources, each over its seeds; those of one job have counts.
    """
    rows, names = list[dict[str, Any]](), dict.fromkeys(name for name, _ in outcomes.jobs)
    for attack, (at, target), white in product(names, enumerate(outcomes.targets), (False, True)):
        jobs = dict[str, list[int]]()
        for job, (name, source) in enumerate(outcomes.jobs):
            is_white = not outcomes.transfers[job, at]
            if name == attack and outcomes.evaluated[job, at] and is_white == white:
                jobs.setdefault(source, []).append(job)
        scores = [outcomes.scores(seeds, at) for seeds in jobs.values()]
        scores = [part[np.isfinite(part)] for part in scores if np.isfinite(part).any()]
        if not scores:
            continue
        single = sum(map(len, jobs.values())) == 1
        k, n = (float(scores[0].sum()), len(scores[0])) if single else (nan, nan)
        rows.append({
            **{"attack": attack, "target": str(target), "eps_255": eps},
            **{"relation": WHITE_BOX if white else TRANSFER, "success": k, "denominator": n},
            "pairs": len(scores),
            "success_rate": float(np.mean([part.mean() for part in scores])),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _other_models(outcomes: Outcomes) -> list[ModelRef]:
    """Return the targets that are no white box of every job."""
    return [name for at, name in enumerate(outcomes.targets) if outcomes.transfers[:, at].any()]


def _rank_rows(rank: Beside, ranked: pd.DataFrame, of_targets: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of attacks by target, and of their means."""
    keys = ["attack", "eps_255", "relation"]
    means = of_targets.groupby(keys, as_index=False).agg({"success_rate": "mean", "pairs": "max"})
    others = (means["eps_255"] != rank.eps_255) | (means["relation"] == WHITE_BOX)
    columns = {"mean": "success_rate", "low": "success_rate_low", "high": "success_rate_high"}
    stated = ranked[["attack", *columns]].rename(columns=columns)
    stated = stated.assign(eps_255=rank.eps_255, relation=TRANSFER)
    means = pd.concat([means[others], stated]).assign(target=MEAN)
    transfer = of_targets[of_targets["relation"] == TRANSFER]
    return pd.concat([transfer, means]).assign(protocol=rank.protocol)


def _ranked(rank: Beside, ranked: pd.DataFrame, spent: str) -> list[dict[str, Any]]:
    """Return the ranking with differences from the attack, which has `spent` so many gradients."""
    at, places = ranked.index[ranked["attack"] == rank.attack][0], ranked.index.to_series()
    alike = ranked["undecided"].astype(bool) & (places != at)
    near = (places - at).abs().where(alike).nsmallest(_LISTED).index
    named = ranked["attack"].isin({rank.attack, rank.base, *_COMPARED, *rank.named})
    rows = list[dict[str, Any]]()
    for place, row in enumerate(ranked.to_dict("records")):
        points = [points_text(row[name]) for name in DIFFERENCES if row[name] == row[name]]
        ends = [f"{100 * row[end]:.1f}" for end in ("low", "high") if row[end] == row[end]]
        points = [text.replace("-", "\N{MINUS SIGN}") for text in points]
        points_ = ends if place == at else points[1:]
        value = row["difference"] if points else 0.0  # the attack itself has none
        line = {"dotted": 0, "low": None, "high": None, "value": value}
        if points[1:]:
            line |= {end: row[f"difference_{end}"] for end in ("low", "high")}
        rows.append({
            "name": row["attack"],
            "title": row["attack"] + " (base)" * (row["attack"] == rank.base),
            "rank": "= " * bool(alike[place]) + f"{row['rank']:g}",
            "gradients": f"{row['gradients']:,.0f}".replace("nan", spent * (place == at)),
            "behind": "95 %" * bool(ends) if place == at else "".join(points[:1]),
            "span": f"[{', '.join(points_)}]" * bool(points_),
            **{"lacks": "", "line": line},
            "listed": bool(place < 2 or place in near or named[place]),
        })  # fmt: skip
    return rows


def _places(
    rank: Beside, ranked: pd.DataFrame, of_targets: pd.DataFrame, targets: Sequence[str]
) -> list[Any]:
    """Return the places of the attack on each target and in the ranking, if all have rows."""
    rows = of_targets[of_targets["relation"] == TRANSFER]
    rows = rows[rows["eps_255"] == rank.eps_255]
    shares: Any = rows.pivot(index="attack", columns="target", values="success_rate")
    shares = shares.reindex(index=ranked["attack"], columns=targets)
    if shares.isna().to_numpy().any():
        return []
    places = [*shares.rank(ascending=False, method="min").loc[rank.attack]]
    places += [ranked.set_index("attack")["rank"][rank.attack]]
    return [(f"place of {rank.attack}", [ordinal(int(place)) for place in places])]


def _clean(results: Results, rank: Beside, targets: Sequence[str]) -> pd.DataFrame:
    """Return the share of all clean images that each target classifies correctly."""
    rows = results.select(protocol="all", eps_255=0.0, target=[*targets])
    rows = rows[rows["source"] != MEAN].drop_duplicates("target")
    columns = ["target", "eps_255", "protocol", "denominator", *_CORRECT]
    return rows[columns].assign(attack=rank.attack, relation=TRANSFER)


def _images(results: Results, rank: Beside) -> list[int]:
    """Return the numbers, in the jobs' data set, of the images that a rank is of."""
    rows = next(job for job in results.jobs if job.record.key in rank.jobs).predictions
    return sorted({*rows.loc[rows["image"].isin(rank.images), "index"].tolist()})
