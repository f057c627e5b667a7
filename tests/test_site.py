"""The documentation: its generated tables, its results, and the site in a browser, from disk."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from pydantic import Field
from torch.nn.functional import cross_entropy

from findings.__main__ import (
    RESULTS,
    adaptive_rows,
    behind_small,
    jpeg_loss,
    on_photographs,
    own_settings,
    pages,
    sweep_of,
)
from findings.board import Boards
from findings.networks import Networks
from findings.step_rule import step_rule
from src import attacks, paper, rank
from src.artifacts.jobs import find_jobs
from src.report.beside import beside, read_preset
from tests.conftest import REPOSITORY, run_python
from tests.report.conftest import CHROMIUM, FLAGS

DOCS, CONF = REPOSITORY / "docs", REPOSITORY / "conf"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {"attack", "defence", "model", "help", "job_logging"}
LIBRARIES = ("torchattacks", "transferattack")
FEW = ("bim", "di", "gi", "lgv", "mi", "vmi")
"""Some attacks at their own settings: one with a fit, and one that lacks a source."""


@pytest.fixture(scope="module", autouse=True)
def modules_of_the_pages():
    """Let tests import what makes the pages' tables and the attacks' files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        yield


def test_files_of_attacks_are_those_that_make_configs_writes():
    from attack_files import attack_files

    made, by_hand = attack_files(), {"none", "saved", *LIBRARIES}
    files = {path.stem: path for path in (CONF / "attack").glob("*.yaml")}
    assert files.keys() == made.keys() | by_hand
    for name, text in made.items():
        assert files[name].read_text(encoding="utf-8") == text


def test_the_stub_for_editors_is_that_which_make_configs_writes():
    from attack_files import STUB, stub

    assert STUB.read_text(encoding="utf-8") == stub()


def test_pages_are_those_that_make_docs_tables_writes():
    import house
    from write_tables import START, TABLE
    from write_tables import pages as made_pages

    texts = {page: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    made = made_pages()
    old = [page.name for page, text in made.items() if texts[page] != text]
    assert not old, f"{', '.join(old)}: run `make docs-tables`"
    assert (DOCS / "house.svg").read_text(encoding="utf-8") == house.draw()
    for text in texts.values():
        assert text.count(START) == len(TABLE.findall(text))


def test_every_file_of_the_config_has_its_place():
    """Attacks, defences and models are in tables that `make docs-tables` writes."""
    keys = (DOCS / "options.md").read_text(encoding="utf-8").partition("## All keys")[2]
    common = {"_common", "_saved", "_small_network", "_network_with_stem", "config", "report"}
    for path in CONF.rglob("*.yaml"):
        group, name = path.relative_to(CONF).parts[0], path.stem
        if not {group, path.parent.name} & ELSEWHERE and name not in common:
            folder = path.relative_to(CONF).parent
            assert f"{'targets=panel/' if group == 'panel' else f'{folder}='}{name}`**" in keys


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site; a warning is an error."""
    for name in ("furo", "myst_nb", "sphinx_copybutton"):
        pytest.importorskip(name, reason=f"{name} is in the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    run_python("-m", "sphinx", "-W", "--keep-going", "-q", "docs", folder, folder=REPOSITORY)
    return folder


def test_the_command_line_lists_every_attack(run_in, tmp_path, capsys):
    assert run_in(tmp_path, module="src.attacks.__main__") == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert names == {path.stem for path in (CONF / "attack").glob("*.yaml")} - {"none", "saved"}


@pytest.mark.slow
def test_the_site_works_from_disk(site):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    noise: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("request", lambda request: noise.append(request.url))
        for page in site.rglob("*.html"):
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, page.name
        tab.goto(f"{(site / 'search.html').as_uri()}?q=smoothing")
        tab.wait_for_selector("#search-results a[href^='defences.html']")
        tab.goto((site / "findings" / "board.html").as_uri())
        table = tab.locator(".sortable table").first
        cells = table.locator("tbody tr td:nth-child(3)")
        costs = {text for text in cells.all_inner_texts() if text.isdigit()}
        for _ in range(2):  # descending, then ascending
            table.locator("thead th").nth(2).click()
        assert cells.first.inner_text() == min(costs, key=int)
        browser.close()
    assert [line for line in noise if not line.startswith(("file:", "data:"))] == []


def tells(text: str, *numbers: float | str) -> bool:
    """Tell whether a paragraph, an item or a row holds some numbers, in whatever words."""
    parts = re.split(r"\n\s*\n|\n(?=[-|])", text)
    found = (re.findall(r"\d+(?:[.,]\d+)*", part) for part in parts)
    return any({*map(str, numbers)} <= {*part} for part in found)


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


@pytest.mark.slow
def test_the_pages_are_what_the_tables_say():
    for path, text in pages().items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, path


def test_the_first_run_in_the_readme_is_what_the_tables_say():
    demo = sweep_of("demo")
    printed = {" ".join(line.split()) for line in README.splitlines()}
    heading, columns, _, *rows = demo.matrix("mi").splitlines()
    for line in (heading, columns, *rows[:4]):
        assert " ".join(line.split()) in printed
    seconds = json.loads((RESULTS / "demo-times.json").read_text(encoding="utf-8"))["seconds"]
    parts = ("whole", "first_result", "second_run")
    assert tells(README, *(f"{seconds[part]:.0f}" for part in parts))


@pytest.mark.slow
def test_the_findings_in_the_readme_are_what_the_tables_say():
    at_100, at_10 = (Boards("small").equal_cost(cost).set_index("attack") for cost in (100, 10))
    first, second = at_100.index[0], at_10.index[0]
    assert (first, second) == ("sia", "gi") and at_100["copies"]["sia"] < at_100["steps"]["di"]
    assert (at_100["depends_on"].iloc[0], at_10["depends_on"].iloc[0]) == ("vit_small", "")
    assert "`sia` leads on average; without target `vit_small`, the lead is not signif" in README
    for table in (at_100, at_10):  # the preset has the better way of each attack
        assert (table["mean_tuned"] - table[["steps", "copies"]].max(axis=1)).abs().max() < 1e-9
    numbers = [100, len(at_100), 4, *map(percent, at_100["mean"][["sia", "di"]])]
    assert tells(README, *numbers, int(at_100["images"].iloc[0]), len(at_10))
    own = own_settings()
    at_16 = Networks(RESULTS / "published-small.card").means.loc[16]
    numbers = []
    for found in map(own.correlation, (on_photographs(), own.of(), at_16)):
        numbers += [f"{abs(found[name]):.2f}" for name in ("rho", "rho_low", "rho_high")]
    assert tells(README, *numbers)
    jpeg, rows = behind_small("mi").loc["jpeg"], of_adaptive("resnet_small")
    assert tells(README, *(f"{100 * jpeg[name]:.1f}" for name in ("gain", "gain_low", "gain_high")))
    lost = jpeg_loss("resnet_small")[["loss", "low", "high"]]
    assert tells(README, *map(percent, (rows.loc["jpeg", "others_adaptive"], *lost)))
    networks = Networks(RESULTS / "networks.card")
    pair = "mobilenetv2", "efficientnet_lite2", 8
    step, other = networks.step(*pair), networks.control("shuffled", *pair)
    counts = (step["first_success"], step["n"], step["second_success"], other)
    assert tells(README, *map(int, counts))
    means = Networks(RESULTS / "step-rule.card").means.loc[8]["mean"].round(9)  # of others
    assert {*step_rule(RESULTS / "step-rule.card").query("of == 'mi'")["mean"].round(9)} <= {*means}


def test_the_correlation_with_published_success_is_that_of_the_printed_ranks():
    sources = Networks(RESULTS / "networks.card").sources
    ranking = Boards("photographs").board("own", sources).rows.set_index("attack")
    published = pd.read_csv(RESULTS / "published-attacks.csv", index_col="attack")
    both = published[["success"]].join(ranking["rank"], how="inner")
    places = both["success"].rank(ascending=False)
    expected = np.corrcoef(places, both["rank"].rank())[0, 1]
    assert own_settings().correlation(ranking)["rho"] == pytest.approx(expected)


def of_adaptive(source: str) -> pd.DataFrame:
    rows = adaptive_rows(find_jobs([RESULTS / "defences-adaptive"]))
    return rows.query("source == @source").set_index("defence")


@pytest.mark.slow
def test_rows_of_adaptive_attacks_are_what_the_predictions_count():
    found = {}
    for job in find_jobs([RESULTS / "defences-jpeg"]):
        rows = job.defended.query("target == 'resnet_small'")
        right = rows.assign(right=rows["predicted"] == rows["label"])
        table = right.pivot_table("right", ["defence", "index"], "eps_255")
        found[job.record.attack, job.record.source] = table
    plain = found["mi", "resnet_small"]
    adaptive = found["pgd", "resnet_small@jpeg"].loc["jpeg"]
    counted = plain.loc["none"][0] * plain.loc["jpeg"][0] > 0
    row = of_adaptive("resnet_small").loc["jpeg"]
    assert row["itself_images"] == counted.sum()
    assert row["itself_mi"] == plain.loc["jpeg"][4][counted].mean()
    assert row["itself_adaptive"] == adaptive[4][counted].mean() <= 0.12


@pytest.mark.slow
def test_the_board_has_the_numbers_and_order_of_rank(monkeypatch):
    facts, every = read_preset("small")
    few = [job for job in every if job.record.label in FEW]
    for module in ("findings.board", "src.report.beside"):
        monkeypatch.setattr(f"{module}.read_preset", lambda *names: (facts, few))
    boards, jobs = Boards("small"), [job for job in few if job.record.label == "mi"]
    (result,) = beside(jobs, "small")
    board = boards.board("own", [job.record.source for job in jobs])
    rank = result.own_settings[result.own_settings["attack"] != "mi (mine)"].dropna(subset="rank")
    assert rank["attack"].tolist() == board.rows["attack"].tolist()
    both = rank.set_index("attack"), board.rows.set_index("attack")
    for name in ("mean", "low", "high", "mean_tuned", "images", "gradients"):
        assert both[0][name].to_numpy() == pytest.approx(both[1][name].to_numpy(), nan_ok=True)
    means = board.rows[list(boards.targets)].mean(axis=1)
    assert means.to_numpy() == pytest.approx(board.rows["mean"].to_numpy())
    without = result.own_settings[result.own_settings["rank"].isna()]["attack"]
    assert {*without} == {*board.lacking} == {"vmi"}


@pytest.mark.slow
def test_rank_takes_a_number_of_gradients_and_says_how_stored_attacks_took_it():
    mine = partial(attacks.sia, copies=1, relative_step_size=0.1, steps=10)
    ranks = [rank(mine, source="resnet_small", tuning=True, name="one")]
    ranks += [rank("mi", gradients=10, source="resnet_small", tuning=True)]
    assert [ranked[0].cost for ranked in ranks] == [10, 10]
    table = ranks[0][0].equal_cost.set_index("attack")
    assert abs(table["difference"]["sia at 10 gradients"]) < 0.003
    assert all("took the better of two ways" in str(ranked) for ranked in ranks)


def downhill(model, images, labels, eps, *, steps: Annotated[int, Field(le=2)] = 1):
    """Lower the loss, beyond the budget."""
    at = images.requires_grad_()
    cross_entropy(model(at), labels, reduction="sum").backward()
    return (images - 3 * eps * at.grad.sign()).detach()


@pytest.mark.slow
def test_a_page_answers_the_questions_and_calls_an_attack_worse():
    text = paper(downhill, source="vgg_small", n_images=40)
    first, secondary = text.split("# Secondary, not corrected")
    assert first.startswith("# mine is beside mi (1 gradient): ")  # 40 images name no winner
    assert "too few to name a winner: the floor of 100 images is fixed" in first
    assert "were clipped" in first and "1 / 1 gradients" in first
    for rows in ("at 2/255", "at 8/255", "random-sign noise", "shuffled", "low-pass", "high-pass"):
        assert rows in secondary
    assert "| jpeg, unknown |" in secondary and "the same without a defence" in secondary
    assert "steps=2 (stated: 1)" in secondary and "steps=4" not in secondary
