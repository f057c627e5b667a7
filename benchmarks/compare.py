"""Compare all libraries on one input and one attack, and print tables for 80 columns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks import STEPS
from benchmarks.agreement import CELL, counted, counts, differences, paired
from benchmarks.bench import BUDGETS_255, OURS, Bench, Run
from benchmarks.inputs import Input

REFERENCE_255 = 8
TIMES = {
    "whole, s": "{seconds:.1f}",
    f"/ {OURS} (range)": "{ratio:.2f} ({least:.2f}-{largest:.2f})",
    "loop, s": "{loop:.1f}",
    "calls / loop": "{share:.0%}",
    "MB": "{megabytes:.0f}",
}
AGREEMENT = {
    "cells differ": "{cells_differ}/{cells}",
    "largest": "{largest}",
    "predictions differ": "{predictions_differ}/{predictions}",
}
SPEEDS = {"gradient": "gradients", "bf16": "gradients_bf16", "forward": "predictions"}
PAIRED = {
    "n": "{n}",
    "only one succeeds": "{second_only}/{first_only}",
    "points [95 %]": "{difference:+.1f} [{low:+.1f}, {high:+.1f}]",
    "p": "{p:.2g}",
}
_WHY = {
    ("mi", "foolbox"): "it adds up signs of gradients",
    **{("pgd", one): "random starts" for one in ("torchattacks", "foolbox", "art")},
}


def compare(
    bench: Bench,
    given: Input,
    attack: str,
    libraries: Sequence[str],
    rounds: int,
    bare: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Run, print and return one comparison.

    Args:
        bench: Where and how.
        given: Images and models; `bench.prepare` has seen them.
        attack: The attack.
        libraries: Ours, its variants and peers, ours first.
        rounds: How often each sweeps; every round begins with another library.
        bare: From `benchmarks.gradients.calls`.
    """
    turns = [(*libraries[i:], *libraries[:i]) for i in (n % len(libraries) for n in range(rounds))]
    runs = [
        bench.sweep(given, attack, library, number)
        for number, turn in enumerate(turns)
        for library in turn
    ]
    title = f"{given.name}, {attack}"
    timed = times(runs, needed(attack, bare)).loc[list(libraries)]
    show(f"{title}: medians of {rounds} rounds", timed, TIMES)
    rows = {one: counted(bench.predictions(given, attack, one)) for one in libraries}
    cells = {one: counts(table) for one, table in rows.items()}
    sides = {one: table.astype(str).agg("/".join, axis=1) for one, table in cells.items()}
    columns = {one: f"{{{one}}}" for one in libraries}
    show(f"{title}: still correct / jointly correct", pd.DataFrame(sides), columns)
    agreement = {
        one: differences(rows[OURS], rows[one]) | _why(bench, given, attack, one)
        for one in libraries[1:]
    }
    table = pd.DataFrame.from_dict(agreement, orient="index").rename_axis("library")
    show(f"{title}: agreement with {OURS}", table, AGREEMENT)
    for one, found in agreement.items():
        print(f"{one}: {found['why']}")
    variants = {
        one: _paired(f"{title}: {one}", rows[OURS], rows[one])
        for one in libraries[1:]
        if one in bench.variants
    }
    return {
        **{"input": given.name, "attack": attack, "runs": [run._asdict() for run in runs]},
        **{"times": records(timed), "agreement": agreement, "variants": variants},
        "counts": {one: records(table) for one, table in cells.items()},
    }


def speeds(images: int, given: Input, bare: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Print and return how many gradients and predictions each network computes in a second.

    Args:
        images: How many were timed.
        given: Images and models; `bench.prepare` has seen them.
        bare: From `benchmarks.gradients.calls`, in bfloat16 too.
    """
    found = (images / pd.DataFrame(bare)).rename(columns=SPEEDS).rename_axis("model")
    show(f"{given.name}, a second", found, {name: f"{{{name}:.3g}}" for name in SPEEDS.values()})
    return {"input": given.name, "speeds": records(found)}


def needed(attack: str, bare: Mapping[str, Mapping[str, float]]) -> float:
    """Return the seconds that a sweep's network calls alone need.

    These are K classifications of each image for every pair of source and target, and for every
    source 1 gradient (FGSM), K S (PGD) or 1 + K (S - 1), as all budgets share that of the clean
    image: K budgets, S steps.
    """
    budgets, gradient = len(BUDGETS_255), bare["gradient"]
    each = {"fgsm": 1, "pgd": budgets * STEPS}.get(attack, 1 + budgets * (STEPS - 1))
    return each * sum(gradient.values()) + budgets * len(gradient) * sum(bare["forward"].values())


def times(runs: Sequence[Run], bare: float) -> pd.DataFrame:
    """Return each library's medians over the rounds.

    Args:
        runs: Of all libraries and rounds.
        bare: Seconds of the network calls alone.

    Returns:
        By library: `seconds`, `loop`, `megabytes`; `share`, what `bare` is of the loop; `ratio`,
        `least` and `largest`, of the whole process over ours in the same round.
    """
    table = pd.DataFrame(runs)
    found = table.groupby("library")[["seconds", "loop", "megabytes"]].median()
    whole = table.pivot(index="round", columns="library", values="seconds")
    ratios = whole.div(whole[OURS], axis=0)
    found = found.assign(ratio=ratios.median(), least=ratios.min(), largest=ratios.max())
    return found.assign(share=bare / found["loop"])


def show(title: str, table: pd.DataFrame, columns: Mapping[str, str]) -> None:
    """Print a table: its index, then columns, each a format of the row's values."""
    shown = Table(title=title, title_justify="left")
    for name in table.index.names:
        shown.add_column(str(name))
    for name in columns:
        shown.add_column(name, justify="right")
    for key, row in zip(table.index.to_frame().to_numpy(), table.to_dict("records"), strict=True):
        names = (f"{one:g}" if isinstance(one, float) else str(one) for one in key)
        shown.add_row(*names, *(text.format_map(row) for text in columns.values()))
    Console().print(shown)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON has them."""
    found: list[dict[str, Any]] = json.loads(table.reset_index().to_json(orient="records"))
    return found


def _paired(title: str, ours: pd.DataFrame, variant: pd.DataFrame) -> dict[str, Any]:
    """Print and return how the success of a variant differs from ours."""
    by_budget, every = (paired(ours, variant, by) for by in (CELL, CELL[:2]))
    reference = by_budget.query("eps_255 == @REFERENCE_255").droplevel("eps_255")
    show(f"{title}, success minus that of {OURS}, eps {REFERENCE_255}", reference, PAIRED)
    show("The same of all budgets, as if these were independent", every, PAIRED)
    return {"by_budget": records(by_budget), "all_budgets": records(every)}


def _why(bench: Bench, given: Input, attack: str, library: str) -> dict[str, Any]:
    """Say why counts may differ; of FGSM and BIM after a look at the images."""
    if library in bench.variants:
        return {"why": " ".join(bench.variants[library])}
    if attack not in ("fgsm", "bim"):
        return {"why": _WHY.get((attack, library), "rounding")}
    more = {"attack": attack, "library": library, "eps_255": REFERENCE_255}
    found = bench.asked("signs", given, **more)
    why = (
        f"{found['images_differ']} of {found['images']} images at eps {REFERENCE_255}; at clean "
        f"ones {found['signs_differ']} of {found['signs']} signs, of gradients up to "
        f"{found['largest']:.0e} of the image's largest"
    )
    return {"why": why, "signs": found}
