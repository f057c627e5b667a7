"""Transfer matrices, of rates and of excess over a control, in the terminal and as CSV files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from src.analysis import CLEAN, CONTROL_NAMES, MEASURES, is_white_box
from src.analysis.matrix import is_targeted, measure_of, words_of
from src.files import write_csv

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

    A cell reads `still correct / denominator = robust accuracy`, or of a success rate
    `misclassified / denominator`, or for targeted attacks `target class reached /
    denominator`; the caption says which. It takes one line where `width` allows it, else two
    (counts, rate) or three. Matrices too wide even for that are written as a list, one line
    per source and target, so that nothing is cut off.

    Args:
        matrix: Result of `src.analysis.rates.matrix`.
        dataset: Name of the data set, for the title.
        attack: Name of the attack, for the title.
        protocol: Which images form the denominator, for the title.
        eps_255: Budget in units of 1/255, for the title.
        width: Width of the terminal in characters.

    Returns:
        Table whose white-box cells (the target is the source, or a member of an ensemble) are bold
        italic and marked `*`.
    """
    words = words_of(measure_of(matrix), is_targeted(matrix))
    title = f"{attack} on {dataset}, eps = {eps_255:g}/255, protocol: {protocol}"
    caption = (
        f"{words.counted} / denominator = {words.rate}",
        *_white_box_key(matrix),
        *([f"{CLEAN}: {words.clean}"] if (matrix["source"] == CLEAN).any() else []),
    )
    layouts = (_one_line, _two_lines, _three_lines)
    return _fitting(matrix, layouts, words.rate, title, caption, width)


def excess_table(
    matrix: pd.DataFrame,
    *,
    dataset: str,
    attack: str,
    protocol: str,
    eps_255: float,
    control: str = "noise",
    width: int = 80,
) -> Table:
    """Lay out the excess over a control for the terminal, rows = made on, columns = shown to.

    A cell reads `(attack - control) / denominator = difference of the rates [95 % interval]`,
    on as many lines as `width` needs; see `matrix_table`.

    Args:
        matrix: Result of `src.analysis.excess_matrix`.
        dataset: Name of the data set, for the title.
        attack: Name of the attack, for the title.
        protocol: Which images form the denominator, for the title.
        eps_255: Budget in units of 1/255, for the title.
        control: Which control was subtracted, `noise` or `shuffled`.
        width: Width of the terminal in characters.

    Returns:
        Table whose white-box cells are bold italic and marked `*`.

    Raises:
        ValueError: The control is unknown.
    """
    words = words_of("success_rate", is_targeted(matrix))
    title = (
        f"excess transfer over {_control_name(control)}\n"
        f"{attack} on {dataset}, eps = {eps_255:g}/255, protocol: {protocol}"
    )
    caption = (
        f"({words.counted} by attack - by control) / denominator",
        "= difference of the rates [95 % interval, same images]",
        *_white_box_key(matrix),
    )
    layouts = (_one_line, _two_lines, _two_lines_and_interval, _four_lines)
    return _fitting(matrix, layouts, "excess", title, caption, width)


def wide_matrix(matrix: pd.DataFrame) -> pd.DataFrame:
    """Turn the long matrix into a row per source, for spreadsheets.

    Returns:
        Columns `made on`, one per target with the readable cells, then for each target its
        count (`TARGET still_correct`, or `TARGET success`), `TARGET denominator`, its rate
        (`TARGET robust_accuracy`, or `TARGET success_rate`; of a targeted attack
        `TARGET targeted_success_rate`) and the rate's 95 % interval, with `_low` and `_high`.
        A pair that was not run is empty; a rate with an empty denominator is NaN.
    """
    measure = measure_of(matrix)
    prefix = "targeted_" if measure == "success_rate" and is_targeted(matrix) else ""
    columns = {name: prefix + name for name in (measure, f"{measure}_low", f"{measure}_high")}
    return _wide(matrix, (MEASURES[measure], "denominator"), columns)


def wide_excess(matrices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Turn long matrices of excess into a row per control and source, for spreadsheets.

    Args:
        matrices: Result of `src.analysis.excess_matrix` by control, the headline first.

    Returns:
        Columns `over` (the control in words), `made on`, one per target with the readable
        cells, then for each target `TARGET success`, `TARGET control`, `TARGET denominator`,
        `TARGET excess` and its 95 % interval, `TARGET excess_low` and `_high`.

    Raises:
        ValueError: There is no control, or an unknown one.
    """
    if not matrices:
        raise ValueError("a table of excess needs at least one control, got none.")
    shares = {name: name for name in ("excess", "excess_low", "excess_high")}
    tables = []
    for control, matrix in matrices.items():
        table = _wide(matrix, ("success", "control", "denominator"), shares)
        table.insert(0, "over", _control_name(control))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def write_matrix_csv(matrix: pd.DataFrame, path: Path) -> None:
    """Write `wide_matrix` as CSV (UTF-8), whole or not at all."""
    write_csv(path, wide_matrix(matrix))


def write_excess_csv(matrices: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Write `wide_excess` as CSV (UTF-8), whole or not at all."""
    write_csv(path, wide_excess(matrices))


def _wide(matrix: pd.DataFrame, counts: Iterable[str], shares: Mapping[str, str]) -> pd.DataFrame:
    """Lay cells, counts and shares (renamed) of a long matrix out in a row per source."""
    sources, targets = _names(matrix)
    keyed = matrix.set_index(["source", "target"])

    def column(target: str, name: str) -> pd.Series:
        return keyed[name].xs(target, level="target").reindex(sources)

    columns = {target: column(target, "cell") for target in targets}
    for target in targets:
        for name in counts:
            columns[f"{target} {name}"] = column(target, name).astype("Int64")
        for name, written in shares.items():
            columns[f"{target} {written}"] = column(target, name)
    return pd.DataFrame(columns, index=pd.Index(sources, name=_CORNER)).reset_index()


def _fitting(
    matrix: pd.DataFrame,
    layouts: Iterable[Callable[[str], str]],
    rate: str,
    title: str,
    caption: Sequence[str],
    width: int,
) -> Table:
    """Build the matrix in the first layout that fits the width, else as a list."""
    candidates = (_grid(matrix, layout) for layout in layouts)
    table = next((grid for grid in candidates if _width(grid) <= width), None)
    if table is None:
        table = _list(matrix, rate)
    # rich folds title and caption to the columns' width, which may be narrower than they are.
    table.title, table.caption = Text(title), "\n".join(caption)
    table.min_width = min(width, max(map(len, [*title.split("\n"), *caption])))
    return table


def _grid(matrix: pd.DataFrame, layout: Callable[[str], str]) -> Table:
    """Build the matrix with one column per target."""
    sources, targets = _names(matrix)
    names = zip(matrix["source"].tolist(), matrix["target"].tolist(), strict=True)
    cells: dict[tuple[str, str], str] = dict(zip(names, matrix["cell"].tolist(), strict=True))
    table = _empty_table()
    table.add_column(_CORNER, no_wrap=True)
    for target in targets:
        table.add_column(Text(f"{target} "), justify="right", overflow="fold")
    for source in sources:
        texts = []
        for target in targets:
            cell = cells.get((source, target))
            text = "-" if cell is None else layout(cell)
            texts.append(_marked(text, is_white_box(source, target)))
        table.add_row(Text(source), *texts, end_section=source == CLEAN)
    return table


def _list(matrix: pd.DataFrame, rate: str) -> Table:
    """Build a list with one line per source and target."""
    table = _empty_table()
    table.add_column(f"{_CORNER} ", overflow="fold")
    table.add_column("shown to ", overflow="fold")
    table.add_column(f"{rate} ", justify="right", no_wrap=True)
    sources, targets = matrix["source"].tolist(), matrix["target"].tolist()
    cells, following = matrix["cell"].tolist(), [*sources[1:], None]
    for source, target, cell, after in zip(sources, targets, cells, following, strict=True):
        names = (Text(source), Text(target))  # a plain str would take [..] as a style
        text = _marked(cell, is_white_box(source, target))
        table.add_row(*names, text, end_section=source != after)
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


def _one_line(cell: str) -> str:
    return cell


def _two_lines(cell: str) -> str:
    return cell.replace(" = ", "\n= ")


def _three_lines(cell: str) -> str:
    return cell.replace(" / ", "\n/ ").replace(" = ", "\n")


def _two_lines_and_interval(cell: str) -> str:
    return _two_lines(cell).replace(" [", "\n[")


def _four_lines(cell: str) -> str:
    return _three_lines(cell).replace(" [", "\n[")


def _white_box_key(matrix: pd.DataFrame) -> list[str]:
    """Explain the mark, and members of ensembles where there are any."""
    pairs = zip(matrix["source"].tolist(), matrix["target"].tolist(), strict=True)
    white = [pair for pair in pairs if is_white_box(*pair)]
    if not white:
        return []
    member = any(source != target for source, target in white)
    return [f"{WHITE_BOX_MARK} white box: source = target{' or holds it' if member else ''}"]


def _control_name(control: str) -> str:
    if control not in CONTROL_NAMES:
        raise ValueError(f"control '{control}' is not one of {', '.join(CONTROL_NAMES)}.")
    return CONTROL_NAMES[control]


def _names(matrix: pd.DataFrame) -> tuple[list[str], list[str]]:
    return list(matrix["source"].unique()), list(matrix["target"].unique())
