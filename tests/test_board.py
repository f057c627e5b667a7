"""The board of stored attacks ranks as `rank` does; its page is tested with the other findings."""

import pytest

from findings.board import Boards
from src import rank
from src.report.beside import beside, read_preset
from src.report.published import load_published

FEW = ("bim", "di", "gi", "lgv", "mi", "vmi")
"""Some attacks at their own settings: one with a fit, and one that lacks a source."""


@pytest.fixture(scope="module")
def stored():
    return read_preset("small")


@pytest.mark.slow
def test_the_board_has_the_numbers_and_order_of_rank(stored, monkeypatch):
    facts, every = stored
    few = [job for job in every if job.record.label in FEW]
    for module in ("findings.board", "src.report.beside"):
        monkeypatch.setattr(f"{module}.read_preset", lambda *names: (facts, few))
    boards, jobs = Boards("small"), [job for job in few if job.record.label == "mi"]
    (result,) = beside(jobs, "small")
    board = boards.board("own", [job.record.source for job in jobs])
    rank = result.own[result.own["attack"] != "mi (mine)"].dropna(subset="rank")
    assert rank["attack"].tolist() == board.rows["attack"].tolist()
    both = rank.set_index("attack"), board.rows.set_index("attack")
    for name in ("mean", "low", "high", "mean_tuned", "images", "gradients"):
        assert both[0][name].to_numpy() == pytest.approx(both[1][name].to_numpy(), nan_ok=True)
    means = board.rows[list(boards.targets)].mean(axis=1)
    assert means.to_numpy() == pytest.approx(board.rows["mean"].to_numpy())
    without = result.own[result.own["rank"].isna()]["attack"]
    assert {*without} == {*board.lacking} == {"vmi"}


@pytest.mark.slow
def test_no_published_table_has_a_network_of_the_board(stored):
    """If one had, the board would need a column of published values."""
    first = stored[1][0].record
    published = {name for its in load_published()[0].values() for name in its.models}
    assert not published & {*first.weights.values()}
    assert not any(its["weights"] == "included" for its in first.config["model"].values())


@pytest.mark.slow
def test_rank_needs_a_sweep_where_the_package_lacks_the_images():
    with pytest.raises(ValueError, match=r"^preset photographs: "):
        rank("mi", preset="photographs")
    jobs = [job for job in read_preset("photographs")[1] if job.record.label == "mi"]
    (result,) = beside(jobs, "photographs")
    rows = result.own.set_index("attack")
    assert rows["difference"]["mi"] == 0 and rows["undecided"]["mi"]
