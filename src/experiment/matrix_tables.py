"""Transfer matrices, of rates and of excess over a control, for the terminal and CSV files."""

from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.console import Console, Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from src.analysis import CLEAN, CONTROL_NAMES, MEASURES, is_white_box
from src.analysis.matrices import is_targeted, measure_of, words_of

WHITE_BOX_MARK = "*"


def matrix_table(matrix: pd.DataFrame, heading: str, width: int = 80) -> Group:
    """Lay out a transfer matrix for the terminal.

    A cell reads `k / n = rate`; the caption names what is counted. White boxes, whose
    target is the source or a member of it, are marked `*`.

    Args:
        matrix: Result of `src.analysis.matrix`.
        heading: Title of the table.
        width: Width of the terminal in characters. Where a row per source and a column per
            target are too wide for it, each pair has a row.
    """
    words = words_of(measure_of(matrix), is_targeted(matrix))
    clean = [f"{CLEAN}: {words.clean}"] if (matrix["source"] == CLEAN).any() else []
    counted = f"{words.counted} / denominator = {words.rate}"
    return _laid_out(matrix, words.rate, heading, [counted, *clean], width)


def excess_table(matrix: pd.DataFrame, heading: str, control: str, width: int = 80) -> Group:
    """Lay out the excess over a control, one of `CONTROL_NAMES`, as `matrix_table` does.

    A cell reads `(attack - control) / n = difference of the rates [95 % interval]`.
    """
    words = words_of("success_rate", is_targeted(matrix))
    counted = [
        f"({words.counted} by attack - by control) / denominator",
        "= difference of the rates [95 % interval, same images]",
    ]
    heading = f"excess transfer over {CONTROL_NAMES[control]}\n{heading}"
    return _laid_out(matrix, "excess", heading, counted, width)


def wide_matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    """Turn the long matrix into a row per source, for spreadsheets.

    Returns:
        Columns `source`, one per target with the readable cells, then for each target its
        count (`TARGET still_correct`, or `TARGET success`), `TARGET denominator`, its rate
        (`TARGET robust_accuracy`, or `TARGET success_rate`; of a targeted attack
        `TARGET targeted_success_rate`) and the rate's 95 % interval, with `_low` and `_high`.
        A pair that was not run is empty; a rate with an empty denominator is NaN.
    """
    measure = measure_of(matrix)
    rates = [measure, f"{measure}_low", f"{measure}_high"]
    if measure == "success_rate" and is_targeted(matrix):
        matrix = matrix.rename(columns={rate: f"targeted_{rate}" for rate in rates})
        rates = [f"targeted_{rate}" for rate in rates]
    return _wide(matrix, [MEASURES[measure], "denominator"], rates)


def wide_excess(matrices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Turn long matrices of excess into a row per control and source, for spreadsheets.

    Args:
        matrices: Result of `src.analysis.excess_matrix` by control, at least one.

    Returns:
        Columns `control` (the control in words), `source`, one per target with the readable
        cells, then for each target `TARGET success`, `TARGET control`, `TARGET denominator`,
        `TARGET excess` and its 95 % interval, `TARGET excess_low` and `_high`.
    """
    counts, rates = ["success", "control", "denominator"], ["excess", "excess_low", "excess_high"]
    tables = {CONTROL_NAMES[name]: _wide(one, counts, rates) for name, one in matrices.items()}
    return pd.concat(tables, names=["control"]).reset_index("control").reset_index(drop=True)


def _wide(matrix: pd.DataFrame, counts: Sequence[str], rates: Sequence[str]) -> pd.DataFrame:
    """Lay a long matrix out in a row per source: all cells first, then each target's numbers."""
    sources, targets = matrix["source"].unique(), matrix["target"].unique()
    whole = matrix.astype(dict.fromkeys(counts, "Int64"))
    names = [*counts, *rates]
    pivots = {name: whole.pivot(index="source", columns="target", values=name) for name in names}
    columns = {f"{target} {name}": pivots[name][target] for target in targets for name in names}
    cells = whole.pivot(index="source", columns="target", values="cell")[targets]
    return cells.assign(**columns).loc[sources].rename_axis("source").reset_index()


def _laid_out(
    matrix: pd.DataFrame, rate: str, heading: str, caption: list[str], width: int
) -> Group:
    """Take the first that fits of a grid and a list, their cells on one line or folded."""
    sources, targets = matrix["source"].unique(), matrix["target"].unique()
    names = zip(matrix["source"], matrix["target"], strict=True)
    marks = [WHITE_BOX_MARK if is_white_box(*pair) else "" for pair in names]
    if any(marks):
        caption = [*caption, f"{WHITE_BOX_MARK} white box: the target is the source or part of it"]
    pairs = matrix[["source", "target"]].assign(**{rate: marks + matrix["cell"]})
    grid = pairs.pivot(index="source", columns="target", values=rate).loc[sources, targets]
    grid = grid.fillna("-").add_prefix("-> ").reset_index()
    tables = (_table(frame, fold) for frame in (grid, pairs) for fold in (" = ", "\n= "))
    room = Console(width=10_000)
    for table in tables:  # if none fits, rich folds the last
        if room.measure(table).maximum <= width:
            break
    return Group(Text(heading, style="bold"), table, Text("\n".join(caption), style="italic"))


def _table(frame: pd.DataFrame, fold: str) -> Table:
    """Turn names and cells into a table; sources of more than one line are set apart."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in frame.columns:
        side: JustifyMethod = "left" if column in ("source", "target") else "right"
        table.add_column(Text(column), justify=side, overflow="fold")
    spaced = fold != " = " or "target" in frame.columns
    following = [*frame["source"][1:], None]
    for row, source in zip(frame.itertuples(index=False, name=None), following, strict=True):
        texts = [Text(text.replace(" = ", fold)) for text in row]  # no str: it would style [..]
        table.add_row(*texts, end_section=spaced and row[0] != source)
    return table
