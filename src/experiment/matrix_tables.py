"""Transfer matrices, of rates and of excess over a control, for the terminal and CSV files."""

import pandas as pd
from rich import box
from rich.console import Console, Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from src.analysis import CLEAN, CONTROL_NAMES, format_excess, is_white_box

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
    counted = "still correct / denominator = robust accuracy"
    clean = "accuracy on all clean images"
    if matrix["targeted"].any():
        counted = "target class reached / denominator = targeted success rate"
        clean = "clean images already classified as their target label"
    caption = [counted, *([f"{CLEAN}: {clean}"] if (matrix["source"] == CLEAN).any() else [])]
    return _laid_out(matrix, heading, caption, width)


def excess_table(excess: pd.DataFrame, heading: str, width: int = 80) -> Group:
    """Lay out the excess over a control as `matrix_table` does.

    Args:
        excess: Rows of `src.analysis.excess_by_control` of one control and budget, with `source`.
        heading: Title of the table.
        width: Width of the terminal in characters.
    """
    cells = [format_excess(row) for _, row in excess.iterrows()]
    counted = "target class reached" if excess["targeted"].any() else "misclassified"
    caption = [
        f"({counted} by attack - by control) / denominator",
        "= difference of the rates [95 % interval, same images]",
    ]
    heading = f"excess transfer over {CONTROL_NAMES[excess['control'].iloc[0]]}\n{heading}"
    return _laid_out(excess.assign(cell=cells), heading, caption, width)


def wide_matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    """Turn the long matrix into a row per source, for spreadsheets.

    Returns:
        Columns `source`, one per target with the readable cells, then for each target its
        count (`TARGET still_correct`, or `TARGET success`), `TARGET denominator`, its rate
        (`TARGET robust_accuracy`; of a targeted attack `TARGET targeted_success_rate`) and the
        rate's 95 % interval, with `_low` and `_high`. A pair that was not run is empty; a rate
        with an empty denominator is NaN.
    """
    sources, targets = matrix["source"].unique(), matrix["target"].unique()
    targeted = matrix["targeted"].any()
    count, rate = (
        ("success", "targeted_success_rate") if targeted else ("still_correct", "robust_accuracy")
    )
    names = {"k": count, "n": "denominator", "rate": rate}
    names |= {f"rate{end}": f"{rate}{end}" for end in ("_low", "_high")}
    pivoted = matrix.astype({"k": "Int64", "n": "Int64"}).pivot(index="source", columns="target")
    columns = {
        f"{target} {name}": pivoted[column, target]
        for target in targets
        for column, name in names.items()
    }
    wide = pivoted["cell"][targets].assign(**columns).loc[sources]
    return wide.rename_axis("source").reset_index()


def _laid_out(matrix: pd.DataFrame, heading: str, caption: list[str], width: int) -> Group:
    """Take the first that fits of a grid and a list, their cells on one line or folded."""
    sources, targets = matrix["source"].unique(), matrix["target"].unique()
    names = zip(matrix["source"], matrix["target"], strict=True)
    marks = [WHITE_BOX_MARK if is_white_box(*pair) else "" for pair in names]
    if any(marks):
        caption = [*caption, f"{WHITE_BOX_MARK} white box: the target is the source or part of it"]
    pairs = matrix[["source", "target"]].assign(cell=marks + matrix["cell"])
    grid = pairs.pivot(index="source", columns="target", values="cell").loc[sources, targets]
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
