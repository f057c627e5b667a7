"""The transfer matrix as a terminal table and as a CSV file."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from src.analysis.rates import CLEAN, format_cell
from src.files import whole_file

WHITE_BOX_MARK = "*"
_WHITE_BOX_STYLE = "bold italic"
_CORNER = "made on"
_GAP = 1  # space between two columns, beside the place of the white-box mark


def matrix_table(
    matrix: pd.DataFrame,
    *,
    dataset: str,
    attack: str,
    protocol: str,
    eps_255: float,
    width: int = 80,
) -> Table:
    """Lay out a transfer matrix for the terminal, rows = made on, columns = shown to.

    A cell reads `still correct / denominator = robust accuracy`. It takes one line where
    `width` allows it, else two (counts, rate) or three. Matrices too wide even for that are
    written as a list, one line per source and target, so that nothing is cut off.

    Args:
        matrix: Result of `src.analysis.rates.matrix`.
        dataset: Name of the data set, for the title.
        attack: Name of the attack, for the title.
        protocol: Which images form the denominator, for the title.
        eps_255: Budget in units of 1/255, for the title.
        width: Width of the terminal in characters.

    Returns:
        Table whose white-box cells (source = target) are bold italic and marked `*`.
    """
    layouts: tuple[Callable[[int, int], str], ...] = (format_cell, _two_lines, _three_lines)
    table = None
    for layout in layouts:
        candidate = _grid(matrix, layout)
        if _width(candidate) <= width:
            table = candidate
            break
    if table is None:
        table = _list(matrix)
    title = Text(f"{attack} on {dataset}, eps = {eps_255:g}/255, protocol: {protocol}")
    caption = (
        "still correct / denominator = robust accuracy\n"
        f"{WHITE_BOX_MARK} white box: source = target\n"
        f"{CLEAN}: accuracy on all clean images"
    )
    # rich folds title and caption to the columns' width, which may be narrower than they are.
    table.title, table.caption = title, caption
    table.min_width = min(width, max(len(title), *map(len, caption.split("\n"))))
    return table


def wide_matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    """Turn the long matrix into a row per source, for spreadsheets.

    Returns:
        Columns `made on`, one per target with the readable cells, then for each target
        `TARGET still_correct`, `TARGET denominator`, `TARGET robust_accuracy` and its
        95 % interval, `TARGET robust_accuracy_low` and `_high`. A pair that was not run
        is empty; a rate with an empty denominator is NaN.
    """
    sources, targets = _names(matrix)
    keyed = matrix.set_index(["source", "target"])

    def column(target: str, name: str) -> pd.Series:
        return keyed[name].xs(target, level="target").reindex(sources)

    columns = {target: column(target, "cell") for target in targets}
    for target in targets:
        for name in ("still_correct", "denominator"):
            columns[f"{target} {name}"] = column(target, name).astype("Int64")
        for name in ("robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"):
            columns[f"{target} {name}"] = column(target, name)
    return pd.DataFrame(columns, index=pd.Index(sources, name=_CORNER)).reset_index()


def write_matrix_csv(matrix: pd.DataFrame, path: Path) -> None:
    """Write `wide_matrix` as CSV (UTF-8), whole or not at all."""
    with whole_file(path) as temporary:
        wide_matrix(matrix).to_csv(temporary, index=False, lineterminator="\n")


def _grid(matrix: pd.DataFrame, layout: Callable[[int, int], str]) -> Table:
    """Build the matrix with one column per target."""
    sources, targets = _names(matrix)
    names = zip(matrix["source"].tolist(), matrix["target"].tolist(), strict=True)
    counts = zip(matrix["still_correct"].tolist(), matrix["denominator"].tolist(), strict=True)
    cells = dict(zip(names, counts, strict=True))
    table = _empty_table()
    table.add_column(_CORNER, no_wrap=True)
    for target in targets:
        table.add_column(Text(f"{target} "), justify="right", overflow="fold")
    for source in sources:
        texts = []
        for target in targets:
            pair = cells.get((source, target))
            text = "-" if pair is None else layout(*pair)
            texts.append(_marked(text, source == target))
        table.add_row(Text(source), *texts, end_section=source == CLEAN)
    return table


def _list(matrix: pd.DataFrame) -> Table:
    """Build a list with one line per source and target."""
    table = _empty_table()
    table.add_column(f"{_CORNER} ", overflow="fold")
    table.add_column("shown to ", overflow="fold")
    table.add_column("robust accuracy ", justify="right", no_wrap=True)
    sources, targets = matrix["source"].tolist(), matrix["target"].tolist()
    cells, following = matrix["cell"].tolist(), [*sources[1:], None]
    for source, target, cell, after in zip(sources, targets, cells, following, strict=True):
        names = (Text(source), Text(target))  # a plain str would take [..] as a style
        table.add_row(*names, _marked(cell, source == target), end_section=source != after)
    return table


def _empty_table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        title_style="bold",
        title_justify="left",
        caption_justify="left",
    )


def _width(table: Table) -> int:
    """Measure the width that a table needs with no column folded."""
    columns = []
    for column in table.columns:
        lines = [str(column.header)]
        for cell in column.cells:
            lines += str(cell).split("\n")
        columns.append(max(len(line) for line in lines))
    return sum(columns) + _GAP * (len(columns) - 1)


def _marked(text: str, white_box: bool) -> Text:
    """Mark a cell without colours too, keeping the digits of a column aligned."""
    mark = WHITE_BOX_MARK if white_box else " "
    lines = text.split("\n")
    marked = "\n".join([*(f"{line} " for line in lines[:-1]), f"{lines[-1]}{mark}"])
    return Text(marked, style=_WHITE_BOX_STYLE if white_box else "")


def _two_lines(k: int, n: int) -> str:
    counts, rate = format_cell(k, n).split(" = ")
    return f"{counts}\n= {rate}"


def _three_lines(k: int, n: int) -> str:
    counts, rate = format_cell(k, n).split(" = ")
    right, total = counts.split(" / ")
    return f"{right}\n/ {total}\n{rate}"


def _names(matrix: pd.DataFrame) -> tuple[list[str], list[str]]:
    return list(matrix["source"].unique()), list(matrix["target"].unique())
