"""Two sweeps that cannot be compared, on one page."""

import pytest

from src.artifacts.jobs import find_jobs
from src.report.page.frame import build_report
from src.report.page.html import as_json
from src.report.results import results_of
from tests.report.test_page import percent, select

KIND = "incomparable sweeps"
SHARED = {"colours", "charts", "letter", "name", "about"}


def test_each_sweep_has_the_numbers_of_its_own_page(made_up, results_of_kind):
    report = made_up(KIND)
    assert [its.page["name"] for its in report.sweeps.values()] == ["one", "two"]
    for its in report.sweeps.values():
        jobs = [job for job in results_of_kind(KIND).jobs if its.page["name"] in job.sweeps]
        alone = build_report(results_of(find_jobs([jobs[0].sweep_folder])))
        assert not alone.sweeps and alone.answer == its.answer and alone.blocks == its.blocks
        for name in alone.page.keys() - SHARED:
            assert as_json(alone.page[name]) == as_json(its.page[name]), name
    one, two = (its.page["colours"] for its in report.sweeps.values())
    assert one == two and {*one} == {"fgsm", "bim", "mi"}


def test_the_answer_is_for_both_and_names_what_differs(made_up):
    report = made_up(KIND)
    text, details = "".join(report.answer[:2]), report.answer[2]
    assert " in A" in text and " in B" in text and "at 8/255; A and B cannot be compared" in text
    assert "mean over A and B, or a difference between them" in details and "again" in details
    facts = {label: texts for label, *texts in report.differs.cells}
    assert facts["images"] == ["120", "90, of which 90 are in A"]
    assert facts["budgets, /255"] == ["2, 8", "8, 16"] and "norm" not in facts
    assert report.page["answers"]["B"] == report.sweeps["B"].answer


@pytest.mark.slow
def test_halves_show_their_sweep_under_one_selection(opened, results_of_kind):
    tab, results = opened(KIND), results_of_kind(KIND)
    assert sorted(tab.locator("#controls .chip").all_inner_texts()) == ["bim", "fgsm", "mi"]
    for number, side in ((1, ""), (2, "-2")):
        rows = results.select(group=number, eps_255=8.0, protocol="joint", defence="none")
        rows = rows[rows["attack"].str.startswith("fgsm") & (rows["source"] == "vgg")]
        select(tab, attack="fgsm", eps=8)
        for row in rows[rows["target"] != "mean"].to_dict("records"):
            cell = tab.inner_text(f"#matrix{side} [data-pair='vgg>{row['target']}']").split()
            counts = f"{row['success']:.0f}", "/", f"{row['denominator']:.0f}"
            assert cell == [percent(row["success_rate"]), *counts]
        letter = "AB"[number - 1]
        titles = tab.locator(f"#columns{side} h2, #image{side} h2").all_inner_texts()
        assert len(titles) == 3 and all(letter in title.split(":")[0] for title in titles)
    assert tab.locator("#controls [data-value='2'] small").inner_text().strip() == "A"
    select(tab, eps=16)
    assert "has no 16/255" in tab.inner_text("#half") and not tab.locator("#matrix").is_visible()
    assert "16/255, B" in tab.inner_text("#matrix-2 h2")
    tab.click("#controls [aria-label=sweep] [data-value=B]")
    assert tab.locator("#matrix-2").is_hidden() and tab.locator("#tiles .tile").count() == 3
    assert "gradients" in tab.inner_text("#ranking") and "16/255" in tab.inner_text("#matrix h2")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1440
    tab.click("nav a:text-is('Images')")
    tab.wait_for_selector("#images .classes")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1141, 1440])
def test_two_halves_fit_the_window(opened, width):
    tab = opened(KIND, "#attack=fgsm&image=1", viewport={"width": width, "height": 900})
    tab.wait_for_selector("#image-2 .strip")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    bottom = "one => one.getBoundingClientRect().bottom"
    assert width < 1440 or tab.eval_on_selector("#legend", bottom) <= 900
