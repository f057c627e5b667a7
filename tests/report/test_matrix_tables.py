import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from src.analysis import CLEAN, TRANSFER, WHITE_BOX
from src.report.grid import fitting
from src.report.named_tables import matrix_forms, ranking_grid
from src.utils.formats import format_cell
from tests.report.test_words import ranking

LONG = "Q" * 33  # a letter that is nowhere else, however a name is folded


def matrix_of(names, **more):
    """Give every pair another count."""
    pairs = pd.MultiIndex.from_product([[CLEAN, *names], names], names=["source", "target"])
    cells = pairs.to_frame(index=False)
    k, n = np.arange(1000, 1000 + len(cells)), 10_000
    cells = cells.assign(targeted=False, k=k, n=n, rate=k / n, rate_low=0.125, rate_high=0.75)
    pairs = zip(cells["source"], cells["target"], strict=True)
    kinds = [WHITE_BOX if target in source.split("+") else TRANSFER for source, target in pairs]
    spread = {"success_rate_sd": np.nan} | more
    return cells.assign(cell=[format_cell(one, n) for one in k], relation=kinds, **spread)


def text_of(table, width):
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def printed(matrix, width=80):
    return text_of(fitting(matrix_forms(matrix, "[bold] matrix"), width).terminal(), width)


def test_a_narrow_matrix_has_rates_and_says_where_the_counts_are():
    matrix = matrix_of(["vgg_small_long_name", "resnet", "vit", "mixer"])
    text = printed(matrix, 80)
    rates = re.findall(r"\d+\.\d+%", text)
    assert rates == [cell.split()[-1] for cell in matrix["cell"]]
    assert "10000" not in text and "summary.txt" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [40, 160])  # a row a pair, a row a source
def test_nothing_is_cut_off_at_any_width_and_white_boxes_are_marked(width):
    matrix = matrix_of(["vgg", LONG, f"vgg+{LONG}"])
    text = printed(matrix, width)
    assert max(map(len, text.splitlines())) <= width and text.startswith(
        "Still correct: [bold] matrix"
    )
    marks = ["*" * (kind == WHITE_BOX) for kind in matrix["relation"]]
    cells = [mark + cell for mark, cell in zip(marks, matrix["cell"], strict=True)]
    found, expected = (Counter(re.findall(r"\*?\d[\d.]*%?", one)) for one in (text, str(cells)))
    assert found == expected


def test_pairs_that_were_not_run_are_empty():
    matrix = matrix_of(["b", "a"]).drop(index=3)
    (line,) = [line for line in printed(matrix).splitlines() if line.startswith("b ")]
    assert line.split()[-1] == "-"


@pytest.mark.parametrize("tied", [False, True])
def test_a_ranking_marks_rows_that_are_undecided(tied):
    ranked = ranking(150, -0.1, undecided=int(tied), p=0.2, low=0.1, high=0.4, gradients=10)
    ends = {"difference_low": -0.15, "difference_high": -0.05, "fit_gradients": 0}
    text = text_of(ranking_grid(ranked.assign(**ends), "attack").terminal(), 80)
    assert ("decided:" in text, "=20.0%" in text) == (not tied, tied)
    assert "-10.0 [-15.0, -5.0]" in text and max(map(len, text.splitlines())) <= 80
