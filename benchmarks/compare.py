"""Compare all libraries on one input and one attack, and print tables for 80 columns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.agreement import counted, counts, differences
from benchmarks.bench import OURS, Bench, Run
from benchmarks.inputs import Input

TIMES = {
    "whole, s": "{seconds:.1f}",
    f"/ {OURS} (range)": "{ratio:.2f} ({least:.2f}-{largest:.2f})",
    "loop, s": "{loop:.1f}",
    "MB": "{megabytes:.0f}",
    "/ bare calls": "{bare:.2f}",
}
AGREEMENT = {
    "cells differ": "{cells_differ}/{cells}",
    "largest": "{largest}",
    "predictions differ": "{predictions_differ}/{predictions}",
}
SPEEDS = {"gradient": "gradients", "bf16": "gradients_bf16", "forward": "predictions"}


def compare(
    bench: Bench,
    given: Input,
    attack: str,
    libraries: Sequence[str],
    rounds: int,
) -> dict[str, Any]:
    """Run, print and return one comparison.

    Args:
        bench: The folder, and the settings of all processes.
        given: Images and models; `bench.prepare` has seen them.
        attack: The attack.
        libraries: Ours, its variants and peers, ours first.
        rounds: Sweeps of each library; every round begins with another one.
    """
    turns = [(*libraries[i:], *libraries[:i]) for i in (n % len(libraries) for n in range(rounds))]
    runs = [
        bench.sweep(given, attack, library, number)
        for number, turn in enumerate(turns)
        for library in turn
    ]
    title = f"{given.name}, {attack}"
    needed = bench.needed(given, attack)
    timed = times(runs).loc[list(libraries)].assign(bare=lambda table: table["seconds"] / needed)
    show(f"{title}: medians of {rounds} rounds", timed, TIMES)
    rows = {one: counted(bench.predictions(given, attack, one)) for one in libraries}
    cells = {one: counts(table) for one, table in rows.items()}
    sides = {one: table.astype(str).agg("/".join, axis=1) for one, table in cells.items()}
    columns = {one: f"{{{one}}}" for one in libraries}
    show(f"{title}: still correct / jointly correct", pd.DataFrame(sides), columns)
    agreement = {one: differences(rows[OURS], rows[one]) for one in libraries[1:]}
    table = pd.DataFrame.from_dict(agreement, orient="index").rename_axis("library")
    show(f"{title}: agreement with {OURS}", table, AGREEMENT)
    return {
        **{"input": given.name, "attack": attack, "needed": needed},
        **{"runs": [run._asdict() for run in runs], "times": records(timed)},
        "agreement": agreement,
        "counts": {one: records(table) for one, table in cells.items()},
    }


def speeds(images: int, given: Input, bare: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Print and return how many gradients and predictions each network computes in a second.

    Args:
        images: Number of images that were timed.
        given: Images and models; `bench.prepare` has seen them.
        bare: From `benchmarks.gradients.calls`, in bfloat16 too.
    """
    found = (images / pd.DataFrame(bare)).rename(columns=SPEEDS).rename_axis("model")
    show(f"{given.name}, a second", found, {name: f"{{{name}:.3g}}" for name in SPEEDS.values()})
    return {"input": given.name, "speeds": records(found)}


def times(runs: Sequence[Run]) -> pd.DataFrame:
    """Return each library's medians over the rounds.

    They are `seconds`, `loop`, `megabytes`; `ratio`, `least` and `largest`, of the whole process
    over ours in the same round.
    """
    table = pd.DataFrame(runs)
    found = table.groupby("library")[["seconds", "loop", "megabytes"]].median()
    whole = table.pivot(index="round", columns="library", values="seconds")
    ratios = whole.div(whole[OURS], axis=0)
    return found.assign(ratio=ratios.median(), least=ratios.min(), largest=ratios.max())


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
