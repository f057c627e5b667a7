"""The board of stored attacks: it ranks as `rank` does, and its page is fresh."""

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from findings.board import Boards
from findings.costs import COSTS, MOST_OF_TRANSFORMERS
from src import rank
from src.report.beside import beside, read_preset
from src.report.published import load_published
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def boards() -> Boards:
    return Boards("small")


def test_the_board_has_the_numbers_and_order_of_rank(boards: Boards):
    jobs = [job for job in read_preset("small")[1] if job.record.label == "mi"]
    (result,) = beside(jobs, "small")
    board = next(iter(boards.all().values()))
    rank = result.own[result.own["attack"] != "mi (mine)"].dropna(subset="rank")
    assert rank["attack"].tolist() == board.rows["attack"].tolist()
    both = rank.set_index("attack"), board.rows.set_index("attack")
    for name in ("mean", "low", "high", "mean_tuned", "images", "gradients"):
        assert both[0][name].to_numpy() == pytest.approx(both[1][name].to_numpy(), nan_ok=True)
    means = board.rows[list(boards.targets)].mean(axis=1)
    assert means.to_numpy() == pytest.approx(board.rows["mean"].to_numpy())
    without = result.own[result.own["rank"].isna()]["attack"]
    assert {*without} == {*board.lacking}


def test_the_page_of_the_board_is_what_the_cards_say(boards: Boards):
    loader = FileSystemLoader(REPOSITORY / "findings")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    text = environment.get_template("pages/board.md.j2").render(
        board=boards, matched_costs=COSTS, matched_most_of_transformers=MOST_OF_TRANSFORMERS
    )
    assert text == (REPOSITORY / "docs/findings/board.md").read_text(encoding="utf-8")


def test_no_published_table_has_a_network_of_the_board(boards: Boards):
    """If one had, the board would need a column of published values."""
    published = {name for its in load_published()[0].values() for name in its.models}
    assert not published & {*boards.first.weights.values()}
    assert not any(its["weights"] == "included" for its in boards.first.config["model"].values())


def test_rank_needs_a_sweep_where_the_package_lacks_the_images():
    with pytest.raises(ValueError, match=r"^preset photographs: "):
        rank("mi", preset="photographs")
    jobs = [job for job in read_preset("photographs")[1] if job.record.label == "mi"]
    (result,) = beside(jobs, "photographs")
    rows = result.own.set_index("attack")
    assert rows["difference"]["mi"] == 0 and rows["undecided"]["mi"]
