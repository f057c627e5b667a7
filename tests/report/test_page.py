"""The page in a browser: every selection shows its numbers, names are text, nothing overflows."""

import random
import re
from urllib.parse import quote

import pandas as pd
import pytest

from src.report.view import pairs_of

SEED = 84


def select(tab, **selection) -> None:
    """Open an address of the page, and wait until everything is drawn."""
    words = {name: f"{value}".removesuffix(".0") for name, value in selection.items()}
    text = "&".join(f"{name}={quote(word, safe='')}" for name, word in words.items())
    tab.evaluate("text => { location.hash = text; }", text)
    tab.wait_for_function(
        "chosen => { const shown = JSON.parse(document.body.dataset.drawn);"
        " return Object.entries(chosen).every(([name, value]) => shown[name] === value); }",
        arg=selection,
    )


def percent(share) -> str:
    return f"{100 * share:.1f}"


def check_cells(tab, rows: pd.DataFrame, shown: str = "fooled", matrix: str = "#matrix") -> None:
    """Compare rates and counts of pairs with the cells of a matrix."""
    rate, count = ("success_rate", "success")
    if shown == "correct":
        rate, count = ("robust_accuracy", "still_correct")
    assert len(rows)
    for row in rows.to_dict("records"):
        place = f"{matrix} [data-pair='{row['source']}>{row['target']}']"
        counts = f"{row[count]:.0f}", "/", f"{row['denominator']:.0f}"
        assert tab.inner_text(place).split() == [percent(row[rate]), *counts], place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["defended", "ordinary", "targeted"])
def test_every_selection_shows_the_numbers_of_the_tables(opened, results_of_kind, made_up, kind):
    tab, axes, results = opened(kind), made_up(kind).page["axes"], results_of_kind(kind)
    generator, rates = random.Random(SEED), pairs_of(results.primary_rows)
    for _ in range(20 if kind == "ordinary" else 8):
        names = ("attack", "source", "target", "defence", "protocol")
        chosen = {name: generator.choice(axes[name]) for name in names}
        chosen |= {"eps": generator.choice(axes["eps_255"][1:])}
        chosen |= {"shown": generator.choice(["fooled", "correct"])}
        select(tab, **chosen)
        place = {name: chosen[name] for name in ("attack", "defence", "protocol")}
        place["eps_255"] = chosen["eps"]
        at = rates[(rates[[*place]] == pd.Series(place)).all(axis=1)]
        check_cells(tab, at, chosen["shown"])
        budget = f"{chosen['eps']:g}/255"
        tab.wait_for_function(
            "text => document.querySelector('#image .title').innerText.includes(text)", arg=budget
        )
        texts = [*tab.locator("#results h2").all_inner_texts(), tab.inner_text("#image .title")]
        shown = " ".join([*texts, tab.inner_text("#ranking .note")])
        assert set(re.findall(r"[\d.]+/255", shown)) == {budget}
        rows = results.rankings
        rows = rows[(rows["defence"] == chosen["defence"]) & (rows["eps_255"] == chosen["eps"])]
        rows = rows[rows["source"] == chosen["source"] if chosen["source"] else rows["sources"] > 1]
        if chosen["protocol"] == "joint" and not chosen["target"] and chosen["shown"] == "fooled":
            levels = tab.locator("#ranking .ranked > .number > b").all_inner_texts()
            assert levels[: len(rows)] == [f"{percent(mean)} %" for mean in rows["mean"]]
        named = tab.locator("#tiles .tile > span:first-child").all_inner_texts()
        assert all(text.startswith(chosen["attack"]) for text in named)


@pytest.mark.slow
def test_halves_show_their_sweep_under_one_selection(opened, results_of_kind):
    kind = "incomparable sweeps"
    tab, results = opened(kind), results_of_kind(kind)
    assert sorted(tab.locator("#controls .chip").all_inner_texts()) == ["bim", "fgsm", "mi"]
    select(tab, attack="fgsm", eps=8)
    for number, side in ((1, ""), (2, "-2")):
        rows = results.select(group=number, eps_255=8.0, protocol="joint", defence="none")
        rows = rows[rows["attack"].str.startswith("fgsm") & (rows["source"] == "vgg")]
        check_cells(tab, rows[rows["target"] != "mean"], matrix=f"#matrix{side}")
        titles = tab.locator(f"#columns{side} h2, #image{side} h2").all_inner_texts()
        assert all("AB"[number - 1] in title.split(":")[0] for title in titles)
    select(tab, eps=16)
    assert "has no 16/255" in tab.inner_text("#half") and not tab.locator("#matrix").is_visible()
    tab.click("#controls [aria-label=sweep] [data-value=B]")
    assert tab.locator("#matrix-2").is_hidden() and "16/255" in tab.inner_text("#matrix h2")


@pytest.mark.parametrize("view", ["results", pytest.param("images", marks=pytest.mark.slow)])
def test_hostile_names_are_text(opened, view):
    name = "<script>alert(1)</script>"
    tab = opened("hostile names", f"#source={quote(name)}&target=%3Cimg%20src%3Dx%3E&view={view}")
    assert tab.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0
    assert name in tab.inner_text("main").replace("\u200b", "")


def test_the_page_is_whole_and_refers_to_nothing_outside(written):
    text = written("hostile names").read_text()
    text = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.S)
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert all(link.startswith(("data:", "#")) for link in links)
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_without_scripts_answer_and_ranking_are_there(chromium, written, made_up, results_of_kind):
    tab = chromium.new_context(java_script_enabled=False).new_page()
    tab.goto(written("ordinary").as_uri())
    assert tab.inner_text("#answer") == "".join(made_up("ordinary").answer[:2])
    rows = results_of_kind("ordinary").rankings.query("eps_255 == 8 and sources > 1")
    _, *shown = tab.locator("noscript tr").all_inner_texts()
    for text, (_, row) in zip(shown, rows.iterrows(), strict=True):
        expected = [f"{row['rank']:g}", row["attack"], f"{percent(row['mean'])}%"]
        assert text.replace("=", "").split()[:3] == expected
    tab.context.close()


WIDE = [(kind, width) for kind in ("audit", "many models") for width in (390, 1280)]
WIDE += [("incomparable sweeps", width) for width in (390, 1141)]


@pytest.mark.parametrize(
    ("kind", "width"),
    [("ordinary", 390), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in WIDE)],
)
def test_nothing_overflows_and_no_part_begins_under_the_bar(opened, kind, width):
    gap = """() => { const bar = document.querySelector('.bar').getBoundingClientRect().bottom;
      return Math.min(...[...document.querySelectorAll('main *')].filter((one) =>
        one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3
        && node.textContent.trim())).map((one) => one.getBoundingClientRect().top)) - bar; }"""
    tab = opened(kind, color_scheme="dark", viewport={"width": width, "height": 844})
    for link in tab.locator("nav a").all():
        link.click()
        tab.wait_for_timeout(100)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, link.inner_text()
        tab.evaluate("scrollTo(0, 0)")
        assert tab.evaluate(gap) >= 6, link.inner_text()
