"""The transfer matrix as text and colour, at every budget and protocol, for the template."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from src.report.content import Matrix
from src.report.ink import ink_on
from src.report.style import budget

_SCALE = colormaps["viridis"]
SCALE_STOPS = ",".join(to_hex(_SCALE(step / 10)) for step in range(11))
"""Colours from 0 to 100 %, for the scale under a matrix."""

_SPACE = "\u00a0"
_EMPTY, _NOT_RUN = "no image", "not run"
_ROOMY, _TIGHT = 4, 8  # so many columns leave room for whole cells, and for more than the rate

_COUNTED = {
    "all": "images count whatever the models say of them when clean",
    "source_correct": "images that the source classifies correctly when clean",
    "target_correct": "images that the target classifies correctly when clean",
    "joint": "images that source and target both classify correctly when clean",
}
_CLEAN_STAYS = "The row of clean images is the same for every choice."

_Cells = Mapping[tuple[str, str, str, float], Any]


def matrix_parts(matrix: Matrix, anchors: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Prepare the cells of a matrix.

    Args:
        matrix: The matrix.
        anchors: Where cells lead, by attack, source and target; some may lead nowhere.

    Returns:
        `matrix`, `targets`, `rows` (each a source and its cells), `budgets` (as text),
        `standard` (the place among them that is shown first), `protocols`, `explained` (what
        the one that is shown first counts), `room` (what fits into a cell: `all`, `most` or
        `rate`), `white_box` (whether there is one) and `data`, what the page's script recolours
        the cells with: the states of a cell are lists by protocol of lists by budget.

    Raises:
        ValueError: The standard budget or the protocol has no cells, or a cell is there twice.
    """
    budgets = _budgets(matrix)
    standard = budgets.index(matrix.standard) if budgets else 0
    protocols = _protocols(matrix)
    first = protocols.index(matrix.protocol)
    frame = matrix.cells
    cells: _Cells = {
        (cell["protocol"], cell["source"], cell["target"], float(cell["eps_255"])): cell
        for cell in frame.to_dict("records")
    }
    targets = list(dict.fromkeys(frame["target"]))
    rows = []
    for source in dict.fromkeys(frame["source"]):
        row = [_cell(cells, protocols, source, target, budgets) for target in targets]
        for cell in row:
            states = cell["states"][first]
            cell["shown"] = states[min(standard, len(states) - 1)]
            cell["anchor"] = anchors.get((matrix.attack, source, cell["target"]))
        rows.append((source, row))
    everything = [cell for _, row in rows for cell in row]
    for number, cell in enumerate(everything):
        cell["number"] = number
    names = [budget(eps) for eps in budgets]
    has_clean = any(cell["clean"] for cell in everything)
    explained = [_explained(one, has_clean and len(protocols) > 1) for one in protocols]
    script = {
        "attack": matrix.attack,
        "counted": matrix.counted,
        "rate": matrix.rate,
        "budgets": names,
        "protocols": protocols,
        "explained": explained,
        "cells": [
            {key: cell[key] for key in ("source", "target", "clean", "white_box", "states")}
            for cell in everything
        ],
    }
    room = "all" if len(targets) <= _ROOMY else "most" if len(targets) <= _TIGHT else "rate"
    return {
        "matrix": matrix,
        "targets": targets,
        "rows": rows,
        "budgets": names,
        "standard": standard,
        "protocols": protocols,
        "explained": explained[first],
        "room": room,
        "white_box": any(cell["white_box"] for cell in everything),
        "data": script,
    }


def _budgets(matrix: Matrix) -> list[float]:
    """Return the budgets of attacked cells, rising."""
    key = ["source", "target", "eps_255", "protocol"]
    repeated = matrix.cells.duplicated(key)
    if repeated.any():
        source, target, eps, protocol = matrix.cells.loc[repeated, key].iloc[0]
        raise ValueError(
            f"the matrix of '{matrix.attack}' has two cells for source '{source}', target "
            f"'{target}', eps_255 {eps:g} and protocol '{protocol}'; there may be one."
        )
    budgets = sorted({float(eps) for eps in matrix.cells["eps_255"]} - {0.0})
    if budgets and matrix.standard not in budgets:
        known = ", ".join(f"{eps:g}" for eps in budgets)
        raise ValueError(
            f"the matrix of '{matrix.attack}' has no cell at its standard budget "
            f"{matrix.standard:g}; its budgets are {known}."
        )
    return budgets


def _protocols(matrix: Matrix) -> list[str]:
    """Return the protocols of the cells, in their order."""
    protocols = list(dict.fromkeys(matrix.cells["protocol"])) or [matrix.protocol]
    if matrix.protocol not in protocols:
        raise ValueError(
            f"the matrix of '{matrix.attack}' has no cell of its protocol '{matrix.protocol}'; "
            f"its protocols are {', '.join(protocols)}."
        )
    return protocols


def _explained(protocol: str, clean_stays: bool) -> str:
    """Say which images a protocol counts."""
    known = _COUNTED.get(protocol)
    words = f"{protocol}: {known}." if known else f"{protocol}."
    return f"{words} {_CLEAN_STAYS}" if clean_stays else words


def _cell(
    cells: _Cells, protocols: list[str], source: str, target: str, budgets: list[float]
) -> dict[str, Any]:
    """Prepare one cell; where there are only clean images, its state is one for all budgets."""
    attacked = [[cells.get((one, source, target, eps)) for eps in budgets] for one in protocols]
    clean = [cells.get((one, source, target, 0.0)) for one in protocols]
    is_clean = any(clean) and not any(map(any, attacked))
    rows = [[cell] for cell in clean] if is_clean or not budgets else attacked
    return {
        "source": source,
        "target": target,
        "clean": is_clean,
        "white_box": any(bool(cell["white_box"]) for row in attacked for cell in row if cell),
        "states": [[_state(cell) for cell in row] for row in rows],
    }


def _state(cell: Any | None) -> dict[str, str]:
    """Write a cell at one budget; it has no colour where nothing was counted."""
    if cell is None:
        return {"rate": _NOT_RUN}
    if math.isnan(cell["rate"]):
        return {"rate": _EMPTY}
    fill = to_hex(_SCALE(float(cell["rate"])))
    state = {
        "count": f"{int(cell['count'])}{_SPACE}/{_SPACE}{int(cell['denominator'])}",
        "rate": _percent(cell["rate"]),
        "fill": fill,
        "ink": ink_on(fill),
    }
    if not math.isnan(cell["low"]):
        state["interval"] = f"{100 * cell['low']:.2f} to {_percent(cell['high'])}"
    return state


def _percent(share: float) -> str:
    return f"{100 * share:.2f}{_SPACE}%"
