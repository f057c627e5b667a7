from math import nan

import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import CLEAN, rates, transfer_matrix
from src.analysis.outcomes import PROTOCOLS


def two_models(make_table, sources, target_label=None):
    """Label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3. At 8: a on 0; b on 0, 2, 3."""
    predictions = {
        ("a", 0): [0, 0, 0, 1],
        ("a", 8): [0, 1, 1, 1],
        ("b", 0): [0, 0, 1, 0],
        ("b", 8): [0, 1, 0, 0],
    }
    table = make_table(predictions, target_label=target_label)
    parts = [
        rates(table, source, ["a", "b"], protocol).assign(source=source, protocol=protocol)
        for source in sources
        for protocol in PROTOCOLS
    ]
    return pd.concat(parts, ignore_index=True).assign(attack="x", success_rate_sd=nan)


def cells_of(cells):
    return list(cells[["source", "target", "k", "n"]].itertuples(index=False, name=None))


def test_matrix_holds_the_clean_row_and_a_cell_for_each_pair(make_table):
    rates = two_models(make_table, "ba")
    cells = transfer_matrix(rates, 8.0, "joint")
    assert cells_of(cells) == [
        (CLEAN, "a", 3, 4),
        (CLEAN, "b", 3, 4),
        ("b", "a", 1, 2),
        ("b", "b", 2, 3),
        ("a", "a", 1, 3),
        ("a", "b", 1, 2),
    ]
    assert list(cells["eps_255"]) == [0, 0, 8, 8, 8, 8]
    clean = binomtest(3, 4).proportion_ci(method="wilson")
    assert cells["rate_low"].iloc[0] == pytest.approx(clean.low, abs=1e-12)
    for protocol in PROTOCOLS:  # of all clean images, whatever the protocol
        assert cells_of(transfer_matrix(rates, 8.0, protocol))[:2] == cells_of(cells)[:2]


def test_targeted_matrix_counts_what_reached_its_target_class(make_table):
    # Image 0 has its own label as target label and is not counted.
    cells = transfer_matrix(two_models(make_table, "a", [0, 1, 1, 2]), 8.0, "joint")
    assert cells_of(cells) == [
        (CLEAN, "a", 0, 3),
        (CLEAN, "b", 1, 3),  # b classifies the clean image 2 as class 1
        ("a", "a", 2, 2),
        ("a", "b", 1, 1),
    ]


def test_sources_that_aim_at_other_classes_share_no_clean_row(make_table):
    aims = (("a", [1] * 4), ("b", [2] * 4))
    parts = [two_models(make_table, source, labels) for source, labels in aims]
    for order in (parts, parts[::-1]):
        assert CLEAN not in set(transfer_matrix(pd.concat(order), 8.0, "joint")["source"])
    alike = transfer_matrix(
        pd.concat([two_models(make_table, one, [1] * 4) for one in "ab"]), 8.0, "joint"
    )
    assert alike.loc[alike["source"] == CLEAN, "target"].tolist() == ["a", "b"]
