import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from src.analysis import CLEAN, TRANSFER, WHITE_BOX
from src.report.grid import fitting
from src.report.named_tables import matrix_forms
from src.utils.formats import format_cell

LONG = "Q" * 33  # a letter that is nowhere else, however a name is folded


def matrix_of(names):
    """Give every pair another count."""
    pairs = pd.MultiIndex.from_product([[CLEAN, *names], names], names=["source", "target"])
    cells = pairs.to_frame(index=False)
    k, n = np.arange(1000, 1000 + len(cells)), 10_000
    cells = cells.assign(targeted=False, k=k, n=n, rate=k / n, rate_low=0.125, rate_high=0.75)
    pairs = zip(cells["source"], cells["target"], strict=True)
    kinds = [WHITE_BOX if target in source.split("+") else TRANSFER for source, target in pairs]
    texts = [format_cell(one, n) for one in k]
    return cells.assign(cell=texts, relation=kinds, success_rate_sd=np.nan)


def printed(matrix, width=80):
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(fitting(matrix_forms(matrix, "[bold] matrix"), width).terminal())
    return capture.get()


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
