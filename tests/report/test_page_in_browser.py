import io
import re
import shutil
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from src.report.content import Download, Drawing, Matrix, Pair, Report, Section, Table
from src.report.ink import contrast
from src.report.page import write_page
from src.report.svg import standalone_svg

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed; it is in the extra `dev`"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVIL = (
    "<img src=x onerror=\"document.title = 'hacked'\"></script><script>document.title = 1</script>"
)
MODELS = ("vgg16", "resnet50", "a-model_with+a-very_long+name")
FIRST_CELL = 3  # after the row of clean images


def cell(protocol, source, target, eps, count, denominator):
    rate = count / denominator if denominator else np.nan
    return {
        "protocol": protocol,
        "source": source,
        "target": target,
        "eps_255": eps,
        "white_box": source == target,
        "count": count,
        "denominator": denominator,
        "rate": rate,
        "low": rate - 0.05,
        "high": rate + 0.05,
    }


COUNTED = {"all": 200, "source_correct": 150, "joint": 100}


def matrix_of(attack, budgets, protocols):
    """10 of the counted images fall at 1/255; by joint, the last's second target has no image."""
    rows = []
    for protocol in protocols:
        n = COUNTED[protocol]
        rows += [cell(protocol, "clean", target, 0.0, 180, 200) for target in MODELS]
        for eps in budgets:
            for source in MODELS:
                for target in MODELS:
                    empty = (protocol, source, target) == ("joint", MODELS[2], MODELS[1])
                    counts = (0, 0) if empty else (n - int(10 * eps), n)
                    rows.append(cell(protocol, source, target, eps, *counts))
    words = ("photos", "joint", "still correct", "robust accuracy")
    return Matrix(attack, *words, 8.0, pd.DataFrame(rows))


def figure_of(label):
    figure = Figure(figsize=(8.6, 3))
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], color="#000000")
    axes.plot([0, 1], [0, 1], color="#0072B2")
    axes.grid(color="#DDDDDD")
    axes.set_xlabel(label)
    return figure


def picture():
    figure = Figure(figsize=(8, 3))
    figure.subplots().imshow(np.zeros((4, 4, 3)))
    return figure


def pair_of(attack, source, target):
    name = f"{attack}-{MODELS.index(source)}-{MODELS.index(target)}"
    data = pd.DataFrame({"eps_255": [0.0, 8.0], "rate": [1.0, 0.2]})
    return Pair(
        attack,
        source,
        target,
        source == target,
        (f"Sentence on {name}.",),
        (Drawing(f"curves-{name}", "Curves", "n = 100", "falls", figure_of(EVIL), "", data),),
        (Table(f"rates-{name}", "Rates.", "n", data),),
    )


@pytest.fixture(scope="module")
def report():
    pairs = [pair_of("fgsm", source, target) for source in MODELS for target in MODELS]
    pairs += [pair_of("bim", MODELS[0], target) for target in MODELS[:2]]  # not all of them
    numbers = {f"column {i}": [1, 2] for i in range(30)}
    wide = pd.DataFrame({"class": [EVIL, "loudspeaker " * 9], **numbers})
    photograph = Drawing("p", "P", "c", "black", picture(), picture=True)
    return Report(
        title="Transfer of adversarial examples",
        answer="90 of 100 images.",
        facts=(("Weights", "0123456789abcdef" * 8), ("Classes", EVIL)),
        matrices=(
            matrix_of("fgsm", (1.0, 2.0, 8.0), ("all", "source_correct", "joint")),
            matrix_of("bim", (2.0, 8.0), ("joint", "all")),
        ),
        before=(Section("first", EVIL, (EVIL,), (), (Table("wide", "Wide.", EVIL, wide),)),),
        pairs=tuple(pairs),
        after=(Section("last", "Last", (), (photograph,)),),
        missing=("Spectra.",),
        notes=(("robust accuracy", "still correct / denominator"),),
        downloads=(
            Download("rates.csv", "Rates", b"a,b\n1,100 %\n"),
            Download("x.bin", "Bytes", bytes(range(256))),
        ),
    )


@pytest.fixture(scope="module")
def address(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(report, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser, address):
    """Open the page; at the end nothing may have been asked for or complained about."""
    contexts, complaints, requests = [], [], []

    def opened(fragment="", width=1280, height=900, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    left = [url for url in requests if not url.startswith("data:") and url.split("#")[0] != address]
    assert left == [] and requests


def shown_pairs(page):
    return page.locator(".pair:visible").evaluate_all("found => found.map(one => one.id)")


def spot(page, number, matrix=0):
    return page.locator(f'[data-matrix="{matrix}"] [data-cell="{number}"] .spot')


def words(locator):
    return " ".join(locator.inner_text().split())


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_html_in_names_is_shown_and_not_run(visit):
    page = visit()
    assert page.title() == "Transfer of adversarial examples"
    assert page.locator("h2", has_text=EVIL).is_visible()
    assert page.locator(".facts dd").nth(1).inner_text() == EVIL
    assert page.locator("#table-wide tbody th").first.inner_text() == EVIL
    assert page.locator(".pair.chosen svg text", has_text=EVIL).is_visible()
    assert page.locator('img[src="x"]').count() == 0


def test_the_first_pair_is_shown_and_the_lists_choose_another(visit):
    page = visit()
    assert shown_pairs(page) == ["pair-fgsm--vgg16--vgg16"]
    page.select_option("#pick-source", "resnet50")
    assert shown_pairs(page) == ["pair-fgsm--resnet50--vgg16"]
    page.select_option("#pick-target", MODELS[2])
    assert shown_pairs(page) == [f"pair-fgsm--resnet50--{MODELS[2]}"]
    assert page.url.endswith(f"#pair-fgsm--resnet50--{MODELS[2]}")
    assert words(page.locator("#place")) == "Pair 6 of 11"


def test_the_lists_offer_what_there_is(visit):
    page = visit(f"#pair-fgsm--resnet50--{MODELS[2]}")
    options = "found => found.map(one => one.value)"
    assert page.locator("#pick-attack option").evaluate_all(options) == ["fgsm", "bim"]
    page.select_option("#pick-attack", "bim")  # knows one source and two targets
    assert shown_pairs(page) == ["pair-bim--vgg16--vgg16"]
    assert page.locator("#pick-source option").evaluate_all(options) == ["vgg16"]
    assert page.locator("#pick-target option").evaluate_all(options) == ["vgg16", "resnet50"]


def test_the_picker_works_with_the_keyboard_alone(visit):
    page = visit()
    page.focus("#pick-target")
    page.keyboard.press("ArrowDown")
    assert shown_pairs(page) == ["pair-fgsm--vgg16--resnet50"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # previous
    assert shown_pairs(page) == ["pair-fgsm--vgg16--vgg16"]
    assert page.locator("#previous").is_disabled()
    assert page.evaluate("document.activeElement.id") == "next"
    page.keyboard.press("Space")
    assert shown_pairs(page) == ["pair-fgsm--vgg16--resnet50"]


def test_a_link_to_a_pair_opens_it(visit):
    page = visit("#pair-bim--vgg16--resnet50")
    assert shown_pairs(page) == ["pair-bim--vgg16--resnet50"]
    assert page.locator("#pick-attack").input_value() == "bim"
    playwright_api.expect(page.locator("#pair-bim--vgg16--resnet50 h3")).to_be_in_viewport()
    page.evaluate("location.hash = '#fig-curves-fgsm-1-1'")  # a drawing inside another pair
    page.wait_for_selector("#pair-fgsm--resnet50--resnet50", state="visible")
    assert shown_pairs(page) == ["pair-fgsm--resnet50--resnet50"]
    playwright_api.expect(page.locator("#fig-curves-fgsm-1-1 h4")).to_be_in_viewport()


def test_a_link_may_be_written_in_per_cent_codes(visit):
    page = visit("#pair-fgsm--vgg16--a-model_with%2Ba-very_long%2Bname")
    assert shown_pairs(page) == [f"pair-fgsm--vgg16--{MODELS[2]}"]


def test_an_unknown_link_shows_the_first_pair(visit):
    page = visit("#pair-none%E9")
    assert shown_pairs(page) == ["pair-fgsm--vgg16--vgg16"]


def test_the_budget_recolours_every_matrix_that_has_it(visit):
    page = visit()
    colour = "found => getComputedStyle(found).backgroundColor"
    before = [spot(page, FIRST_CELL, matrix).evaluate(colour) for matrix in (0, 1)]
    clean = words(spot(page, 0))
    assert words(spot(page, FIRST_CELL)) == "20 / 100 = 20.00 % white box"
    page.focus("#budget-0")
    page.keyboard.press("ArrowLeft")
    assert words(spot(page, FIRST_CELL)) == "80 / 100 = 80.00 % white box"
    assert words(spot(page, FIRST_CELL, 1)) == "80 / 100 = 80.00 % white box"
    assert page.locator("#budget-1").input_value() == "0"
    assert page.locator("#budget-0").get_attribute("aria-valuetext") == "2/255"
    assert "budget 2/255" in words(page.locator('[data-matrix="1"] caption'))
    page.wait_for_timeout(300)
    after = [spot(page, FIRST_CELL, matrix).evaluate(colour) for matrix in (0, 1)]
    assert all(one != other for one, other in zip(before, after, strict=True))
    page.keyboard.press("Home")  # 1/255, which the second matrix lacks
    assert words(spot(page, FIRST_CELL)) == "90 / 100 = 90.00 % white box"
    assert words(spot(page, FIRST_CELL, 1)) == "80 / 100 = 80.00 % white box"
    assert words(spot(page, 0)) == clean == "180 / 200 = 90.00 %"


def test_the_protocol_changes_every_matrix_that_has_it(visit):
    page = visit()
    first, second = page.locator("#pick-protocol-0"), page.locator("#pick-protocol-1")
    assert first.input_value() == second.input_value() == "joint"
    told, readout = page.locator(".explained").first, page.locator(".readout").first
    assert words(told).startswith("joint: images that source and target both classify correctly")
    clean, empty = words(spot(page, 0)), spot(page, FIRST_CELL + 3 * 2 + 1)
    before = colour_of(page.locator('[data-cell="3"] .spot').first, "backgroundColor")
    spot(page, FIRST_CELL + 1).focus()
    assert words(readout) == FOUND
    page.get_by_label("Images counted").first.select_option("all")
    assert words(spot(page, FIRST_CELL)) == "120 / 200 = 60.00 % white box"
    assert words(spot(page, FIRST_CELL, 1)) == "120 / 200 = 60.00 % white box"
    assert second.input_value() == "all" and words(empty) == "120 / 200 = 60.00 %"
    assert words(spot(page, 0)) == clean == "180 / 200 = 90.00 %"
    assert "protocol all: 120 / 200 still correct = 60.00 %" in words(readout)
    assert "interval 55.00 to 65.00 %" in words(readout)
    assert words(told).startswith("all: images count whatever")
    assert "protocol: all." in words(page.locator('[data-matrix="1"] caption'))
    page.wait_for_timeout(300)
    after = colour_of(page.locator('[data-cell="3"] .spot').first, "backgroundColor")
    assert after != before
    first.select_option("source_correct")  # which the second matrix lacks
    assert words(spot(page, FIRST_CELL)) == "70 / 150 = 46.67 % white box"
    assert words(spot(page, FIRST_CELL, 1)) == "120 / 200 = 60.00 % white box"
    page.focus("#budget-0")
    page.keyboard.press("ArrowLeft")
    assert words(spot(page, FIRST_CELL)) == "130 / 150 = 86.67 % white box"
    assert words(spot(page, FIRST_CELL, 1)) == "180 / 200 = 90.00 % white box"
    second.select_option("joint")
    assert words(spot(page, FIRST_CELL)) == "80 / 100 = 80.00 % white box"
    assert words(empty) == "no image"


def test_cells_without_images_say_so_at_every_budget(visit):
    page = visit()
    number = FIRST_CELL + 3 * 2 + 1
    assert words(spot(page, number)) == "no image"
    page.focus("#budget-0")
    page.keyboard.press("ArrowLeft")
    assert words(spot(page, number)) == "no image"
    spot(page, number).hover()
    assert "no image in the denominator" in words(page.locator(".readout").first)


FOUND = (
    "fgsm made on vgg16, shown to resnet50, budget 8/255, protocol joint: 20 / 100 still correct "
    "= 20.00 % robust accuracy, 95 % interval 15.00 to 25.00 %. Go to this pair"
)


def test_a_cell_tells_its_counts_and_interval_when_pointed_at_or_focused(visit):
    page = visit()
    readout = page.locator(".readout").first
    assert readout.get_attribute("aria-live") == "polite"
    spot(page, FIRST_CELL + 1).hover()
    assert words(readout) == FOUND
    spot(page, 0).focus()
    assert words(readout) == (
        "Clean images shown to vgg16: 180 / 200 = 90.00 %, 95 % interval 85.00 to 95.00 %."
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert words(readout).startswith("fgsm made on vgg16, shown to vgg16 (white box), budget 8/255")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_click_and_enter_lead_to_the_pair(visit):
    page = visit()
    spot(page, FIRST_CELL + 1).click()
    assert shown_pairs(page) == ["pair-fgsm--vgg16--resnet50"]
    playwright_api.expect(page.locator("#pair-fgsm--vgg16--resnet50 h3")).to_be_in_viewport()
    assert spot(page, FIRST_CELL + 1).get_attribute("aria-current") == "true"
    spot(page, FIRST_CELL + 3).focus()
    page.keyboard.press("Enter")
    assert shown_pairs(page) == ["pair-fgsm--resnet50--vgg16"]
    playwright_api.expect(page.locator("#pair-fgsm--resnet50--vgg16 h3")).to_be_in_viewport()


def test_the_first_tap_tells_and_the_second_leads_to_the_pair(visit):
    page = visit(width=390, height=844, has_touch=True, is_mobile=True, reduced_motion="reduce")
    target = spot(page, FIRST_CELL + 1)
    target.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    target.tap()
    page.wait_for_timeout(300)  # would be enough to go elsewhere
    assert page.evaluate("scrollY") == before
    assert words(page.locator(".readout").first) == FOUND
    playwright_api.expect(page.locator(".readout").first).to_be_in_viewport()
    playwright_api.expect(page.locator("#pair-fgsm--vgg16--resnet50 h3")).not_to_be_in_viewport()
    assert shown_pairs(page) == ["pair-fgsm--vgg16--resnet50"]  # picked already
    target.tap()
    playwright_api.expect(page.locator("#pair-fgsm--vgg16--resnet50 h3")).to_be_in_viewport()


def test_data_open_and_downloads_hold_what_they_promise(visit, tmp_path):
    page = visit()
    details = page.locator(".pair.chosen details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert words(details.locator("tbody")) == "0 1 8 0.2"

    def saved(link):
        with page.expect_download() as download:
            link.click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    path = saved(details.locator("a[download]"))
    assert path.name == "curves-fgsm-0-0.csv" and path.read_text() == "eps_255,rate\n0,1\n8,0.2\n"
    links = page.locator("#downloads a")
    assert saved(links.first).read_bytes() == b"a,b\n1,100 %\n"
    assert saved(links.nth(1)).read_bytes() == bytes(range(256))


def hex_of(page, selector, key):
    return colour_of(page.locator(selector).first, key)


def colour_of(locator, key):
    found = locator.evaluate(f"found => getComputedStyle(found).{key}")
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", found)[:3])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_figures_are_readable_in_light_and_dark(visit, scheme):
    page = visit(color_scheme=scheme)
    paper = hex_of(page, "body", "backgroundColor")
    assert (contrast(paper, "#000000") > 10) == (scheme == "light")
    card = hex_of(page, ".pair.chosen .canvas", "backgroundColor")
    assert (contrast(card, "#000000") > 10) == (scheme == "light")
    for selector, behind in (
        ("h1", paper),
        ("figcaption", paper),
        (".bar a", paper),
        (".answer", paper),
        (".chosen summary", paper),
        (".readout", hex_of(page, ".readout", "backgroundColor")),
        (".chosen .grid thead th", card),
        (".chosen .grid td", card),
    ):
        assert contrast(hex_of(page, selector, "color"), behind) >= 4.5, selector
    assert contrast(hex_of(page, ".chosen svg text", "fill"), card) >= 7
    grid = contrast(hex_of(page, '.chosen svg path[style*="--ink-d"]', "stroke"), card)
    assert 1.1 < grid < 2
    # The black line, which could not be seen on dark paper.
    assert contrast(hex_of(page, '.chosen svg path[style*="currentColor"]', "stroke"), card) >= 7
    for found in page.locator(".spot:visible").all()[:9]:
        assert contrast(colour_of(found, "color"), colour_of(found, "backgroundColor")) >= 4.5
    # Pictures keep white paper.
    assert hex_of(page, "#fig-p .canvas", "backgroundColor") == "#ffffff"


def test_the_colours_can_be_switched_and_stay_so(visit):
    page = visit(color_scheme="dark")
    dark = hex_of(page, "body", "backgroundColor")
    assert words(page.locator("#theme")) == "Light colours"
    page.click("#theme")
    light = hex_of(page, "body", "backgroundColor")
    assert contrast(light, dark) > 10 and words(page.locator("#theme")) == "Dark colours"
    page.reload()
    assert hex_of(page, "body", "backgroundColor") == light


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("javascript", [True, False])
def test_the_page_never_scrolls_sideways(visit, width, javascript):
    page = visit(width=width, java_script_enabled=javascript)
    assert page.locator("#table-wide .scroll").evaluate("box => box.scrollWidth > box.clientWidth")
    if javascript:
        page.locator(".chosen summary").first.click()
    assert overflow(page) <= 0


def test_row_headings_stay_in_sight_when_a_table_scrolls(visit):
    page = visit(width=390)
    box = page.locator("#table-wide .scroll")
    box.evaluate("found => { found.scrollLeft = 600 }")
    edges = box.evaluate(
        "found => [found.getBoundingClientRect().left,"
        " found.querySelector('tbody th').getBoundingClientRect().left]"
    )
    assert edges[1] - edges[0] == pytest.approx(1, abs=1)


def test_only_boxes_that_scroll_are_stops_of_the_keyboard(visit):
    wide, narrow = "#table-wide .scroll", ".pair.chosen .table .scroll"
    page = visit()
    page.wait_for_selector(f'{narrow}[tabindex="-1"]')
    assert page.locator(wide).get_attribute("tabindex") == "0"
    drawing = page.locator(".pair.chosen .canvas")
    assert drawing.get_attribute("tabindex") == "-1"
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_selector('.pair.chosen .canvas[tabindex="0"]')
    page.focus(".pair.chosen .canvas")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    assert page.locator(".pair.chosen .canvas").evaluate("box => box.scrollLeft") > 0


def test_without_javascript_everything_is_there(visit):
    page = visit(java_script_enabled=False)
    assert len(shown_pairs(page)) == 11
    assert page.locator(".needs-script:visible").count() == 0
    assert words(spot(page, FIRST_CELL)) == "20 / 100 = 20.00 % [15.00 to 25.00 %] white box"
    spot(page, FIRST_CELL + 1).click()
    assert page.url.endswith("#pair-fgsm--vgg16--resnet50")
    playwright_api.expect(page.locator("#pair-fgsm--vgg16--resnet50 h3")).to_be_in_viewport()


def test_landmarks_and_the_skip_link(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("main").count() == page.locator("h1").count() == 1
    assert page.locator("nav a").count() == page.locator("main > section").count()
    unnamed = page.locator("button:visible, a:visible, select:visible, input:visible").evaluate_all(
        "found => found.filter(one => !(one.textContent.trim() || one.ariaLabel ||"
        " one.labels?.length)).length"
    )
    assert unnamed == 0


def test_print_leaves_out_the_controls_and_opens_the_data(visit):
    page = visit(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    for selector in (".bar", ".picker", ".control", ".readout", ".save"):
        assert page.locator(f"{selector}:visible").count() == 0, selector
    assert hex_of(page, "body", "backgroundColor") == "#ffffff"
    assert shown_pairs(page) == ["pair-fgsm--vgg16--vgg16"]
    table = page.locator(".chosen details table")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert table.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not table.is_visible()


def test_motion_is_left_out_for_who_wants_none(visit):
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit(reduced_motion="reduce").evaluate(behaviour) == "auto"
    assert visit(reduced_motion="no-preference").evaluate(behaviour) == "smooth"


def marks():
    """Draw what a rearranged SVG could get wrong: overlaps, opacity, joins, hatches, clipping."""
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.scatter([0, 0.02, 0.04], [0, 0, 0.01], s=900, c="#D55E00", alpha=0.4)
    axes.scatter([0.5, 0.6], [0.5, 0.9], s=[200, 400], c=["#0072B2", "#009E73"], marker="D")
    axes.plot([0, 0.3, 0.35, 0.4], [1, 0.2, 1, 0.2], linewidth=9, color="#CC79A7")
    axes.plot([0.4, 0.43, 0.46], [0.7, 0.7, 0.7], "o", markersize=20, alpha=0.5)
    axes.plot([0, 1], [0.3, 0.4], "--o", color="black", markerfacecolor="white")
    axes.bar([0.8], [0.7], width=0.2, hatch="//", color="#56B4E9", edgecolor="black")
    axes.errorbar([0.9], [0.8], yerr=[[0.3], [0.4]], capsize=4)
    axes.fill_between([0, 1], [-1, 0.1], [0.1, 0.2], alpha=0.3)
    axes.imshow([[0, 1], [1, 0]], extent=(0.6, 0.75, 0.05, 0.2), aspect="auto", zorder=9)
    axes.text(0.1, 0.6, "tilted \u00b5 $x^2$", rotation=30, fontweight="bold", style="italic")
    axes.set(xlim=(-0.1, 1), ylim=(-0.1, 1))
    axes.annotate("here", (0.5, 0.5), (0.2, 0.8), arrowprops={"arrowstyle": "->"})
    axes.legend(handles=axes.get_lines()[:1], labels=["a line"])
    return figure


def test_rearranged_svgs_look_like_matplotlibs(browser, tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        marks().savefig(tmp_path / "before.svg")
    (tmp_path / "after.svg").write_bytes(standalone_svg(marks()))
    page = browser.new_page(viewport={"width": 500, "height": 400})
    seen = []
    for name in ("before.svg", "after.svg"):
        page.goto((tmp_path / name).as_uri())
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        seen.append(np.asarray(picture, dtype=int))
    page.close()
    assert seen[0].std() > 30
    # Edges move by less than a pixel; a missing corner would fill a block of four by four.
    blocks = (seen[0] - seen[1]).reshape(100, 4, 125, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks).max() < 35


def test_a_page_without_pairs_or_matrices_runs(browser, report, tmp_path):
    small = replace(report, before=(), pairs=report.pairs[:1])
    for lacking in ({"pairs": ()}, {"matrices": ()}, {"pairs": (), "matrices": ()}):
        path = tmp_path / "page.html"
        write_page(replace(small, **lacking), path)
        page = browser.new_page()
        complaints = []
        page.on("pageerror", lambda error, kept=complaints: kept.append(str(error)))
        page.goto(path.as_uri())
        assert words(page.locator("#theme")) == "Dark colours"  # set up after the others
        assert complaints == []
        page.close()
