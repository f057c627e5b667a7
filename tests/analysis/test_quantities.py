"""The registry of quantities and statistics: each entry is whole and has its column."""

from src.analysis import rankings, rates
from src.analysis.quantities import COUNTED, QUANTITIES, STATISTICS, definitions, statistics_of
from src.analysis.ranking import source_rankings
from tests.analysis.conftest import make_table, outcomes_of


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
