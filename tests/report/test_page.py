import base64
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote, unquote_to_bytes
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from src.analysis import PROTOCOLS
from src.report.chapters.matrices import answer, matrices
from src.report.compact import compact
from src.report.content import Download, Drawing, Matrix, Pair, Report, Section, Table
from src.report.ink import DARK_PAPER, contrast, dark_variables, ink_on, screen_colour
from src.report.page import page_of, save_drawings, write_page
from src.report.page_matrix import matrix_parts
from src.report.page_parts import csv_of, grid_of, pair_ids
from src.report.style import PALETTE, RIGHT, WRONG
from src.report.svg import embedded_picture, inline_svg, standalone_svg

EVIL = (
    "</script><script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 2\"> & '$x$'"
)
VOID = {"meta", "link", "br", "img", "input", "wbr"}


class Page(HTMLParser):
    """The elements of a page, and whether they nest as they should."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def count(self, tag, **wanted):
        return len(self.all(tag, **wanted))

    def all(self, tag, **wanted):
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    def by_class(self, name):
        return [found for _, found in self.elements if name in (found.get("class") or "").split()]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def line_figure(label="accuracy $\\epsilon$", colour=PALETTE[0]):
    figure = Figure(figsize=(4, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 0.5, 0.2], color=colour, marker="o", markerfacecolor="white")
    axes.fill_between([0, 1, 2], [0.9, 0.4, 0.1], [1, 0.6, 0.3], color=colour, alpha=0.2)
    axes.grid(color="#DDDDDD")
    axes.set_xlabel(label)
    return figure


def noise_figure(inches=6.0):
    figure = Figure(figsize=(inches, inches))
    axes = figure.subplots()
    axes.imshow(np.random.default_rng(0).random((400, 400, 3)))
    return figure


def drawing(name, **changes):
    given = {
        "title": f"Title of {name}",
        "caption": "n = 3",
        "alt": "falls",
        "data": pd.DataFrame({"x": [0, 1, 2], "y": [1.0, 0.5, np.nan]}),
    }
    figure = changes.pop("figure") if "figure" in changes else line_figure()
    return Drawing(name, figure=figure, **(given | changes))


def table(name, **changes):
    frame = pd.DataFrame({"model": ["a", "b"], "rate": ["1 / 2 = 50.00%", "0 / 0 = n/a"]})
    return Table(name, **({"title": "Rates.", "caption": "n", "frame": frame} | changes))


def cell(source, target, eps, count, denominator, protocol="joint"):
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


def matrix_of(attack="fgsm", models=("vgg16", "resnet50"), **changes):
    """Of 200 images 180 are right clean; two per cent of a hundred less for each budget."""
    rows = [cell("clean", target, 0.0, 180, 200) for target in models]
    rows += [
        cell(source, target, eps, 100 - int(2 * eps) - 50 * (source == target), 100)
        for eps in (4.0, 8.0)
        for source in models
        for target in models
    ]
    given = {
        "dataset": "photos",
        "protocol": "joint",
        "counted": "still correct",
        "rate": "robust accuracy",
        "standard": 8.0,
        "cells": pd.DataFrame(rows),
    }
    return Matrix(attack, **(given | changes))


def pair(attack, source, target, **changes):
    name = f"{attack}-{source}-{target}"
    given = {
        "white_box": source == target,
        "text": (f"Sentence on {name}.", "And another."),
        "drawings": (drawing(f"curves-{name}"),),
        "tables": (table(f"rates-{name}"),),
    }
    return Pair(attack, source, target, **(given | changes))


def full_report(models=("vgg16", "resnet50"), attacks=("fgsm", "bim")):
    return Report(
        title="Transfer",
        answer="vgg16 is right on 84 of 100.",
        facts=(("Weights", "0123456789abcdef" * 4),),
        matrices=tuple(matrix_of(attack, models) for attack in attacks),
        before=(Section("hypothesis", "Hypothesis 1", ("Words.",), (drawing("effects"),)),),
        pairs=tuple(pair(a, s, t) for a in attacks for s in models for t in models),
        after=(Section("clean-data", "Clean", (), (), (table("classes"),)),),
        missing=("No spectra.",),
        notes=(("robust accuracy", "Still correct / denominator."),),
        downloads=(Download("rates.csv", "All rates", b"a,b\n1,2\n"),),
    )


@pytest.fixture(scope="module")
def text():
    return page_of(full_report())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def data_of(text):
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def content_of(address):
    head, _, body = address.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)


def test_the_parts_stand_in_order_and_in_the_contents(page):
    sections = [found["id"] for found in page.all("section")]
    assert sections == [
        "matrix",
        "run",
        "hypothesis",
        "pairs",
        "clean-data",
        "missing",
        "methods",
        "downloads",
    ]
    links = [found["href"] for found in page.all("a")][1 : len(sections) + 1]
    assert links == [f"#{section}" for section in sections]
    assert page.text.index("Transfer ") < page.text.index("vgg16 is right on 84 of 100.")


def test_ids_are_unique_and_every_reference_finds_one(text, page):
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    wanted = set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted  # clip paths
    for _, found in page.elements:
        href = found.get("href") or ""
        wanted |= {unquote(href[1:])} if href.startswith("#") else set()
        for key in ("aria-labelledby", "for"):
            wanted |= set((found.get(key) or "").split())
    assert wanted <= set(ids)


def test_names_that_begin_alike_do_not_share_ids():
    drawings = tuple(drawing(name) for name in ("x", "x-1", "x-title", "x-1-title", "svg-x"))
    tables = tuple(table(name) for name in ("y", "fig-x", "y-1"))
    report = Report(
        "t",
        "a",
        before=(Section("s", "S", (), drawings, tables), Section("s-title", "S")),
        pairs=tuple(Pair("a", "s", target, False) for target in ("t", "t-title", "t--title")),
    )
    ids = [found["id"] for _, found in Page(page_of(report)).elements if "id" in found]
    assert len(ids) == len(set(ids)) > 30


def test_the_page_asks_for_nothing(text, page):
    for _, found in page.elements:
        for key, value in found.items():
            if key in ("src", "href", "srcset", "action", "data", "poster"):
                assert value.startswith(("#", "data:"))
            assert not key.startswith("on")
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_only_the_pages_own_script_may_run(text, page):
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert page.count("script") == 2 and page.count("script", type="application/json") == 1


def evil_report():
    frame = pd.DataFrame({EVIL: [EVIL, "b"], "n": [1, 2]})
    shown = Drawing("d", EVIL, EVIL, EVIL, line_figure(EVIL.replace("$", "\\$")), "", frame)
    told = Drawing("e", EVIL, EVIL, EVIL, None, EVIL)
    seen = Drawing("f", EVIL, EVIL, EVIL, noise_figure(1), "", None, True)
    content = Table("t", EVIL, EVIL, frame)
    parts = {"text": (EVIL,), "drawings": (shown, told, seen), "tables": (content,)}
    cells = pd.DataFrame([cell(EVIL, EVIL, 8.0, 1, 2, one) for one in (EVIL, "all")])
    return Report(
        title=EVIL,
        answer=EVIL,
        facts=((EVIL, EVIL),),
        matrices=(Matrix(EVIL, EVIL, EVIL, EVIL, EVIL, 8.0, cells),),
        pairs=(Pair(EVIL, EVIL, EVIL, True, **parts),),
        missing=(EVIL,),
        notes=((EVIL, EVIL),),
        downloads=(Download(EVIL, EVIL, EVIL.encode(), "text/plain"),),
    )


def test_html_in_names_is_text_everywhere():
    text = page_of(evil_report())
    page = Page(text)
    assert "<script>hacked" not in text and "<img src=x" not in text
    assert page.count("script") == 2 and page.count("img") == 1
    assert data_of(text)["pairs"][0]["source"] == EVIL
    assert data_of(text)["matrices"][0]["cells"][0]["target"] == EVIL
    assert page.text.count(EVIL) > 15
    assert page.all("img")[0]["alt"] == EVIL


def test_equal_reports_give_equal_pages():
    report = full_report(attacks=("fgsm",), models=("vgg16",))
    first = page_of(report)
    assert page_of(report) == first  # figures are not worn by drawing them
    assert page_of(full_report(attacks=("fgsm",), models=("vgg16",))) == first


def test_colour_bars_and_clip_paths_are_drawn_equally_each_time():
    def figure():
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow([[0.1, 0.9]], clip_path=None)
        patch = figure.colorbar(image).ax.patch
        axes.scatter([0, 1], [0, 0], c=["#0072B2", "#D55E00"]).set_clip_path(patch)
        return figure

    one = figure()
    drawn = {inline_svg(one, "a", "t", "d")[0] for _ in range(3)}
    assert drawn == {inline_svg(figure(), "a", "t", "d")[0]}
    assert {standalone_svg(one) for _ in range(2)} == {standalone_svg(figure())}


def test_an_empty_report_is_a_page():
    page = Page(page_of(Report("Nothing", "No job.")))
    assert page.count("section") == 0 and page.count("h1") == 1
    assert page.by_class("picker") == []


def test_a_report_without_pairs_has_cells_that_lead_nowhere():
    text = page_of(replace(full_report(), pairs=()))
    page = Page(text)
    assert page.by_class("picker") == [] and "pairs" not in [s["id"] for s in page.all("section")]
    spots = page.by_class("spot")
    assert len(spots) == 12 and all(found.get("type") == "button" for found in spots)
    assert data_of(text)["pairs"] == []


def test_cells_lead_to_their_pairs(page):
    links = [found["href"] for found in page.all("a", **{"class": "spot"})]
    assert links[:4] == [
        "#pair-fgsm--vgg16--vgg16",
        "#pair-fgsm--vgg16--resnet50",
        "#pair-fgsm--resnet50--vgg16",
        "#pair-fgsm--resnet50--resnet50",
    ]
    assert [found["id"] for found in page.all("article")] == [link[1:] for link in links]


def test_the_matrix_shows_the_standard_budget_with_counts_and_marks_white_boxes(page):
    assert page.text.count("84 / 100 = 84.00 % [79.00 to 89.00 %]") == 4
    assert page.text.count("34 / 100 = 34.00 % [29.00 to 39.00 %] white box") == 4
    assert page.text.count("180 / 200 = 90.00 %") == 4
    assert page.text.count("%] white box") == 4 and len(page.by_class("white-box")) == 4
    heads = page.all("th", scope="row") + page.all("th", scope="col") + page.all("th")
    assert heads and all("scope" in found for found in heads)
    assert page.count("caption") >= 2


def test_the_script_knows_every_budget(text):
    found = data_of(text)["matrices"][0]
    assert found["budgets"] == ["4/255", "8/255"]
    clean, *_ = found["cells"]
    assert found["protocols"] == ["joint"]
    assert clean["clean"] and [len(states) for states in clean["states"]] == [1]
    attacked = found["cells"][3]
    assert (attacked["source"], attacked["target"]) == ("vgg16", "resnet50")
    (states,) = attacked["states"]
    assert [state["count"] for state in states] == [
        "92\u00a0/\u00a0100",
        "84\u00a0/\u00a0100",
    ]
    fill = to_hex(colormaps["viridis"](0.84))
    assert states[1] == {
        "count": "84\u00a0/\u00a0100",
        "rate": "84.00\u00a0%",
        "interval": "79.00 to 89.00\u00a0%",
        "fill": fill,
        "ink": "#000000",
    }


def test_cells_without_images_and_pairs_that_were_not_run_say_so():
    cells = pd.DataFrame(
        [
            cell("clean", "a", 0.0, 0, 0),
            cell("a", "a", 8.0, 0, 0),
            cell("a", "b", 8.0, 0, 10),
            cell("b", "a", 4.0, 5, 10),
            cell("b", "b", 8.0, 5, 10),
        ]
    )
    parts = matrix_parts(matrix_of(cells=cells), {})
    shown = {
        (cell["source"], cell["target"]): cell["shown"] for _, row in parts["rows"] for cell in row
    }
    assert shown["a", "a"] == {"rate": "no image"} == shown["clean", "a"]
    assert shown["clean", "b"] == {"rate": "not run"} == shown["b", "a"]
    assert shown["a", "b"]["rate"] == "0.00\u00a0%"
    text = page_of(Report("t", "a", matrices=(matrix_of(cells=cells),)))
    page = Page(text)
    assert "no image" in page.text and "nan" not in page.text.lower()
    assert len(page.by_class("blank")) == 4


def test_a_source_with_clean_cells_of_its_own_is_no_row_of_clean_images():
    cells = pd.DataFrame([cell("a", "b", eps, count, 10) for eps, count in ((0.0, 9), (8.0, 1))])
    ((_, (found,)),) = matrix_parts(matrix_of(cells=cells), {})["rows"]
    assert not found["clean"]
    assert [state["rate"] for (state,) in found["states"]] == ["10.00\u00a0%"]


def test_a_matrix_without_cells_or_of_one_budget_has_no_selector():
    empty = matrix_of(cells=matrix_of().cells.iloc[:0])
    only = matrix_of(cells=matrix_of().cells.query("eps_255 != 4"))
    page = Page(page_of(Report("t", "a", matrices=(empty, only))))
    assert page.count("input") == 0 and "no cells" in page.text


def two_protocols(**changes):
    """The same as by joint, and 90 / 150 at both budgets by all."""
    joint = matrix_of().cells
    every = joint.assign(protocol="all")
    attacked = every["eps_255"] > 0
    every.loc[attacked, ["count", "denominator", "rate"]] = 90, 150, 0.6
    return matrix_of(cells=pd.concat([every, joint], ignore_index=True), **changes)


def test_the_reader_chooses_among_protocols_and_the_headline_is_shown_first():
    text = page_of(Report("t", "a", matrices=(two_protocols(),)))
    page = Page(text)
    (list_,) = page.all("select")
    assert page.count("label", **{"for": list_["id"]}) == 1
    assert [found for found in page.all("option") if "selected" in found] == [{"selected": None}]
    chosen = re.search(r"<option selected>(\w+)</option>", text)[1]
    assert chosen == "joint" and len(page.all("option")) == 2
    assert "84 / 100 = 84.00 %" in page.text and "90 / 150" not in page.text
    assert "protocol: joint . Cells: still correct" in page.text
    assert "joint: images that source and target both classify correctly when clean." in page.text
    assert "row of clean images is the same" in page.text
    found = data_of(text)["matrices"][0]
    assert found["protocols"] == ["all", "joint"]
    assert [words.split(":")[0] for words in found["explained"]] == ["all", "joint"]
    states = found["cells"][3]["states"]
    assert [state["count"] for state in states[0]] == ["90\u00a0/\u00a0150"] * 2
    assert [state["count"] for state in states[1]] == ["92\u00a0/\u00a0100", "84\u00a0/\u00a0100"]
    assert [state["count"] for (state,) in found["cells"][0]["states"]] == [
        "180\u00a0/\u00a0200"
    ] * 2
    other = Page(page_of(Report("t", "a", matrices=(two_protocols(protocol="all"),))))
    assert "90 / 150 = 60.00 %" in other.text and "84 / 100" not in other.text


def test_of_one_protocol_there_is_nothing_to_choose():
    page = Page(page_of(Report("t", "a", matrices=(matrix_of(),))))
    assert page.count("select") == 0 and "protocol: joint . Cells" in page.text
    assert "joint: images that source and target both classify correctly when clean." in page.text
    assert "row of clean images" not in page.text


def test_budgets_and_protocols_that_one_protocol_lacks_were_not_run():
    cells = [cell("a", "b", eps, 1, 2, "joint") for eps in (4.0, 8.0)]
    cells.append(cell("a", "b", 8.0, 2, 3, "all"))
    ((_, (found,)),) = matrix_parts(matrix_of(cells=pd.DataFrame(cells)), {})["rows"]
    assert [state["rate"] for state in found["states"][1]] == ["not run", "66.67\u00a0%"]
    assert found["shown"]["count"] == "1\u00a0/\u00a02"


def stored_job(source, rows, protocol="joint", attack="fgsm"):
    """A job of a table given as (index, target, eps_255, predicted); the label is 0."""
    table = pd.DataFrame(rows, columns=["index", "target", "eps_255", "predicted"])
    table = table.assign(label=0, confidence=0.5, true_confidence=0.5)
    record = SimpleNamespace(
        source=source,
        targets=tuple(dict.fromkeys(table["target"])),
        protocol=protocol,
        standard=8.0,
        dataset="photos",
        attack=attack,
    )
    return SimpleNamespace(attacked=True, attack=attack, record=record, predictions=table)


# Of images 0 to 3, a is wrong on the clean image 3 and b on 2; of the attacked ones of source a,
# a gets none right and b images 1 and 2; of those of source b both models get image 0 alone right.
CLEAN_ROWS = [(i, m, 0.0, int(i == wrong)) for m, wrong in (("a", 3), ("b", 2)) for i in range(4)]
OF_A = [(i, "a", eps, 1) for eps in (4.0, 8.0) for i in range(4)]
OF_A += [(i, "b", eps, int(i not in (1, 2))) for eps in (4.0, 8.0) for i in range(4)]
OF_B = [(i, m, eps, int(i != 0)) for eps in (8.0, 16.0) for m in "ab" for i in range(4)]


def counts_of(found, source, target, eps):
    at = found.cells.query("source == @source and target == @target and eps_255 == @eps")
    return {
        row["protocol"]: (row["count"], row["denominator"])
        for row in at.sort_index().to_dict("records")
    }


def test_a_matrix_has_every_protocol_that_all_its_jobs_can_count_by():
    jobs = [stored_job("a", CLEAN_ROWS + OF_A), stored_job("b", CLEAN_ROWS + OF_B)]
    (found,) = matrices(jobs)
    assert set(found.cells["eps_255"]) == {0.0, 8.0} and found.standard == 8.0
    assert list(counts_of(found, "a", "b", 8.0).items()) == [
        ("all", (2, 4)),
        ("source_correct", (2, 3)),
        ("target_correct", (1, 3)),
        ("joint", (1, 2)),
    ]
    assert counts_of(found, "b", "b", 8.0) == {
        "all": (1, 4),
        "source_correct": (1, 3),
        "target_correct": (1, 3),
        "joint": (1, 3),
    }
    assert counts_of(found, "clean", "a", 0.0) == dict.fromkeys(PROTOCOLS, (3, 4))
    assert found.protocol == "joint" and (found.counted, found.rate) == (
        "still correct",
        "robust accuracy",
    )
    assert "joint: images that" in Page(page_of(Report("t", "a", matrices=(found,)))).text
    # The second job lacks the clean rows of target a: no protocol may ask for the targets'.
    without = [row for row in CLEAN_ROWS if row[1] == "b"]
    jobs[1] = stored_job("b", without + OF_B, "source_correct")
    jobs[0] = stored_job("a", CLEAN_ROWS + OF_A, "source_correct")
    (found,) = matrices(jobs)
    assert list(counts_of(found, "a", "b", 8.0)) == ["all", "source_correct"]
    assert found.protocol == "source_correct"


def test_the_answer_counts_by_the_headline_and_writes_single_pairs_out():
    jobs = [stored_job("a", CLEAN_ROWS + OF_A), stored_job("b", CLEAN_ROWS + OF_B)]
    assert answer(matrices(jobs[:1])) == (
        "fgsm at 8/255 on photos: robust accuracy 0 / 3 = 0.0 % in the white box (1 pair of 3 "
        "images), 1 / 2 = 50.0 % on other models (1 pair of 2 images)."
    )
    assert answer(matrices(jobs)) == (
        "fgsm at 8/255 on photos: robust accuracy 0.0 to 33.3 % in the white box (2 pairs of 3 "
        "images), 50.0 % on other models (2 pairs of 2 images)."
    )
    assert "1 / 1 = 100.0 % on other models (1 pair of 1 image)" in answer(
        [matrix_of(cells=pd.DataFrame([cell("a", "b", 8.0, 1, 1)]))]
    )
    several = [cell("a", target, 8.0, 1, n) for target, n in (("b", 1), ("c", 2))]
    assert "50.0 to 100.0 % on other models (2 pairs of 1 to 2 images)" in answer(
        [matrix_of(cells=pd.DataFrame(several))]
    )
    none = matrix_of(
        cells=pd.DataFrame([cell("a", "b", 8.0, 0, 0), cell("a", "b", 8.0, 1, 2, "all")])
    )
    assert answer([none]) == "No image was counted."


@pytest.mark.parametrize(("targets", "room"), [(3, "all"), (6, "most"), (9, "rate")])
def test_cells_hold_what_there_is_room_for(targets, room):
    models = [f"m{number}" for number in range(targets)]
    assert matrix_parts(matrix_of(models=models), {})["room"] == room


def test_anchors_of_pairs_are_unique_and_hold_letters():
    pairs = [
        Pair("a b", "x", "y", False),
        Pair("a-b", "x", "y", False),
        Pair("\u00e9<", "", '"', False),
    ]
    assert list(pair_ids(pairs).values()) == [
        "pair-a-b--x--y",
        "pair-a-b--x--y-2",
        "pair-unnamed--unnamed--unnamed",
    ]


def named(name):
    return Report("t", "a", before=(Section("s", "S", (), (), (table(name),)),))


TWICE = pd.DataFrame([cell("a", "b", 8.0, 1, 2)] * 2)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (named("../up"), "'../up' of a drawing or table may hold letters"),
        (named(""), "'' of a drawing"),
        (
            Report("t", "a", before=(Section("s", "S", (), (drawing("x"),), (table("x"),)),)),
            "two drawings or tables are called 'x'",
        ),
        (Report("t", "a", after=(Section("Bad id", "S"),)), "'Bad id'"),
        (Report("t", "a", after=(Section("matrix", "S"),)), "'matrix' of a section is taken"),
        (Report("t", "a", after=(Section("pair-1", "S"),)), "'pair-1'"),
        (
            Report("t", "a", before=(Section("s", "S"),), after=(Section("s", "S"),)),
            "'s' of a section is taken",
        ),
        (
            Report("t", "a", pairs=(Pair("a", "s", "t", False), Pair("a", "s", "t", False))),
            "attack 'a', source 's', target 't' is there twice",
        ),
        (Report("t", "a", matrices=(matrix_of(standard=3.0),)), "budget 3; its budgets are 4, 8"),
        (
            Report(
                "t", "a", matrices=(matrix_of(cells=pd.DataFrame([cell("a", "b", 8.0, 1, 2)] * 2)),)
            ),
            "two cells for source 'a', target 'b', eps_255 8 and protocol 'joint'",
        ),
        (
            Report("t", "a", matrices=(matrix_of(protocol="all"),)),
            "no cell of its protocol 'all'; its protocols are joint",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(report, words, tmp_path):
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(ValueError, match=re.escape(words)):
        write_page(report, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_page_is_written_whole(tmp_path):
    write_page(Report("T\u00eftle", "a"), tmp_path / "new" / "page.html")
    content = (tmp_path / "new" / "page.html").read_bytes()
    assert content.startswith(b"<!DOCTYPE html>") and "T\u00eftle".encode() in content
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_drawings_have_words_data_and_a_file(page):
    svgs = page.all("svg")
    assert len(svgs) == 9 and all(found["role"] == "img" for found in svgs)
    assert svgs[0]["aria-labelledby"] == "svg-effects-title svg-effects-desc"
    assert page.count("figcaption") == 9 and page.count("details") == 9
    (address,) = [found["href"] for found in page.all("a", download="effects.csv")]
    assert content_of(address) == b"x,y\n0,1\n1,0.5\n2,\n"


def test_what_is_not_drawn_says_why_and_still_has_data():
    part = drawing("x", figure=None, reason="No image was counted.")
    page = Page(page_of(Report("t", "a", before=(Section("s", "S", (), (part,)),))))
    assert "Not drawn: No image was counted." in page.text
    assert page.count("svg") == 0 and page.count("details") == 1


def test_of_long_data_the_first_fifty_rows_are_shown_and_the_file_holds_all():
    frame = pd.DataFrame({"x": range(60), "share": np.linspace(0, 1, 60, dtype=np.float32)})
    part = drawing("x", data=frame)
    page = Page(page_of(Report("t", "a", before=(Section("s", "S", (), (part,)),))))
    assert page.count("tr") == 51
    assert "The first 50 of 60 rows; the file holds all." in page.text
    (address,) = [found["href"] for found in page.all("a", download="x.csv")]
    again = pd.read_csv(io.BytesIO(content_of(address)))
    assert again["share"].astype(np.float32).tolist() == frame["share"].tolist()


def test_tables_show_their_frame_and_offer_their_data():
    content = table("rates", data=pd.DataFrame({"count": [1, 0], "n": [2, 0]}))
    page = Page(page_of(Report("t", "a", before=(Section("s", "S", (), (), (content,)),))))
    assert "Rates. n model rate a 1 / 2 = 50.00% b 0 / 0 = n/a" in page.text
    (address,) = [found["href"] for found in page.all("a", download="rates.csv")]
    assert content_of(address) == b"count,n\n1,2\n0,0\n"
    assert (
        page.count("th", scope="row", **{"class": "s"}) == 2 and page.count("th", scope="col") == 2
    )


def test_columns_of_numbers_are_set_flush_right():
    frame = pd.DataFrame(
        {
            "name": ["a", "b"],
            "rate": ["50.00%", "n/a"],
            "n": [2, 0],
            "words": ["w " * 30, "1"],
            "none": ["", "n/a"],
        }
    )
    assert grid_of(frame).kinds == ["s", "n", "n", "", "s"]


def test_cells_of_data_are_short():
    frame = pd.DataFrame({"x": [1 / 3, np.nan, 2.0, 1e12], "y": [[1, 0.123456], None, "t", True]})
    assert grid_of(frame).rows == [
        ["0.3333", "1, 0.1235"],
        ["", ""],
        ["2", "t"],
        ["1e+12", "True"],
    ]


def test_an_empty_table_says_so():
    empty = pd.DataFrame({"a": pd.Series([], dtype=float)})
    page = Page(
        page_of(Report("t", "a", before=(Section("s", "S", (), (), (table("x", frame=empty),)),)))
    )
    assert "no rows" in page.text


@pytest.mark.parametrize("content", [b'a,b\n\xc3\xa9,100 %#"<\n', bytes(range(256)) * 9, b""])
def test_downloads_hold_every_byte(content):
    report = Report("t", "a", downloads=(Download("x.bin", "Bytes", content, "text/plain"),))
    page = Page(page_of(report))
    (found,) = page.all("a", download="x.bin")
    assert content_of(found["href"]) == content
    assert found["href"].startswith("data:text/plain")


def test_pictures_are_small_and_sharp():
    address, width, height = embedded_picture(noise_figure(), 120_000)
    assert (width, height) == (576, 576)
    assert address.startswith("data:image/webp;base64,") and len(address) < 120_100
    clear, *_ = embedded_picture(line_figure(), 120_000)
    drawn = io.BytesIO()
    line_figure().savefig(drawn, dpi=192)  # two pixels for each
    # What is small enough without any loss has none.
    pixels = [
        np.asarray(Image.open(found).convert("RGB"))
        for found in (drawn, io.BytesIO(content_of(clear)))
    ]
    np.testing.assert_array_equal(*pixels)


def test_many_pictures_share_the_room():
    drawn = drawing("drawn", figure=noise_figure(3), picture=True)
    rest = [drawing(f"x{i}", figure=None, reason="none", picture=True) for i in range(199)]
    text = page_of(Report("t", "a", before=(Section("s", "S", (), (drawn, *rest)),)))
    (picture,) = Page(text).all("img")
    assert len(picture["src"]) < 2_300_000 / 200


@pytest.mark.slow
def test_a_page_of_eighteen_pairs_stays_below_eight_megabytes():
    def drawings(name):
        pictures = [drawing(f"{name}-{i}", figure=noise_figure(), picture=True) for i in range(3)]
        return (*pictures, drawing(f"{name}-a"), drawing(f"{name}-b"))

    models = ("vgg16", "resnet50", "inception")
    report = full_report(models)
    pairs = [replace(one, drawings=drawings(f"x{i}")) for i, one in enumerate(report.pairs)]
    assert len(pairs) == 18
    assert len(page_of(replace(report, pairs=tuple(pairs))).encode()) < 8_000_000


def test_single_files_hold_the_figures_and_the_data(tmp_path):
    report = replace(
        full_report(),
        before=(
            Section(
                "s",
                "S",
                (),
                (drawing("plain"), drawing("none", figure=None, reason="empty", data=None)),
                (table("words", data=pd.DataFrame({"n": [1]})),),
            ),
        ),
        pairs=(pair("fgsm", "a", "b"),),
        after=(),
    )
    before = page_of(report)
    files = save_drawings(report, tmp_path / "figures")
    assert [path.name for path in files] == [
        "plain.png",
        "plain.svg",
        "plain.csv",
        "words.csv",
        "curves-fgsm-a-b.png",
        "curves-fgsm-a-b.svg",
        "curves-fgsm-a-b.csv",
        "rates-fgsm-a-b.csv",
    ]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        path.name for path in files
    )
    with Image.open(files[0]) as picture:
        assert picture.size == (600, 375)
    assert ElementTree.fromstring(files[1].read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"
    assert files[2].read_text() == "x,y\n0,1\n1,0.5\n2,\n" and files[3].read_text() == "n\n1\n"
    assert page_of(report) == before
    with pytest.raises(ValueError, match="may hold letters"):
        save_drawings(named("a/b"), tmp_path)


def test_csv_keeps_every_digit_of_single_precision():
    values = np.random.default_rng(0).random(100).astype(np.float32)
    frame = pd.read_csv(io.StringIO(csv_of(pd.DataFrame({"v": values, "name": 'a "b", c'}))))
    assert frame["v"].astype(np.float32).tolist() == values.tolist()
    assert frame["name"].unique().tolist() == ['a "b", c']


def styles(svg):
    return re.findall(r'style="([^"]*)"', svg)


def test_axes_and_text_take_the_colours_of_the_page_and_data_keep_theirs():
    svg, light = inline_svg(line_figure(), "a", "Title <b>", "Words & more")
    assert not light
    together = ";".join(styles(svg))
    assert "currentColor" in together and "var(--ink-d,#dddddd)" in together
    assert "var(--ink-f,#ffffff)" in together  # open markers
    assert PALETTE[0].lower() in together
    assert "#000000" not in svg and "font-family" not in svg and "xmlns" not in svg
    root = ElementTree.fromstring(svg)
    assert root.find("title").text == "Title <b>" and root.find("desc").text == "Words & more"
    assert float(root.get("width")) == pytest.approx(4 * 96)
    assert (root.get("stroke-linejoin"), root.get("stroke-linecap")) == ("round", "butt")


def as_matplotlib_writes(figure):
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def all_of(svg, tag):
    return list(ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_svgs_are_much_smaller_than_matplotlibs_and_keep_all_marks():
    before, after = as_matplotlib_writes(line_figure("x")), standalone_svg(line_figure("x"))
    assert len(after) < 0.6 * len(before)
    for tag in ("path", "use", "clipPath", "text"):
        assert len(all_of(before, tag)) == len(all_of(after, tag)) > 0
    words = [[found.text for found in all_of(svg, "text")] for svg in (before, after)]
    assert words[0] == words[1]


def test_fonts_of_older_matplotlibs_take_the_pages_family_too():
    text = ElementTree.fromstring(
        '<svg xmlns="http://www.w3.org/2000/svg"><g><text id="t" style="font: italic 700 9.50px '
        '\'DejaVu Sans\', sans-serif; text-anchor: end" x="1.23456">a b</text></g></svg>'
    )
    compact(text, "n")
    (found,) = text.iter("{http://www.w3.org/2000/svg}text")
    assert found.attrib == {
        "style": "text-anchor:end;font-style:italic;font-weight:700;font-size:9.5px",
        "x": "1.23",
    }


def test_opacity_stays_with_each_mark():
    mark = '<path style="opacity: 0.5; fill: #000000"/>'
    group = f'<g id="unused"><g><g>{mark}{mark}</g></g></g>'
    svg = ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{group}</svg>')
    compact(svg, "n")
    # One group of half opacity would show less where its marks overlap.
    assert [child.attrib for child in svg] == [{"style": "opacity:0.5;fill:#000000"}] * 2


def points(path):
    return np.array(re.findall(r"-?[\d.]+", path), dtype=float)


def test_rounding_moves_nothing_by_a_tenth_of_a_point():
    before, after = as_matplotlib_writes(line_figure("x")), standalone_svg(line_figure("x"))
    for one, other in zip(all_of(before, "path"), all_of(after, "path"), strict=True):
        one, other = one.get("d"), other.get("d")
        assert re.findall("[A-Za-z]", one) == re.findall("[A-Za-z]", other)
        np.testing.assert_allclose(points(one), points(other), atol=0.051)


def test_simple_formulas_become_text_that_any_font_can_set():
    words = "$\\epsilon$ (1/255), $\\rho \\geq 0$, US\\$"
    figure = line_figure(words)
    assert ">\u03b5 (1/255), \u03c1 \u2265 0, US$</text>" in inline_svg(figure, "a", "t", "d")[0]
    assert figure.axes[0].get_xlabel() == words
    assert "<tspan" in inline_svg(line_figure("$10^{-2}$"), "a", "t", "d")[0]  # stays a formula


def test_names_with_signs_of_markup_are_text_in_figures():
    svg, _ = inline_svg(line_figure("<b>&\x07</b>"), "a", "t\x00", "d")
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in svg and "\x07" not in svg and "\x00" not in svg


def bars(x, text_colour="black"):
    figure = Figure(figsize=(4, 2))
    axes = figure.subplots()
    axes.bar([0, 1], [1, 1], color=PALETTE[4])
    axes.set_ylim(0, 1.5)
    axes.text(0, x, "label", ha="center", va="center", color=text_colour)
    return figure


def heat_map():
    figure = Figure(figsize=(3, 3))
    figure.subplots().imshow([[0.0, 1.0]])
    return figure


@pytest.mark.parametrize(
    ("figure", "light"),
    [
        (bars(1.25), False),
        (bars(0.5), True),
        (bars(1.25, "white"), True),
        (heat_map(), True),
        (line_figure(colour="#440154"), True),
        (line_figure(colour=PALETTE[6]), False),
    ],
)
def test_figures_made_for_white_paper_get_it(figure, light):
    svg, found = inline_svg(figure, "a", "t", "d")
    assert found == light
    assert figure.patch.get_visible() and figure.axes[0].patch.get_visible()
    assert svg


def test_an_unpicklable_figure_is_drawn_and_left_as_it_was():
    figure = line_figure()
    figure.axes[0].xaxis.set_major_formatter(lambda value, place: f"<{value:g}>")
    first, _ = inline_svg(figure, "a", "t", "d")
    assert "&lt;1&gt;" in first
    assert figure.patch.get_visible() and figure.axes[0].get_xlabel() == "accuracy $\\epsilon$"


def test_contrast_agrees_with_published_ratios():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#777777") == pytest.approx(4.478, abs=0.001)
    assert contrast("#ff0000", "#ffffff") == pytest.approx(3.998, abs=0.001)


def test_every_colour_of_the_scale_is_readable():
    for share in np.linspace(0, 1, 256):
        fill = to_hex(colormaps["viridis"](share))
        assert contrast(ink_on(fill), fill) >= 4.5


@pytest.mark.parametrize("text", [False, True])
def test_every_colour_of_the_figures_stands_out_from_dark_paper(text):
    least = 4.5 if text else 3.0
    for colour in (*PALETTE, RIGHT[1], WRONG[1], "#555555"):
        written = screen_colour(colour.lower(), text=text)
        on_dark = written
        if written == "currentColor":
            on_dark = "#e6e8ea"
        elif written.startswith("var("):
            on_dark = dark_variables([written]).removesuffix(";").split(":")[1]
            assert f",{colour.lower()})" in written  # light paper shows it as it was
        assert contrast(on_dark, DARK_PAPER) >= least


def test_greys_turn_round_on_dark_paper():
    found = dict(
        entry.split(":")
        for entry in dark_variables(
            [screen_colour(grey, text=False) for grey in ("#ffffff", "#dddddd", "#555555")]
        ).split(";")
        if entry
    )
    assert found["--ink-f"] == DARK_PAPER
    low, high = (contrast(found[name], DARK_PAPER) for name in ("--ink-d", "--ink-5"))
    assert 1 < low < 2 < 5 < high
