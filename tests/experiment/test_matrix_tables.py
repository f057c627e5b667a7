import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from src.analysis import CLEAN, format_cell, format_excess
from src.experiment.matrix_tables import matrix_table, wide_matrix

THREE = ["vgg", "resnet", "inception"]
MANY = [f"model_{letter}" for letter in "abcdefghij"]
LONG = ["convnext_tiny.in_twelve_k_ft_in_k", "vit_base_patch_sixteen.augreg", "vgg+resnet+vit"]
MODELS = {"one": THREE[:1], "three": THREE, "many": MANY, "long": LONG, "many long": LONG + MANY}


def pairs_of(sources, targets):
    pairs = pd.MultiIndex.from_product([sources, targets], names=["source", "target"])
    return pairs.to_frame(index=False).assign(targeted=False)


def matrix_of(names, n=10_000):
    """Give every pair another count."""
    cells = pairs_of([CLEAN, *names], names)
    k = np.arange(1000, 1000 + len(cells)) * (n > 0)
    rate = k / n if n else np.nan
    cells = cells.assign(k=k, n=n, rate=rate, rate_low=0.125, rate_high=0.75)
    return cells.assign(cell=[format_cell(one, n) for one in k])


def excess_of(names, n=8139):
    cells = pairs_of(names, names)
    success = np.arange(1000, 1000 + len(cells))
    shares = {"excess": 900 / n, "excess_low": 0.05, "excess_high": 0.25}
    counts = {"success": success, "control_success": success - 900, "denominator": n}
    cells = cells.assign(**counts, **shares)
    return cells.assign(cell=[format_excess(row) for _, row in cells.iterrows()])


def without(matrix, source, target):
    return matrix[(matrix["source"] != source) | (matrix["target"] != target)]


def printed(matrix, width=80, heading="an attack"):
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(matrix_table(matrix, heading, width))
    return capture.get()


def numbers_in(text):
    return Counter(re.findall(r"\d[\d.]*%?", text))


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("control", [False, True])
def test_nothing_is_cut_off_at_any_width(names, width, control):
    matrix = excess_of(names) if control else matrix_of(names)
    text = printed(matrix, width)
    assert max(map(len, text.splitlines())) <= width
    numbers = numbers_in(re.sub(r"95\s+% ", "", text))  # the caption of the excess
    assert numbers == numbers_in(" ".join(matrix["cell"]))
    head = next(line for line in text.splitlines() if line.startswith("source"))
    start = head.find(" target") + 1 or width  # of the second column of names, in a list
    lines = [(line[:start], line[start:].split("  ")[0]) for line in text.splitlines()]
    folded = ["".join(part.strip() for part in column) for column in zip(*lines, strict=True)]
    for name in names:
        assert name in folded[0] and (name in folded[1] or f"-> {name}" in head)


def test_few_models_are_a_grid_and_many_a_list_with_white_boxes_marked():
    grid, many = (printed(matrix_of(names, n=8139)).splitlines() for names in (THREE, MANY))
    assert grid[1].split() == ["source", "->", "vgg", "->", "resnet", "->", "inception"]
    assert [line.split()[0] for line in grid if "%" in line] == [CLEAN, *THREE]
    assert [tuple(line.split()[:2]) for line in many if "%" in line] == [
        (source, target) for source in (CLEAN, *MANY) for target in MANY
    ]
    matrix = matrix_of([*THREE, "vgg+resnet"])
    text = printed(matrix, 120)
    for row in matrix.itertuples():
        white = row.source == row.target or row.target in row.source.split("+")
        assert row.cell in text and (f"*{row.cell}" in text) == white


def test_fifty_targets_make_a_wide_matrix_without_a_warning():
    names = [f"model_{number}" for number in range(50)]
    assert wide_matrix(matrix_of(names)).shape == (51, 1 + 50 * 6)


def test_captions_name_what_is_counted():
    heading = "[bold] on photos, eps = 8/255"
    assert printed(matrix_of(THREE), heading=heading).startswith(heading)
    targeted = matrix_of(THREE).assign(targeted=True)
    for cells, counted in ((matrix_of(THREE), "robust accuracy"), (targeted, "success rate")):
        assert counted in printed(cells)
    for cells, counted in ((False, "misclassified"), (True, "target class reached")):
        text = printed(excess_of(THREE).assign(targeted=cells), heading=heading)
        assert counted in text and heading in text


def test_empty_denominators_and_pairs_that_were_not_run():
    matrix = without(matrix_of(["a", "b"], n=0), "b", "a")
    text = printed(matrix)
    assert text.count("0 / 0 = n/a") == 5
    assert next(line for line in text.splitlines() if line.startswith("b")).split()[1] == "-"
    wide = wide_matrix(matrix).set_index("source")
    assert pd.isna(wide.loc["b", "a"]) and wide.loc["b", "b denominator"] == 0


@pytest.mark.parametrize(
    ("targeted", "count", "rate"),
    [(False, "still_correct", "robust_accuracy"), (True, "success", "targeted_success_rate")],
)
def test_a_wide_matrix_holds_cells_and_numbers(targeted, count, rate):
    matrix = without(matrix_of(["b", "a"]), "a", "b").assign(targeted=targeted)
    wide = wide_matrix(matrix)
    numbers = (count, "denominator", rate, f"{rate}_low", f"{rate}_high")
    assert list(wide) == ["source", *"ba", *(f"{name} {one}" for name in "ba" for one in numbers)]
    assert wide["source"].tolist() == [CLEAN, "b", "a"]
    for target in "ba":
        its = matrix[matrix["target"] == target].set_index("source").reindex([CLEAN, "b", "a"])
        for mine, name in zip(("cell", "k", "n", "rate"), ("", *numbers), strict=False):
            found = wide[f"{target} {name}".strip()].astype(object)
            expected = its[mine].astype(object)
            assert found.fillna("empty").tolist() == expected.fillna("empty").tolist()
