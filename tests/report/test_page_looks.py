"""How the page looks in a browser: nothing overflows, texts are legible, and it prints whole."""

from itertools import pairwise, product

import pytest

from tests.conftest import REPOSITORY
from tests.report.conftest import LONG

QUICK = [("ordinary", 390)]


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow)
        for pair in product(
            ("ordinary", "one model", "audit", "many models", "long names"),
            (390, 768, 1280, 1920),
        )
    ],
)
def test_nothing_overflows(opened, kind, width):
    tab = opened(kind, color_scheme="dark", viewport={"width": width, "height": 800})
    views = tab.locator("nav a").all_inner_texts()
    for number in range(len(views)):
        tab.locator("nav a").nth(number).click()
        tab.wait_for_timeout(100)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, views[number]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", ["audit", "one model", "one source"])
def test_no_part_begins_under_the_bar(opened, kind, width):
    tab = opened(kind, viewport={"width": width, "height": 844})
    gap = """() => { const bar = document.querySelector('.bar').getBoundingClientRect().bottom;
      return Math.min(...[...document.querySelectorAll('main *')].filter((one) =>
        one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3
        && node.textContent.trim())).map((one) => one.getBoundingClientRect().top)) - bar; }"""
    for name in tab.locator("nav a").all_inner_texts():
        tab.click(f"nav a:text-is('{name}')")
        tab.evaluate("scrollTo(0, 0)")
        assert tab.evaluate(gap) >= 6, name


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_counts_of_neighbouring_cells_do_not_touch(opened, width):
    tab = opened("thousands", "#protocol=all", viewport={"width": width, "height": 844})
    spans = """rows => rows.map((row) => [...row.querySelectorAll('small')].map((one) => {
      const range = document.createRange(); range.selectNodeContents(one);
      const { left, right } = range.getBoundingClientRect(); return [left, right]; }))"""
    rows = [row for row in tab.locator("#matrix tr").evaluate_all(spans) if row]
    assert len(rows) == 2 and all(len(row) == 5 for row in rows)
    for row in rows:
        assert all(ahead[0] - behind[1] >= 2 for behind, ahead in pairwise(row))


@pytest.mark.slow
def test_the_name_of_an_attack_breaks_between_its_parts_alone(opened):
    height = "one => one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight)"
    tab = opened("long attack")
    assert tab.locator("#images .role:not(:empty)").first.evaluate(height) < 2
    tab = opened("long attack in transfer")
    cut = "all => all.some((one) => one.scrollWidth > one.clientWidth)"
    assert not tab.locator("#ranking .ranked > :not(.plot)").evaluate_all(cut)
    assert tab.locator("#ranking .ranked .name button").evaluate_all(
        """all => all.map((one) => { const range = document.createRange();
          range.selectNodeContents(one); return range.getClientRects().length; })"""
    ) == [2]


@pytest.mark.slow
def test_the_dot_of_a_small_line_is_round(opened):
    tab = opened("ordinary")
    dots = tab.locator("#matrix svg path:last-child")
    effect = "one => getComputedStyle(one).vectorEffect"
    assert dots.count() and dots.first.evaluate(effect) == "non-scaling-stroke"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ordinary", "long names"])
def test_the_first_screen_ends_above_the_fold(opened, kind):
    tab = opened(kind, "#attack=fgsm&image=1")  # it has pictures
    assert tab.locator("#image .strip canvas").count() > 2
    bottom = "one => one.getBoundingClientRect().bottom"
    assert tab.eval_on_selector("#image .strip", bottom) <= 900
    assert tab.eval_on_selector("#image .chart", bottom) <= 900
    tab = opened(kind, "#attack=fgsm&image=1", viewport={"width": 1280, "height": 900})
    top = "one => one.getBoundingClientRect().top"
    assert tab.eval_on_selector("#image .strip", top) < 900


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 1280])
def test_names_in_the_matrix_break_between_their_parts_alone(opened, width):
    tab = opened("long names", viewport={"width": width, "height": 900})
    parts = tab.locator("#matrix th span").evaluate_all(
        """all => all.map((one) => [one.textContent, one.offsetHeight /
          parseFloat(getComputedStyle(one).lineHeight), one.offsetWidth])"""
    )
    names = "".join(text for text, _, _ in parts)
    assert all(names.count(name) >= 1 for name in LONG)
    assert all(lines == 1 for _, lines, _ in parts), parts
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cut = "all => all.some((one) => one.scrollWidth > one.clientWidth)"
    assert not tab.locator("#matrix :is(.scroll, th, button)").evaluate_all(cut)
    assert not tab.locator("#ranking .ranked > :not(.plot)").evaluate_all(cut)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_charts_have_a_legible_size(opened, scheme):
    tab = opened("ordinary", color_scheme=scheme)
    # Colours of texts against the background of the nearest element that has one.
    found = tab.evaluate(
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
              return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), parseFloat(style.fontSize),
                one.textContent.slice(0, 40)]; });
        }"""
    )
    assert len(found) > 100
    boxed = [each for each in found if each[0] == 1]  # the chosen budget, on its box in a chart
    assert {each[2] for each in boxed} == {"8"} and len(boxed) == 3
    assert not [each for each in found if each not in boxed and each[0] < 4.5]
    assert not [each for each in found if each[1] < 11]


@pytest.mark.slow
@pytest.mark.parametrize("view", ["results", "images", "method"])
def test_the_page_prints_every_part(opened, tmp_path, view):
    tab = opened("ordinary", f"#attack=fgsm&eps=2&view={view}", color_scheme="dark")
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
    tab.wait_for_timeout(300)
    tab.emulate_media(media="print")
    assert tab.locator("#controls").is_hidden()
    assert "fgsm" in tab.inner_text("#selected") and "2/255" in tab.inner_text("#selected")


@pytest.mark.slow
def test_paper_cuts_no_table(opened):
    tab = opened("many models")
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of 1 cm
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    cut = """() => [...document.querySelectorAll('main table, main .scroll, main li')].filter(
      (box) => box.getBoundingClientRect().right > 719 || (box.scrollWidth > box.clientWidth + 1
        && getComputedStyle(box).overflowX !== 'visible')).map((box) => box.className)"""
    assert tab.evaluate("document.querySelectorAll('main table').length") > 1
    assert tab.evaluate(cut) == []


@pytest.mark.slow
def test_legends_of_long_names_are_whole(opened):
    tab = opened("long names", "#attack=fgsm&view=why")
    tab.wait_for_selector("#figure-similarity svg.marks")
    tab.wait_for_timeout(500)
    beyond = """all => all.filter((one) => one.getBoundingClientRect().right
      > one.closest('.chart').getBoundingClientRect().right + 1).map((one) => one.textContent)"""
    names = tab.locator("#why .role-legend-label text")
    assert names.count() > len(LONG) and names.evaluate_all(beyond) == []


@pytest.mark.slow
def test_long_names_do_not_widen_paper(opened):
    tab = opened("long names", "#attack=fgsm", viewport={"width": 718, "height": 1000})
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_selector("#figure-similarity svg.marks", state="attached")
    tab.wait_for_timeout(500)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 719


def test_lines_of_templates_are_short():
    folder = REPOSITORY / "src" / "report" / "templates"
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    assert max(map(len, lines)) <= 120
