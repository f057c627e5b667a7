"""The matrix of rates by hand, what is refused, and the registry of quantities.

Of every number of a pair, `tests/report/test_plain.py` has plain loops.
"""

from math import nan

import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import CLEAN, rankings, rates, transfer_matrix
from src.analysis.outcomes import PROTOCOLS
from src.analysis.quantities import COUNTED, QUANTITIES, STATISTICS, definitions, statistics_of
from src.analysis.ranking import source_rankings
from tests.analysis.conftest import make_table, outcomes_of

# Label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3. At 8: a on 0; b on 0, 2, 3.
TWO = {
    **{("a", 0): [0, 0, 0, 1], ("a", 8): [0, 1, 1, 1]},
    **{("b", 0): [0, 0, 1, 0], ("b", 8): [0, 1, 0, 0]},
}


def rates_of_two(*sources, target_label=None):
    table = make_table(TWO, target_label=target_label)
    parts = [
        rates(table, source, ["a", "b"], protocol).assign(source=source, protocol=protocol)
        for source in sources
        for protocol in PROTOCOLS
    ]
    return pd.concat(parts, ignore_index=True).assign(attack="x", success_rate_sd=nan)


@pytest.mark.parametrize(
    ("sources", "target_label", "wanted"),
    [
        ("b", None, [(CLEAN, "a", 3, 4), (CLEAN, "b", 3, 4), ("b", "a", 1, 2), ("b", "b", 2, 3)]),
        ("a", None, [(CLEAN, "a", 3, 4), (CLEAN, "b", 3, 4), ("a", "a", 1, 3), ("a", "b", 1, 2)]),
        # Image 0 has its own label as target label; b classifies the clean image 2 as class 1.
        (
            "a",
            [0, 1, 1, 2],
            [(CLEAN, "a", 0, 3), (CLEAN, "b", 1, 3), ("a", "a", 2, 2), ("a", "b", 1, 1)],
        ),
    ],
)
def test_the_matrix_has_the_cells_worked_out_by_hand(sources, target_label, wanted):
    cells = transfer_matrix(rates_of_two(*sources, target_label=target_label), 8.0, "joint")
    names = ["source", "target", "k", "n"]
    assert list(cells[names].itertuples(index=False, name=None)) == wanted
    assert list(cells["eps_255"]) == [0, 0, 8, 8]
    for _, row in cells.iterrows():
        ends = binomtest(row["k"], row["n"]).proportion_ci(method="wilson")
        found = row[["rate", "rate_low", "rate_high"]].tolist()
        assert found == pytest.approx([row["k"] / row["n"], *ends])


def test_sources_that_aim_at_other_classes_share_no_clean_row():
    for other, there in (([2] * 4, False), ([1] * 4, True)):
        parts = [rates_of_two("a", target_label=[1] * 4), rates_of_two("b", target_label=other)]
        for order in (parts, parts[::-1]):
            sources = transfer_matrix(pd.concat(order), 8.0, "joint")["source"].tolist()
            assert sources.count(CLEAN) == 2 * there


@pytest.mark.parametrize(
    ("lacks", "arguments", "words"),
    [
        ("target == 'b' and eps_255 == 0", ["a", ["a", "b"]], "of target 'b' for image 0"),
        ("index < 0", ["a+c", ["b"], "joint"], r"joint.*'a\+c'"),
        ("target == 'a' and eps_255 == 0 and index == 0", ["a", ["b"], "source_correct"], "'a'"),
        ("index < 0", ["a", ["b"], "Joint"], "protocol=Joint"),
        ("index < 0", ["a", ["b", "c"]], "target=c: choose from a, b"),
        ("index < 0", ["a", []], r"target=\(none\)"),
        (None, ["a", ["b"]], "several rows for one image"),
    ],
)
def test_tables_that_lack_or_repeat_rows_are_refused(lacks, arguments, words):
    table = make_table(TWO)
    table = table.query(f"not ({lacks})") if lacks else pd.concat([table, table])
    with pytest.raises(ValueError, match=words):
        rates(table, *arguments)


def test_every_quantity_has_a_defined_term_a_computation_and_a_place_of_its_own():
    terms, frame = definitions(), rates(make_table({("a", 0): [0], ("a", 8): [1]}), "a", ["a"])
    for column, entry in QUANTITIES.items():
        assert column == entry.column and entry.title and entry.form.format(0.5)
        assert not entry.term or terms[entry.term]
        assert (column in frame) == entry.of_predictions
        assert not entry.count or {entry.count, entry.of, f"{column}_low"} <= {*frame}
    values = [entry.value for entry in QUANTITIES.values() if entry.value]
    assert len(values) == len(set(values))
    assert {name for name in COUNTED if frame[name].dtype.kind != "i"} == set()


def test_every_statistic_is_a_column_of_its_rankings_or_a_cost():
    found = outcomes_of({("mi", source, target): [1, 0] for source in "ab" for target in "cd"})
    for of, frame in {"attack": rankings(found), "source": source_rankings(found)}.items():
        columns = statistics_of(of)
        assert [name for name in frame if name in columns] == columns
        known = {entry.column for entry in STATISTICS if of in entry.of and not entry.cost}
        assert known == {*columns}
