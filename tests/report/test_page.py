"""The page in a browser: every selection shows its numbers, names are text, nothing overflows."""

import random
import re
from urllib.parse import quote

import pandas as pd
import pytest

from src.report.shown import pairs_of
from tests.conftest import REPOSITORY
from tests.report.conftest import LONG

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
    generator, rates = random.Random(SEED), pairs_of(results.shown)
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
def test_a_cell_sets_the_pair_of_the_image_and_not_the_ranking(opened):
    tab = opened("ordinary")
    before = tab.inner_text("#ranking")
    tab.click("#matrix [data-pair='resnet>vit']")
    tab.wait_for_function("document.querySelector('#image').innerText.includes('resnet → vit')")
    assert "pair=resnet%3Evit" in tab.url and tab.inner_text("#ranking") == before
    counts = tab.inner_text("#matrix .pair[data-pair='resnet>vit'] small")
    assert f"image: {counts} [" in tab.inner_text("#matrix .note")
    tab.go_back()
    tab.wait_for_function("location.hash === ''")
    select(tab, attack="bim", pair="resnet>vit", view="images")
    tab.wait_for_selector("#images .classes")
    assert "resnet → vit" in tab.inner_text("#images .title .second")
    assert tab.locator("#images .role").all_inner_texts() == ["", "bim", "fgsm"]
    select(tab, view="why")
    assert not tab.locator("#controls :is([aria-label=budget], [name=protocol])").count()
    for attack in ("fgsm", "bim"):  # only the first has diagnostics
        select(tab, attack=attack, view="why")
        assert tab.locator("#figure-spectra .scroll").is_visible() == (attack == "fgsm")


@pytest.mark.slow
def test_an_image_is_found_by_its_number_or_its_file(opened, results_of_kind):
    files = results_of_kind("ordinary").attacked[0][0].job.image_files
    names = [file.partition("/")[2] for file in files.values()]
    several = next(name for name in names if names.count(name) > 1)
    one, other, *_ = alike = [number for number, name in enumerate(names) if name == several]
    tab = opened("ordinary", "#view=images&image=0")
    field = tab.locator("#images .search input")
    for typed, number in (("7", 7), (files[one], one), (f"/a/{files[other]}", other)):
        field.fill(typed)
        field.press("Enter")
        tab.wait_for_function(
            "wanted => JSON.parse(document.body.dataset.drawn).image === wanted", arg=number
        )
    field.fill(several)
    field.press("Enter")
    assert files[alike[0]] in tab.inner_text("#images output")


@pytest.mark.slow
def test_next_goes_through_all_fooled_images_by_confidence(opened, results_of_kind):
    tab = opened("ordinary", "#attack=fgsm&source=vgg&target=vit&eps=8")
    place = {"attack": "fgsm", "source": "vgg", "target": "vit", "protocol": "joint"}
    count = int(results_of_kind("ordinary").select(**place, eps_255=8.0)["success"].item())
    assert f"fooled {count}" in tab.inner_text("#image .title")
    while tab.locator("#image [data-value=previous]").is_enabled():
        tab.click("#image [data-value=previous]")
    seen = set()
    for number in range(1, count + 1):
        place = "#image [aria-label='images by confidence'] button:nth-child(2)"
        tab.wait_for_function(
            "([place, text]) => document.querySelector(place).textContent === text",
            arg=[place, f"{number} of {count}"],
        )
        seen.add(tab.inner_text("#image h2"))
        if number < count:
            tab.click("#image [data-value=next]")
    assert len(seen) == count


@pytest.mark.slow
def test_the_keyboard_reaches_every_control(opened):
    tab = opened("ordinary")
    controls = "main button:not(:disabled), main select, main input, nav a"
    count = tab.locator(controls).filter(visible=True).count()
    reached = set()
    focused = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
    for _ in range(count + 10):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate(focused))
    assert len(reached - {-1}) >= count
    tab.focus("#matrix [data-pair='vgg>vit']")
    tab.keyboard.press("Enter")
    tab.wait_for_function("location.hash.includes('pair=')")


def test_a_single_network_opens_with_its_images(opened, results_of_kind):
    tab = opened("one model")
    assert tab.locator("nav [aria-current]").inner_text() == "Images"
    assert tab.locator("#images .strip").first.locator("figure").count() == 4
    select(tab, view="results", eps=8)
    rows = pairs_of(results_of_kind("one model").shown)
    (row,) = rows.query("protocol == 'joint' and eps_255 == 8").to_dict("records")
    (tile,) = tab.locator("#tiles .tile.white").all_inner_texts()
    assert f"{percent(row['success_rate'])} %" in tile
    assert f"{row['success']:.0f} / {row['denominator']:.0f}" in tile
    select(tab, view="why")
    assert "diagnostics=full" in tab.inner_text("#why pre")


def test_the_page_of_an_audit_counts_the_images_that_the_target_classifies_correctly(
    opened, results_of_kind
):
    results = results_of_kind("audit")
    tries = {(job.attack, job.record.source): job.defended for job in results.jobs}
    rows = pd.concat(tries, names=["by", "from"]).reset_index(["by", "from"])
    rows = rows.assign(right=rows["predicted"] == rows["label"])
    rows = rows[rows["target"] == "vit"]
    clean = rows[rows["eps_255"] == 0].groupby("index")["right"].all()
    attacked = rows[(rows["eps_255"] == 8) & rows["index"].map(clean)]
    fooled = ~attacked.groupby(["index", "by", "from"])["right"].all().unstack(["by", "from"])
    n, total, every = clean.sum(), len(clean), fooled.any(axis=1).sum()
    tab = opened("audit")
    assert f"A stranger fools {100 * every / n:.0f} % of the images" in tab.inner_text("#answer")
    attack = tab.inner_text("#matrix tr:nth-child(2) th").strip()
    heads = tab.locator("#matrix tr:first-child th").all_inner_texts()
    texts = tab.locator("#matrix tr:nth-child(2) button").all_inner_texts()
    for head, text in zip(heads[1:-1], texts, strict=True):
        k = fooled[attack, head].sum()
        assert text.split()[1:] == [percent(k / n), f"{k}", "/", f"{n}"]
    margins = tab.locator("#matrix .mean").all_inner_texts()
    assert margins[0] == percent(fooled[attack].any(axis=1).mean())
    assert margins[-1] == percent(every / n)
    left = [n - every, every, total - n]
    assert [int(text) for text in tab.inner_text("#ranking .bars").split()] == left
    tiles = tab.locator("#tiles .tile b").all_inner_texts()
    assert tiles == [f"{percent(share / total)} %" for share in (n, n - every)]
    tab.wait_for_selector("#image .strip")
    order = [(row.attack, row.source) for row in results.audits[0].tries.itertuples()]
    image = int(re.search(r"One image: (\d+)", tab.inner_text("#image h2"))[1])
    by = fooled.loc[image].sum()
    assert f"fooled by {by} of {len(order)} tries" in tab.inner_text("#image .title")
    shown = tab.locator("#image figcaption").all_inner_texts()[2:]
    assert shown == [f"{q} {', '.join(one)}" for q, one in enumerate(order[:5], 1)]


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
def test_hostile_names_are_text_and_the_page_refers_to_nothing_outside(opened, written, view):
    name = "<script>alert(1)</script>"
    tab = opened("hostile names", f"#source={quote(name)}&target=%3Cimg%20src%3Dx%3E&view={view}")
    assert tab.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0
    assert name in tab.inner_text("main").replace("\u200b", "")
    text = written("hostile names").read_text()
    text = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.S)
    links = re.findall(r'(?:src|href)="(.*?)"', text)
    assert all(link.startswith(("data:", "#")) for link in links)
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_without_scripts_or_attacks_answer_ranking_and_method_are_there(
    chromium, opened, written, made_up, results_of_kind
):
    tab = chromium.new_context(java_script_enabled=False).new_page()
    tab.goto(written("ordinary").as_uri())
    assert tab.inner_text("#answer") == "".join(made_up("ordinary").answer[:2])
    assert tab.inner_text("#method") and "src.table" in tab.inner_text("noscript")
    rows = results_of_kind("ordinary").rankings.query("eps_255 == 8 and sources > 1")
    _, *shown = tab.locator("noscript tr").all_inner_texts()
    for text, (_, row) in zip(shown, rows.iterrows(), strict=True):
        expected = [f"{row['rank']:g}", row["attack"], f"{percent(row['mean'])}%"]
        assert text.replace("=", "").split()[:3] == expected
    tab.context.close()
    tab = opened("clean images", "#attack=x&image=-3")  # unknown values are left out
    assert not tab.query_selector("#controls") and tab.query_selector("#figure-classes svg.marks")
    assert tab.inner_text("#answer").startswith("Correct: ")


WIDE = [(kind, width) for kind in ("audit", "many models", "long names") for width in (390, 1280)]
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


@pytest.mark.slow
def test_long_names_are_whole_on_screen_and_on_paper(opened):
    tab = opened("long names", viewport={"width": 1280, "height": 900})
    parts = tab.locator("#matrix th span").evaluate_all(
        """all => all.map((one) => [one.textContent, one.offsetHeight /
          parseFloat(getComputedStyle(one).lineHeight)])"""
    )
    names = "".join(text for text, _ in parts)
    assert all(name in names for name in LONG) and all(lines == 1 for _, lines in parts)
    cut = "all => all.some((one) => one.scrollWidth > one.clientWidth)"
    for texts in ("#matrix :is(.scroll, th, button)", "#ranking .ranked > :not(.plot)"):
        assert not tab.locator(texts).evaluate_all(cut)
    select(tab, attack="fgsm", view="why")
    tab.wait_for_selector("#figure-similarity svg.marks")
    beyond = """all => all.filter((one) => one.getBoundingClientRect().right
      > one.closest('.chart').getBoundingClientRect().right + 1).map((one) => one.textContent)"""
    assert tab.locator("#why .role-legend-label text").evaluate_all(beyond) == []
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of 1 cm
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_timeout(500)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 719


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_a_legible_size(opened, scheme):
    found = opened("ordinary", color_scheme=scheme).evaluate(
        """() => {
          const parse = (text) => { const c = document.createElement('canvas').getContext('2d');
            c.fillStyle = '#000'; c.fillStyle = text; c.fillRect(0, 0, 1, 1);
            return [...c.getImageData(0, 0, 1, 1).data]; };
          const light = (rgb) => rgb.slice(0, 3).map((one) => one / 255)
            .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
            .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
          const back = (node) => { for (let one = node; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            const rgba = parse(colour); if (rgba[3] > 250 && !/, 0\\)$/.test(colour)) return rgba; }
            return parse(getComputedStyle(document.body).backgroundColor); };
          return [...document.querySelectorAll('main *, header *')]
            .filter((one) => one.checkVisibility() && [...one.childNodes]
              .some((node) => node.nodeType === 3 && node.textContent.trim()))
            .map((one) => { const svg = one instanceof SVGElement;
              const style = getComputedStyle(one);
              const [a, b] = [light(parse(svg ? style.fill : style.color)), light(back(one))];
              return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
                parseFloat(style.fontSize), one.textContent.slice(0, 40)]; });
        }"""
    )
    assert len(found) > 100 and all(size >= 11 for _, size, _ in found)
    boxed = [each for each in found if each[0] == 1]  # the chosen budget, on its box in a chart
    assert {each[2] for each in boxed} == {"8"} and len(boxed) == 3
    assert not [each for each in found if each not in boxed and each[0] < 4.5]


@pytest.mark.slow
def test_the_page_prints_every_part(opened, tmp_path):
    tab = opened("ordinary", "#attack=fgsm&eps=2&view=results", color_scheme="dark")
    tab.wait_for_timeout(500)  # blocks are unpacked in advance
    tab.evaluate(
        """() => addEventListener('beforeprint', () => {
          window.printed = [...document.querySelectorAll('.chart')].map((box) =>
            [box.closest('section').id, box.querySelector('svg.marks')?.clientWidth ?? 0]);
        })"""
    )
    tab.pdf(path=tmp_path / "page.pdf", format="A4")
    printed = tab.evaluate("window.printed")
    assert {"results", "images", "why", "data"} <= {part for part, _ in printed}
    assert all(0 < width <= 700 for _, width in printed), printed


def test_lines_of_templates_are_short():
    folder = REPOSITORY / "src" / "report" / "templates"
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    assert max(map(len, lines)) <= 120
