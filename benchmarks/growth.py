"""Growth of time and memory of the program's sweep with images, budgets and targets."""

from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd
from scipy.optimize import nnls

from benchmarks.bench import OURS, Bench
from benchmarks.compare import records, show
from benchmarks.inputs import Input

TIMES = (1, 10, 50)
"""Factors of the number of images."""
BUDGETS = (1, 2, 4, 8)
NUMBERS = ["images", "budgets", "targets"]
MEASURED = {"seconds": "images", "megabytes": "targets"}
"""Columns that are fitted, and the number whose every unit costs something of them."""
SCALES: tuple[Literal["log", "linear"], ...] = ("log", "linear")


def growth(bench: Bench, given: Input) -> dict[str, Any]:
    """Time the program's FGSM of one source while one number grows, and fit what it takes.

    Predictions are images x targets x (budgets + 1). Seconds are a start and the costs of an image
    (its gradient) and of a prediction, the peak memory what is always there, a target's and a
    prediction's.
    """
    one = {"images": bench.images, "budgets": 1, "targets": 1}
    changes = [{"images": bench.images * times} for times in TIMES]
    changes += [{"budgets": number} for number in BUDGETS[1:]]
    changes += [{"targets": number} for number in range(2, len(given.models) + 1)]
    runs = pd.DataFrame([one | change for change in changes])
    for row, (images, budgets, targets) in enumerate(runs[NUMBERS].itertuples(index=False)):
        words = [
            f"n_images={images}",
            f"epsilon.grid=[{','.join(map(str, range(budgets + 1)))}]",
            f"targets=[{','.join(given.models[:targets])}]",
        ]
        run = bench.ours(given, "fgsm", OURS, 0, words, given.models[:1])
        runs.loc[row, [*MEASURED]] = run.seconds, run.megabytes
    columns = {name: f"{{{name}:.0f}}" for name in [*NUMBERS, *MEASURED]}
    table = runs.rename_axis("run")
    show(f"{given.name}, fgsm of {given.models[0]}", table, columns)
    formulas = {name: _fitted(runs, name) for name in MEASURED}
    for name, (start, one_more, prediction) in formulas.items():
        print(f"{name} = {start:.4g} + {one_more:.3g} x {MEASURED[name]} ", end="")
        print(f"+ {prediction:.3g} x predictions (images x targets x (budgets + 1))")
        runs[f"{name} by the formula"] = _terms(runs, name) @ formulas[name]
    drawn(runs).save(bench.folder / f"growth-{given.name}.png", scale_factor=2)
    fitted = {name: list(formula) for name, formula in formulas.items()}
    return {"input": given.name, "growth": records(runs), "formulas": fitted}


def _terms(runs: pd.DataFrame, name: str) -> np.ndarray:
    predictions = runs["images"] * runs["targets"] * (runs["budgets"] + 1)
    return np.column_stack([np.ones(len(runs)), runs[MEASURED[name]], predictions])


def _fitted(runs: pd.DataFrame, name: str) -> np.ndarray:
    """Return the three costs, none below 0, with the least squares of relative errors."""
    measured = runs[name].to_numpy()
    return nnls(_terms(runs, name) / measured[:, None], np.ones(len(runs)))[0]


def drawn(runs: pd.DataFrame) -> alt.VConcatChart:
    """Draw a panel for each number that grows: what was measured, and the formula's line."""
    rows = []
    for name, kind in zip(MEASURED, SCALES, strict=True):
        panels = []
        for number in NUMBERS:
            others = [other for other in NUMBERS if other != number]
            same = runs[(runs[others] == runs[others].min()).all(axis=1)]
            scale = alt.Scale(type="log" if number == "images" else "linear", zero=False)
            x = alt.X(f"{number}:Q", scale=scale, axis=alt.Axis(values=list(same[number])))
            base = alt.Chart(same, width=150, height=130).encode(x=x)
            y = alt.Y(f"{name}:Q", title=name, scale=alt.Scale(type=kind))
            line = base.mark_line(opacity=0.5).encode(y=f"{name} by the formula:Q")
            panels.append(alt.layer(line, base.mark_point(filled=True, size=50).encode(y=y)))
        rows.append(alt.hconcat(*panels).resolve_scale(y="shared"))
    return alt.vconcat(*rows)
