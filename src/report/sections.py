"""The sections of the page: charts with captions that hold the numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from src.analysis import CLEAN, format_cell, is_white_box, wilson_interval
from src.analysis.comparisons import asymmetry, paired_tests
from src.analysis.confidence import class_confidence, class_counts, confidence_profiles, top_k
from src.record import JobRecord
from src.report import charts
from src.report.measure import Measured, group
from src.report.page import Figure, Section, Table

WIDEST = 0.3
"""Where the interval of a rate is wider, a section is a sentence: nothing can be told."""
FEWEST_IN_BIN = 10
"""Bins of fewer images are not drawn."""
_MOST_ROWS = 60  # of a folded table
_DIRECTIONS = {
    "forward": "first_success",
    "backward": "second_success",
    "forward_only": "first_only",
    "backward_only": "second_only",
}
_NYQUIST = 0.5
_PARTS = {"low": "low", "band": "mid", "high": "high", "all": "whole"}


def answer_sentence(record: JobRecord, found: Measured) -> str:
    """Name the strongest source and the most robust target at the reference budget.

    Compared are the jobs that can be: of the first one's data, norm, aim, budget and protocol;
    and of them those that are judged on as many models, since ensembles are on fewer.
    """
    rows = _decisive(record, found.table("rates"))
    if rows.empty:
        return "No image was counted."
    where = f"At {record.standard:g}/255 ({record.norm}, {record.protocol})"
    best = _strongest(rows, ["attack", "source"])
    if not best["fooled"]:
        return f"{where} no image that was counted is fooled."
    attack, source, targeted = best["attack"], best["source"], (rows["sign"] > 0).any()
    models = f"{best['pairs']} other {'model' if best['pairs'] == 1 else 'models'}"
    white = rows["white_box"].all()
    does = "reaches its target classes on" if targeted else "fools"
    first = (
        f"{where} the strongest source is {source} with {attack}: it {does} "
        f"{'itself' if white else models} for {format_cell(best['fooled'], best['n'])} of the "
        "images counted."
    )
    mine = rows[rows["attack"] == attack]
    if white or mine["target"].nunique() < 2:
        return first
    least = _strongest(mine.assign(fooled=mine["n"] - mine["fooled"]), ["target"])
    return (
        f"{first} The most robust target of {attack} is {least['target']}: other sources succeed "
        f"on {format_cell(least['n'] - least['fooled'], least['n'])}."
    )


def _decisive(record: JobRecord, rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rates that decide who is strongest: without white boxes, if there are others."""
    at = (rates["source"] != CLEAN) & (rates["eps_255"] == record.standard) & (rates["n"] > 0)
    rows = rates[at & (rates["protocol"] == record.protocol) & (rates["group"] == group(record))]
    rows = rows[rows["sign"] == rows["sign"].iloc[0]] if len(rows) else rows
    rows = rows.assign(fooled=rows["k"].where(rows["sign"] > 0, rows["n"] - rows["k"]))
    others = rows[~rows["white_box"]]
    return others if len(others) else rows


def _strongest(rows: pd.DataFrame, by: list[str]) -> pd.Series:
    """Add the pairs of each up, and return the highest rate of those with the most pairs."""
    sums = rows.groupby(by, sort=False).agg(
        fooled=("fooled", "sum"), n=("n", "sum"), pairs=("n", "size")
    )
    sums = sums[sums["pairs"] == sums["pairs"].max()].reset_index()
    return sums.iloc[(sums["fooled"] / sums["n"]).argmax()]


def clean_sentence(found: Measured) -> str:
    """Say how many clean images each model gets right, and how confident it is."""
    told = []
    for model, rows in [pair for models in found.clean.values() for pair in models.items()]:
        first = top_k(rows).iloc[0]
        cell = format_cell(int(first["correct"]), int(first["n"]))
        told.append(f"{model}: {cell} correct, mean confidence {first['confidence']:.1%}.")
    return " ".join(told)


def answer(record: JobRecord, found: Measured) -> Section:
    """Return the linked matrix and curves, and the variants and controls beside the rates."""
    rates = found.table("rates")
    decisive = _decisive(record, rates)
    attacked = rates[rates["source"] != CLEAN]
    budgets = sorted(set(attacked["eps_255"]) - {0.0})
    at = record.standard if record.standard in budgets else budgets[-1]
    first = _strongest(decisive, ["attack", "source"]) if len(decisive) else attacked.iloc[0]
    groups = rates["group"].nunique()
    where = f"{at:g}/255 ({record.protocol})" if groups == 1 else "each job's reference budget"
    figures = [
        Figure(
            "answer",
            "Transfer matrix, and accuracy and confidence over the budget",
            "Rows: source; columns: target; k / n of the images that the protocol counts, in the "
            "row clean of all clean images. Choose attack, budget and protocol; click cells or "
            "legend entries to choose curves. Bands: 95 % intervals (of confidences under the "
            "job's own protocol alone).",
            charts.answer_chart(
                rates,
                attack=str(first["attack"]),
                source=str(first["source"]),
                budget=at,
                protocol=record.protocol,
            ),
            rates.drop(columns=["sign", "group"]),
        )
    ]
    variants, beyond = found.table("variants"), found.table("excess")
    if len(variants):
        variants = variants.assign(row=variants["attack"] + ": " + _pairs(variants))
        caption = (
            f"Success rates at {where} of the same images in every storage, "
            f"and of the controls, on up to {variants['n'].max()} images; 95 % Wilson intervals."
        )
        chart = charts.variants_chart(variants)
        figures.append(Figure("variants", "Storage and controls", caption, chart, variants))
    for control, rows in beyond.groupby("control", sort=False) if len(beyond) else ():
        rows = rows.assign(row=_pairs(rows))
        caption = (
            f"Success rate at {where} minus that of {control} of the same budget, on the same "
            f"up to {rows['denominator'].max()} images; Tango's 95 % interval."
        )
        name = f"excess-{str(control).split()[0]}"
        chart = charts.excess_chart(rows)
        figures.append(Figure(name, f"Beyond {control}", caption, chart, rows))
    return Section("answer", "Which models fall, at which budget", figures=tuple(figures))


def hypothesis(found: Measured) -> Section | None:
    """Return the rank correlation of every pair, and a pair's curves by initial confidence."""
    effects = found.table("effects")
    if effects.empty:
        return None
    title = "Are confident images harder to manipulate?"
    told = effects[_enough(effects["n"])]
    if told.empty:
        return Section("hypothesis", title, (_too_few(effects["n"], "of Hypothesis 1"),))
    told = told.assign(row=_pairs(told))
    bins = found.table("bins")
    if len(bins):
        bins = bins[bins["n"] >= FEWEST_IN_BIN].assign(bin=_bin_names)
    verdicts = told["verdict"].value_counts()
    counts = ", ".join(f"{name} for {count}" for name, count in verdicts.items())
    text = (
        f"Hypothesis 1, images with a high initial confidence are harder to manipulate, is "
        f"{counts} of {len(told)} pairs (95 % intervals, not corrected for the number of pairs)."
    )
    drawn = len(bins.drop_duplicates(["attack", "source", "target"])) if len(bins) else 0
    right = (
        f" Right: accuracy and confidence of the selected pair (of {drawn} pairs) by bins of "
        f"initial confidence with at least {FEWEST_IN_BIN} images."
    )
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget, "
        f"of {told['n'].min()} to {told['n'].max()} initially correct images a pair; above 0, more "
        f"confident images need a larger budget.{right if drawn else ''}"
    )
    chart = charts.hypothesis_chart(told, bins)
    figure = Figure(
        "hypothesis", "Initial confidence and the budget that fools", caption, chart, told
    )
    sentences = pd.DataFrame({"pair by pair": [_effect(row) for row in _records(told)]})
    table = Table("Pair by pair", "One sentence a pair.", sentences.head(_MOST_ROWS))
    return Section("hypothesis", title, (text,), (figure,), (table,))


def images(found: Measured) -> Section | None:
    """Return the galleries by definition, their curves, and example images."""
    if not found.albums:
        return None
    figures = []
    shown = found.table("shown")
    if len(shown):
        shown = shown.assign(pair=shown["attack"] + ": " + _pairs(shown))
        shown = shown.drop_duplicates(["pair", "image", "eps_255"])
        caption = "Confidence in the predicted and in the true class; the images of the galleries."
        chart = charts.trajectories_chart(shown)
        figures.append(Figure("images", "Single images over the budget", caption, chart, shown))
    text = "Galleries: the clearest cases by definition (see below). Examples: by index."
    return Section("images", "Images", (text,), tuple(figures), albums=tuple(found.albums))


def compared(found: Measured) -> Section | None:
    """Compare attacks, sources and directions on the same images."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    tests = pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)
    gaps = pd.concat([asymmetry(rows) for rows in groups], ignore_index=True)
    gaps.columns = [_DIRECTIONS.get(name, name) for name in gaps.columns]
    gaps = gaps.assign(kind="direction")
    tests["row"] = _versus(tests, "{first} \N{MINUS SIGN} {second}, {common}")
    gaps["row"] = _versus(gaps, "{first} \N{RIGHTWARDS ARROW} {second} \N{MINUS SIGN} back")
    every = pd.concat([tests, gaps], ignore_index=True)
    told = every[_enough(every["n"])] if len(every) else every
    areas = _areas(found.table("areas"))
    title = "Compared on the same images"
    if told.empty:
        text = _too_few(every["n"], "of differences") if len(every) else "There is one job alone."
        return Section("compared", title, (text,), areas)
    figures = (
        _differences("attack", "Attacks, from the same source", told, outcomes, "target"),
        _differences("source", "Sources, of the same attack", told, outcomes, "target"),
        _differences("direction", "Directions between two models", told, outcomes, "attack"),
    )
    drawn = tuple(figure for figure in figures if figure is not None)
    return Section("compared", title, (), (*drawn, *areas), (_tests_table(told),))


def _areas(areas: pd.DataFrame) -> tuple[Figure, ...]:
    """Return the areas under the curves of every pair with enough images."""
    rows = areas[_enough(areas["n"])] if len(areas) else areas
    if rows.empty:
        return ()
    caption = (
        "Mean robust accuracy over the budgets from 0 to the largest, of "
        f"{rows['n'].min()} to {rows['n'].max()} images; Gaffke's 95 % interval."
    )
    rows = rows.assign(row=_pairs(rows))
    return (Figure("areas", "Areas under the curves", caption, charts.areas_chart(rows), rows),)


def _differences(
    kind: str, title: str, tests: pd.DataFrame, outcomes: pd.DataFrame, by: str
) -> Figure | None:
    """Return the differences of one kind; of very many those with the smallest p."""
    rows = tests[tests["kind"] == kind]
    if rows.empty:
        return None
    caption = (
        f"Difference of success rates on {rows['n'].min()} to {rows['n'].max()} images that count "
        "for both sides; Tango's 95 % interval."
    )
    shown = rows
    if len(rows) > _MOST_ROWS:
        shown = rows.sort_values("p_holm", kind="stable").groupby(by, sort=False).head(_MOST_ROWS)
        shown = shown.sort_index()
        if len(shown) < len(rows):
            caption = f"{caption} The {_MOST_ROWS} smallest p of each {by}."
    chart = charts.differences_chart(shown, by, list(dict.fromkeys(outcomes[by])))
    return Figure(f"compared-{kind}s", title, caption, chart, rows)


def mechanisms(found: Measured) -> Section | None:
    """Return what the diagnostics tell of why images transfer."""
    parts = (_spectra, _filtered, _low_passed, _similarity)
    figures = [figure for part in parts if (figure := part(found)) is not None]
    if not figures:
        return None
    return Section("mechanisms", "Why it transfers", figures=tuple(figures))


def clean(found: Measured) -> tuple[Section, ...]:
    """Return the clean images of each data set: classes, confidences, accuracy of every model."""
    several = len(found.clean) > 1
    return tuple(
        _clean(f"-{number}" if several else "", f": {data}" if several else "", models)
        for number, (data, models) in enumerate(found.clean.items(), 1)
        if models
    )


def _clean(end: str, data: str, models: Mapping[str, pd.DataFrame]) -> Section:
    """Return one data set; `end` and `data` tell it from others."""
    first = next(iter(models.values()))
    names = first.drop_duplicates("label").set_index("label")["name"]
    counts = class_counts(first)
    counts = counts.assign(name=names.loc[counts["label"]].to_numpy())
    profiles, classes = _stacked(models, confidence_profiles), _stacked(models, class_confidence)
    classes = classes.assign(
        name=names.loc[classes["label"]].to_numpy(),
        place=classes.groupby("model", sort=False).cumcount() + 1,
    )
    most, total = charts.MOST_CLASSES, int(counts["images"].sum())
    cut = f" The first {most} of {len(counts)} classes." if len(counts) > most else ""
    figures = (
        Figure(
            f"class-counts{end}",
            "Images per class",
            f"{total} images of {len(counts)} classes.{cut}",
            charts.class_counts_chart(counts),
            counts,
        ),
        Figure(
            f"confidence-profiles{end}",
            "Top five by initial confidence",
            "Mean probability of the first to fifth class of the clean images whose confidence is "
            "within 2.5 points of each level; whiskers: 10 % to 90 % of them.",
            charts.profiles_chart(profiles),
            profiles,
        ),
        Figure(
            f"class-confidence{end}",
            "Mean confidence per class",
            f"Of {total} clean images, in descending order.{cut}",
            charts.class_confidence_chart(classes),
            classes,
        ),
    )
    title = f"The clean images{data}"
    return Section(f"clean{end}", title, (), figures, (_top_table(models),))


def _spectra(found: Measured) -> Figure | None:
    rows = found.table("spectra")
    if rows.empty:
        return None
    rows = rows.assign(frequency=(rows["frequency_low"] + rows["frequency_high"]) / 2)
    caption = (
        f"Mean share of the power of {rows['n'].max()} images and of perturbations at the "
        "reference budget, by spatial frequency; the constant part is left out."
    )
    chart = charts.spectra_chart(rows)
    return Figure("spectra", "Power spectra of images and perturbations", caption, chart, rows)


def _filtered(found: Measured) -> Figure | None:
    rows = found.table("filtered")
    if rows.empty or (rows := rows[(rows["norm"] == "l2") & _enough(rows["n"])]).empty:
        return None
    rows = rows.assign(band=rows["band"].map(_PARTS))
    rows = rows.assign(row=_pairs(rows) + ", " + rows["band"])
    caption = (
        "Success rate of a perturbation's low, middle and high frequencies, each scaled to the L2 "
        "norm of the whole, minus that of the same part of random-sign noise, on "
        f"{rows['n'].min()} to {rows['n'].max()} images; Tango's 95 % interval."
    )
    chart = charts.filtered_chart(rows)
    return Figure("filtered", "Parts of perturbations beyond filtered noise", caption, chart, rows)


def _low_passed(found: Measured) -> Figure | None:
    rows = found.table("low_passed")
    if rows.empty:
        return None
    rows = rows.assign(target=rows["model"]).drop_duplicates(["model", "cutoff"])
    rows = rows.drop(columns=["attack", "source", "model"])
    caption = (
        f"Clean images without the frequencies above a cutoff; {rows['n'].max()} images, 95 % "
        "Wilson intervals."
    )
    chart = charts.low_pass_chart(rows, _NYQUIST)
    return Figure("low-passed", "Accuracy on low-passed clean images", caption, chart, rows)


def _similarity(found: Measured) -> Figure | None:
    rows = found.table("similarity")
    if rows.empty or (rows := rows[~rows["white_box"] & _enough(rows["n"])]).empty:
        return None
    caption = (
        f"Success rate at the reference budget over the mean cosine of the two models' loss "
        f"gradients on {rows['n'].min()} to {rows['n'].max()} clean images, and over the agreement "
        "of their errors; 95 % Wilson intervals. Pairs share models and images."
    )
    chart = charts.similarity_chart(rows)
    return Figure("similarity", "Transfer, gradients and errors", caption, chart, rows)


def _tests_table(tests: pd.DataFrame) -> Table:
    rows = tests.sort_values("p_holm", kind="stable").head(_MOST_ROWS)
    cut = f" The {len(rows)} smallest p of {len(tests)}." if len(rows) < len(tests) else ""
    shown = pd.DataFrame(
        {
            "compared": rows["row"],
            "on": rows["target"].fillna(rows["attack"]),
            "successes": [
                f"{a} and {b} of {n}"
                for a, b, n in zip(
                    rows["first_success"], rows["second_success"], rows["n"], strict=True
                )
            ],
            "difference": _intervals(rows, "difference", "+.1%"),
            "p (Holm)": ["n/a" if pd.isna(p) else f"{p:.2g}" for p in rows["p_holm"]],
        }
    )
    caption = (
        f"Two-sided exact McNemar tests, corrected by Holm over all of the same kind, data, "
        f"norm and budget.{cut}"
    )
    return Table("Differences as a table", caption, shown)


def _top_table(models: Mapping[str, pd.DataFrame]) -> Table:
    rows = _stacked(models, top_k)
    cells = zip(rows["correct"], rows["n"], strict=True)
    shown = pd.DataFrame(
        {
            "model": rows["model"],
            "": [f"top {k}" for k in rows["k"]],
            "accuracy": [format_cell(int(k), int(n)) for k, n in cells],
            "95 % interval": [
                f"{low:.1%} to {high:.1%}"
                for low, high in zip(rows["accuracy_low"], rows["accuracy_high"], strict=True)
            ],
            "mean confidence": [f"{value:.2%}" for value in rows["confidence"]],
        }
    )
    caption = (
        "Top 1: mean confidence in the prediction, over all images. Top 5: mean confidence in the "
        "true class, over the images where it is among the five."
    )
    return Table("Accuracy and confidence on clean images", caption, shown)


def _stacked(
    models: Mapping[str, pd.DataFrame], tell: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Put a table of each model below the others, with a column `model`."""
    tables = {model: tell(rows) for model, rows in models.items()}
    return pd.concat(tables, names=["model"]).reset_index("model").reset_index(drop=True)


def _pairs(rows: pd.DataFrame) -> pd.Series:
    """Name the pair of each row; a white box has an asterisk."""
    names = [
        f"{source} \N{RIGHTWARDS ARROW} {target}{' *' if is_white_box(source, target) else ''}"
        for source, target in zip(rows["source"], rows["target"], strict=True)
    ]
    return pd.Series(names, index=rows.index)


def _versus(rows: pd.DataFrame, form: str) -> list[str]:
    return [form.format(**row) for row in _records(rows)]


def _bin_names(bins: pd.DataFrame) -> list[str]:
    ends = zip(bins["bin_low"], bins["bin_high"], strict=True)
    return [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in ends]


def _effect(row: dict[str, Any]) -> str:
    """Return what one pair says of Hypothesis 1."""
    pair = f"{row['attack']}, {row['row']}: {row['flipped']} of {row['n']} images are fooled"
    if row["why"]:
        return f"{pair}; no rank correlation ({row['why']})."
    interval = f"[{row['rho_low']:.2f}, {row['rho_high']:.2f}]"
    return f"{pair}, rho = {row['rho']:.2f} {interval}: {row['verdict']}."


def _enough(n: pd.Series) -> pd.Series:
    """Tell where so many images give a rate an interval that is not wider than `WIDEST`."""
    low, high = wilson_interval(n.to_numpy() // 2, n.to_numpy())
    return pd.Series(high - low <= WIDEST, index=n.index)


def _too_few(n: pd.Series, what: str) -> str:
    return (
        f"Images counted for a pair: {n.max()} at most. The interval of a rate is then wider than "
        f"{100 * WIDEST:.0f} points, and nothing can be told {what}."
    )


def _intervals(rows: pd.DataFrame, name: str, form: str) -> list[str]:
    """Write values with their intervals, as far as there are any."""
    numbers = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    return [
        "n/a"
        if pd.isna(v)
        else f"{v:{form}}" + ("" if pd.isna(a) else f" [{a:{form}}, {b:{form}}]")
        for v, a, b in numbers
    ]


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
