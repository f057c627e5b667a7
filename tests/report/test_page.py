"""The page in a browser: it requests nothing, its controls work, and names are escaped."""

import re
import shutil
from html.parser import HTMLParser

import pytest

from src.report.page import write_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
LINES = "#answer .vega svg .mark-line.role-mark path"


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

    def open_page(kind: str, **settings):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("request", lambda request: noise.append(request.url))
        tab.goto(written(kind).as_uri())
        if settings.get("java_script_enabled", True):
            tab.wait_for_selector(LINES, state="attached")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    asked = [line for line in noise if not line.startswith(("file:", "data:"))]
    assert asked == []


def labels(tab, selector: str) -> list[str]:
    return [each.get_attribute("aria-label") for each in tab.query_selector_all(selector)]


PLACES = """lines => [...document.querySelectorAll(lines)].map(line => {
  const at = line.getBoundingClientRect();
  const over = [...document.querySelectorAll("#answer svg text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.bottom < at.top + 5 && box.right > at.left && box.left < at.right;
  }).map(text => text.textContent.match(/^(?:source: )?(vgg|resnet|vit|model_.)$/)?.[1]);
  return [line.__data__.datum.source, over.find(name => name)];
})"""


def drawn_sources(tab, count: int) -> set[str]:
    """Wait for a number of curves, and return their sources, which must be their headings."""
    tab.wait_for_function(f"lines => document.querySelectorAll(lines).length == {count}", arg=LINES)
    places = tab.evaluate(PLACES, LINES)
    assert all(source == heading for source, heading in places), places
    return {source for source, _ in places}


def see(box) -> None:
    """Scroll to a chart, so that it is embedded."""
    box.scroll_into_view_if_needed()
    box.wait_for_selector("svg.marks", state="attached")


def test_menus_cells_and_dots_choose_what_is_drawn(opened):
    tab = opened("ordinary")
    assert len(tab.query_selector_all(LINES)) == 2 * 3 * 3 * 2  # measures, pairs, attacks
    cells = "#answer svg .mark-rect [aria-label*='k: ']"
    before = labels(tab, cells)
    tab.select_option("#answer select >> nth=1", label="16")
    for attack in ("fgsm", "bim"):
        tab.select_option("#answer select >> nth=0", label=attack)
        title = f"{attack} at 16/255"
        tab.wait_for_function("text => document.body.innerHTML.includes(text)", arg=title)
    assert labels(tab, cells) != before
    see(tab.query_selector("#hypothesis .vega"))
    title = "#hypothesis .vega svg .role-title-text"
    assert "fgsm, vgg to vgg" in tab.inner_text("section#hypothesis .vega")
    tab.click("#hypothesis [aria-label*='attack: bim; source: vit; target: vgg'] >> nth=-1")
    tab.wait_for_function(
        "title => [...document.querySelectorAll(title)].some(e => /bim, vit to vgg/.test("
        "e.textContent))",
        arg=title,
    )


def test_curves_stand_under_the_headings_of_their_sources(opened):
    tab = opened("ordinary")
    cell = "#answer svg .mark-rect [aria-label*='source: {}'][aria-label*='target: {}']".format
    entry = "#answer svg .role-legend-label text:text-is('{}')".format
    models = {"vgg", "resnet", "vit"}
    assert drawn_sources(tab, 36) == models  # measures, pairs, attacks
    tab.click(cell("resnet", "vit"))
    assert drawn_sources(tab, 4) == {"resnet"}
    tab.click(entry("bim"))
    assert drawn_sources(tab, 2) == {"resnet"}
    tab.click(cell("clean", "vit"))  # changes nothing
    tab.click(cell("vit", "resnet"))
    assert drawn_sources(tab, 4) == {"resnet", "vit"}
    ticks = "axes => axes.map(axis => [...axis.children].map(text => text.textContent).join(' '))"
    axes = tab.eval_on_selector_all("#answer svg .role-axis-label", ticks)
    assert axes.count("0 1 2 4 8 16") == 2 * 3


def test_every_chart_is_embedded_and_nothing_overflows(opened):
    tab = opened("ordinary", color_scheme="dark", viewport={"width": 390, "height": 800})
    for box in tab.query_selector_all(".vega"):
        see(box)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    label = tab.query_selector("#answer svg .role-axis-label text")
    assert label.get_attribute("fill") == "#fff"


def test_hostile_names_are_text(opened):
    tab = opened("hostile names")
    tab.hover("#answer svg [aria-label*='source: <script>']", force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    assert "<script>alert(1)</script>" in tab.inner_text("#vg-tooltip-element")
    assert not tab.query_selector_all("#vg-tooltip-element script")


class Parsed(HTMLParser):
    """Notes addresses, ids, and scripts that names could have smuggled in."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[key] for key in ("src", "href") if values.get(key)]
        self.ids += [values["id"]] if "id" in values else []
        self.scripts += tag == "script"


@pytest.mark.parametrize("kind", ["ordinary", "one image", "hostile names"])
def test_the_page_is_whole_and_refers_to_nothing_outside(written, made_up, kind):
    path = written(kind)
    parsed = Parsed()
    parsed.feed(path.read_text())
    report = made_up(kind)
    assert all(address.startswith("data:") for address in parsed.addresses)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.scripts == len(report.figures) + 2  # specifications, Vega, and what embeds
    text = re.sub(r"\s+", " ", path.read_text())
    assert all(f'id="{section.id}"' in text for section in report.sections)
