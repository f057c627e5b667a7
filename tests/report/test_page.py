"""The page in a browser: it requests nothing, its controls work, and names are escaped."""

import re
import shutil

import pytest

from src.report.page.html import write_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
SMALL_WINDOW = {"width": 1280, "height": 500}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
CELL = (
    "#figure-{} .mark-rect [aria-label*='attack: {};'][aria-label*='source: {};']"
    "[aria-label*='target: {};']"
).format
TITLES = "#figure-curves svg .role-title-text"


@pytest.fixture
def written(made_up, tmp_path, tmp_path_factory):
    """A function that writes the page of a kind of sweep and returns its path."""

    def write(kind: str):
        path = tmp_path / "report.html"
        write_page(made_up(kind), path, tmp_path_factory.getbasetemp() / "cache")
        return path

    return write


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(chromium, written):
    """A function that opens a page; it must log nothing and request nothing."""
    noise: list[str] = []
    contexts = []

    def open_page(kind: str, address: str = "", **settings):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("request", lambda request: noise.append(request.url))
        tab.goto(written(kind).as_uri() + address)
        if settings.get("java_script_enabled", True):
            tab.wait_for_selector("body[data-drawn]", state="attached")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    asked = [line for line in noise if not line.startswith(("file:", "data:"))]
    assert asked == []


def labels(tab, selector: str) -> list[str]:
    return [each.get_attribute("aria-label") for each in tab.query_selector_all(selector)]


def choice(tab) -> dict[str, str]:
    """Return what the menus hold."""
    pairs = "menus => menus.map(menu => [menu.name, menu.value])"
    return dict(tab.eval_on_selector_all("#choice select", pairs))


def drawn_curves(tab) -> set[str]:
    """Return the labels of the curves of rates, a target's each."""
    found = labels(tab, "#figure-curves .mark-symbol [aria-label*=' rate: ']")
    return {re.sub(r".*target: (\w+);.*", r"\1", each) for each in found}


def waits_for(tab, text: str, selector: str = TITLES) -> None:
    tab.wait_for_function(
        "([selector, text]) => [...document.querySelectorAll(selector)].some("
        "one => one.textContent.includes(text))",
        arg=[selector, text],
    )


def test_a_click_on_a_cell_chooses_what_the_page_shows(opened):
    tab = opened("ordinary")
    first = choice(tab)
    assert first["source"] == "" and first["target"] == "" and "#" not in tab.url
    tab.click(CELL("matrix", first["attack"], "resnet", "vit"), force=True)
    waits_for(tab, f"{first['attack']}, source resnet")
    now = choice(tab)
    assert (now["source"], now["target"]) == ("resnet", "vit")
    assert tab.url.endswith("#source=resnet&target=vit")
    pair = f"{first['attack']}: resnet \N{RIGHTWARDS ARROW} vit"
    for figure in ("groups", "hypothesis"):
        waits_for(tab, pair, f"#figure-{figure} svg .role-title-text")
    tab.locator("#pictures").scroll_into_view_if_needed()
    waits_for(tab, pair, "#pictures p")
    tab.go_back()
    waits_for(tab, f"{first['attack']}, mean of sources")
    assert choice(tab) == first
    tab.go_forward()
    waits_for(tab, f"{first['attack']}, source resnet")
    tab.click("#choice button")
    waits_for(tab, f"{first['attack']}, mean of sources")
    assert choice(tab) == first


def test_the_address_chooses_what_the_page_has_and_nothing_else(opened):
    address = "#attack=fgsm&source=vgg&target=%3Cb%3E&eps=2&nonsense=1"
    tab = opened("ordinary", address)
    waits_for(tab, "fgsm, source vgg")
    assert {name: choice(tab)[name] for name in ("attack", "source", "target", "eps")} == {
        **{"attack": "fgsm", "source": "vgg"},
        **{"target": "", "eps": "2"},
    }
    shares = tab.locator("#figure-matrix .mark-text text >> text=/^[0-9.]+%$/")
    fooled = shares.all_text_contents()
    tab.evaluate("location.hash = 'attack=fgsm&source=vgg&eps=2&shown=correct'")
    waits_for(tab, "correct: fgsm, source vgg")
    waits_for(tab, "correct at", "#figure-matrix .role-title-text")
    pairs = zip(fooled, shares.all_text_contents(), strict=True)
    sums = [round(float(a[:-1]) + float(b[:-1])) for a, b in pairs]
    assert sums.count(100) >= 9  # the row of clean images stays as it is


def test_every_state_of_the_menus_draws_the_rates_of_the_tables(opened, made_up):
    tab = opened("ordinary")
    (rows,) = (one.data for one in made_up("ordinary").figures if one.name == "matrix")
    rows = rows[~rows["source"].isin(["clean", "mean of sources"])]
    for attack, eps, protocol in (("bim", 16, "joint"), ("fgsm", 1, "all"), ("bim", 2, "joint")):
        for name, value in (("attack", attack), ("eps", str(eps)), ("protocol", protocol)):
            tab.select_option(f"#choice select[name={name}]", value)
        waits_for(tab, f"{attack}: fooled at {eps}/255", "#figure-matrix .role-title-text")
        here = rows.query("attack == @attack and eps_255 == @eps and protocol == @protocol")
        for row in here.to_dict("records"):
            (label,) = labels(tab, CELL("matrix", attack, row["source"], row["target"]))
            assert f"success: {row['success']:g};" in label and f" n: {row['n']:g};" in label


def behind(row) -> str:
    """Return the difference from the first in points, with its interval, as the page has it."""
    names = ("difference", "difference_high", "difference_low")
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(-100 * row[name] for name in names))


def test_the_answer_and_both_rankings_follow_the_budget(opened, made_up):
    tab = opened("four sources")
    report = made_up("four sources")
    tables = {one.name: one.data for one in report.figures}
    seen = set()
    for eps, attack in ((2, "bim"), (8, "fgsm"), (2, "fgsm")):
        tab.select_option("#choice select[name=eps]", str(eps))
        tab.select_option("#choice select[name=attack]", attack)
        waits_for(tab, f"{attack} at {eps}/255", "#figure-sources-ranked .role-title-text")
        answer = report.answers[eps]
        assert tab.inner_text(".answer") == f"{answer.lead} {answer.sentence}"
        assert f"At {eps}/255" in answer.sentence
        seen.add(answer)
        attacks, sources = (tables[name] for name in ("ranking", "sources-ranked"))
        attacks = attacks[(attacks["eps_255"] == eps) & (attacks["source"] == "mean of sources")]
        sources = sources[(sources["eps_255"] == eps) & (sources["attack"] == attack)]
        for name, rows, column in (
            ("ranking", attacks, "attack"),
            ("sources-ranked", sources, "source"),
        ):
            texts = tab.locator(f"#figure-{name} .mark-text text").all_text_contents()
            assert [text for text in texts if text in {*rows[column]}] == rows[column].tolist()
            assert [text for text in texts if "[" in text] == [
                behind(row) for _, row in rows.iloc[1:].iterrows()
            ]
    assert len(seen) == 2


def test_the_names_of_curves_and_the_menu_single_a_target_out(opened):
    tab = opened("ordinary")
    assert drawn_curves(tab) == {"vgg", "resnet", "vit"}
    tab.click("#figure-curves .mark-text text:text-is('resnet') >> nth=0", force=True)
    tab.wait_for_function("location.hash === '#target=resnet'")
    tab.click("#figure-curves .mark-text text:text-is('resnet') >> nth=0", force=True)
    tab.wait_for_function("location.hash === ''")
    before = labels(tab, "#figure-ranking .mark-rect [aria-label]")
    tab.select_option("#choice select[name=source]", "vgg")
    waits_for(tab, "source vgg", "#figure-ranking .role-title-text")
    assert labels(tab, "#figure-ranking .mark-rect [aria-label]") != before


def test_pictures_are_of_the_pair_and_made_when_looked_at(opened):
    tab = opened("ordinary", "#attack=fgsm&source=vgg&target=vit", viewport=SMALL_WINDOW)
    assert not tab.query_selector_all("#pictures img")
    tab.locator("#pictures").scroll_into_view_if_needed()
    tab.wait_for_selector("#pictures table")
    assert len(tab.query_selector_all("#pictures .strip:has(button)")) == 3
    cells = tab.query_selector_all("#pictures table td")
    assert len(cells) == 3 * 6  # targets, budgets with the clean image
    fooled = "#pictures table td.fooled"
    before = tab.inner_text("#pictures table")
    tab.click("#pictures .strip:has(button) >> nth=2 >> button")
    tab.wait_for_function(
        "before => document.querySelector('#pictures table').innerText !== before", arg=before
    )
    assert tab.query_selector_all(fooled)
    tab.select_option("#choice select[name=attack]", "bim")
    waits_for(tab, "bim", "#pictures p")


def test_an_example_stands_beside_the_answer_and_follows_the_choice(opened):
    tab = opened("ordinary", "#attack=fgsm&source=vgg&target=vit&eps=8")
    assert len(tab.query_selector_all("#example img")) == 3
    assert "8/255" in tab.inner_text("#example .strip")
    tab.select_option("#choice select[name=eps]", "2")
    waits_for(tab, "2/255", "#example .strip")
    assert "perturbation" not in tab.inner_text("#example")  # it is stored at 8/255 only


def test_an_image_is_found_by_its_number_or_said_to_have_no_picture(opened):
    tab = opened("ordinary", viewport=SMALL_WINDOW)
    tab.locator("#pictures").scroll_into_view_if_needed()
    tab.wait_for_selector("#pictures .strip")
    numbers = "all => all.map(one => one.dataset.image)"
    shown = tab.eval_on_selector_all("#pictures .strip", numbers)
    tab.fill("#pictures input", shown[-1])
    tab.keyboard.press("Enter")
    tab.wait_for_function(
        "number => { const box = document.querySelector(`#pictures [data-image='${number}']`)"
        ".getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; }",
        arg=shown[-1],
    )
    assert tab.inner_text("#pictures output") == ""
    tab.fill("#pictures input", "99999")
    tab.keyboard.press("Enter")
    waits_for(tab, "report.images=[99999]", "#pictures output")


def test_a_gallery_lists_the_numbers_of_all_its_images(opened):
    tab = opened("ordinary", viewport=SMALL_WINDOW)
    tab.locator("#pictures").scroll_into_view_if_needed()
    tab.wait_for_selector("#pictures details")
    for gallery in tab.query_selector_all("#pictures .galleries > div:has(details)"):
        count = re.search(r"(\d+) of (\d+) such images", gallery.inner_text())
        gallery.query_selector("summary").click()
        numbers = gallery.query_selector("details p").inner_text().split(", ")
        shown = [one.get_attribute("data-image") for one in gallery.query_selector_all(".strip")]
        assert [len(shown), len(numbers)] == [int(text) for text in count.groups()]
        assert {*shown} < {*numbers}


def test_the_page_prints_whole(opened, tmp_path):
    tab = opened("ordinary", "#attack=fgsm", color_scheme="dark")
    tab.pdf(path=tmp_path / "page.pdf", format="A4")
    assert tab.query_selector_all("#pictures img")  # made for the paper
    assert all(
        tab.eval_on_selector_all("main > section > details", "all => all.map(one => one.open)")
    )
    tab.emulate_media(media="print")
    width = tab.evaluate("document.documentElement.clientWidth")
    ends = "all => all.map(one => one.getBoundingClientRect().right)"
    assert max(tab.eval_on_selector_all("main svg", ends)) <= width


@pytest.mark.parametrize("width", [390, 1600])
def test_every_chart_is_drawn_and_nothing_overflows(opened, width):
    tab = opened("ordinary", color_scheme="dark", viewport={"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for box in tab.query_selector_all(".vega"):
        assert box.query_selector("svg.marks"), box.get_attribute("data-name")
    label = tab.query_selector("#answer svg .role-axis-label text")
    assert label.get_attribute("fill") == "currentColor"


def test_one_model_and_clean_images_have_pages(opened):
    tab = opened("one model", "#target=vgg")
    assert choice(tab)["target"] == "" and tab.query_selector("#figure-matrix svg.marks")
    tab = opened("clean images")
    assert not tab.query_selector("#choice") and tab.query_selector("#figure-classes svg.marks")


def test_a_page_of_sources_that_are_no_targets_is_drawn(opened):
    tab = opened("sources that are no targets")
    assert tab.query_selector("#figure-unseen svg.marks")
    assert not tab.query_selector("#figure-profiles")


def test_hostile_names_are_text(opened):
    tab = opened("hostile names")
    tab.hover("#figure-matrix svg [aria-label*='source: <script>']", force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    assert "<script>alert(1)</script>" in tab.inner_text("#vg-tooltip-element")
    assert not tab.query_selector_all("#vg-tooltip-element script")
    tab.click("#figure-matrix svg [aria-label*='source: <script>'] >> nth=0", force=True)
    tab.wait_for_function("location.hash.includes('%3Cscript%3E')")
    tab.reload()
    tab.wait_for_selector("body[data-drawn]", state="attached")
    assert choice(tab)["source"] == "<script>alert(1)</script>"


@pytest.mark.parametrize("kind", ["ordinary", "one image", "hostile names"])
def test_the_page_is_whole_and_refers_to_nothing_outside(written, made_up, kind):
    text = re.sub(r"(<script[^>]*>).*?</script>", r"\1", written(kind).read_text(), flags=re.S)
    assert all(
        link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="(.*?)"', text)
    )
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(set(ids)) == len(ids) and {one.id for one in made_up(kind).sections} <= {*ids}
    assert text.count("<script") == 3  # data, Vega, and the page's own
