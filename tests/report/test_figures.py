"""Figures for papers: their numbers, size, text and files, and what is refused."""

import json
import os
import re
from typing import Any
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

import src
import src.figure
from src.artifacts.jobs import find_jobs
from src.report.charts.theme import DASHES, SHAPES
from src.report.page.frame import build_report
from src.report.page.html import VEGA_LITE
from src.report.results import results_of
from tests.conftest import REPOSITORY
from tests.records import JOBS, predictions_of, results_of_frame
from tests.report.conftest import make_sweep as write_sweep
from tests.report.frames import ordinary

PAIR = {"attack": "fgsm", "source": "vgg", "target": "vit"}
ARROW = "\N{RIGHTWARDS ARROW}"
CLASSES = ("cat", "dog", "owl", "fox", "elk", "ape")
MANY = [f"attack{number}" for number in range(12)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Results of three attacks from two sources; the first has pictures. Tests only read them."""
    models = {"models": ("vgg", "resnet", "vit"), "sources": ("vgg", "vit"), "budgets": (2.0, 8.0)}
    models |= {"attacks": ("fgsm", "bim", "mi steps=5"), "files": True}
    folder = write_sweep(tmp_path_factory.mktemp("figures") / "sweep", **models)
    return results_of(find_jobs([folder]))


@pytest.fixture
def draw(tmp_path, sweep):
    """A function that runs the command line and returns the figure's content, or the exit code."""

    def run(kind, *words, suffix=".svg", folder=sweep.jobs[0].sweep_folder):
        out, place = tmp_path / f"figure{suffix}", 1 if kind in ("image", "strip") else 0
        words = [*map(str, words[:place]), str(folder), *map(str, words[place:])]
        return src.figure.main([kind, *words, "--out", str(out)]) or out.read_bytes()

    return run


def rows_in(sweep):
    """Return the predictions of a sweep on images in the storage that all jobs have."""
    return predictions_of(sweep).query("variant == 'float32'")


def only(sweep, query):
    """Return the results of some predictions of a sweep."""
    return results_of_frame(rows_in(sweep).query(query))


def with_costs(sweep, **costs):
    """Return a sweep's results with the gradients per image and budget of each attack."""
    rows = rows_in(sweep)
    gradients = rows["attack"].str.split().str[0].map(costs).astype(float)
    return results_of_frame(rows.assign(gradients=gradients * (rows["eps_255"] > 0)))


def text_of(chart) -> str:
    """Return a chart as JSON; each line of a title is followed by a space."""
    spec = chart.to_dict()
    titles = [*_titles(spec)]
    return " ".join([*titles, json.dumps(spec, ensure_ascii=False)])


def _titles(spec):
    for name, its in spec.items() if isinstance(spec, dict) else enumerate(spec):
        if name == "title" and isinstance(its, list):
            yield " ".join(its)
        elif isinstance(its, dict | list):
            yield from _titles(its)


def rows_of(chart) -> list[dict[str, Any]]:
    """Return the rows of all tables of a figure."""
    tables = chart.to_dict()["datasets"].values()
    return [row for rows in tables for row in rows if isinstance(row, dict)]


def svg_of(chart):
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE))


def texts_of(svg) -> list[str]:
    return [text for text in svg.itertext() if text.strip()]


def places_of(svg, names) -> dict[str, list[float]]:
    """Return x and y of each dark or coloured text with one of these names."""
    shift = re.compile(r"translate\(([-\d.]+),([-\d.]+)\)")
    return {
        one.text: [*map(float, shift.match(one.attrib["transform"]).groups())]
        for one in svg.iter("{http://www.w3.org/2000/svg}text")
        if one.text in names and one.attrib["fill"] != "white"
    }


PRINTED = {
    **{"matrix": (), "curves": (), "ranking": (), "profiles": ("--target", "vit")},
    "confidence-groups": ("--bins", "20"),
    "image": (5,),
}


@pytest.mark.parametrize(
    "kind",
    [its if its == "matrix" else pytest.param(its, marks=pytest.mark.slow) for its in PRINTED],
)
def test_a_figure_has_its_size_and_text_of_seven_points(draw, kind, capfd):
    svg = draw(kind, *PRINTED[kind], "--width", "84mm", "--height", "7cm")
    root = ElementTree.fromstring(svg)
    sizes = [float(root.attrib[name].removesuffix("pt")) for name in ("width", "height")]
    assert sizes == pytest.approx([72 * 8.4 / 2.54, 72 * 7 / 2.54], abs=1)
    assert {*re.findall(rb'font-size="(.*?)"', svg)} == {b"7px"}  # the file has one per point
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_every_suffix_has_its_format(draw):
    for suffix, start in ((".pdf", b"%PDF"), (".png", b"\x89PNG"), (".svg", b"<svg")):
        assert draw("ranking", suffix=suffix).startswith(start)


def test_what_is_named_has_a_line_with_a_look_of_its_own(sweep):
    names = {"fgsm": "FGSM", "mi": "MI"}
    rows = rows_of(src.curves(sweep, names=names))
    assert {row["series"] for row in rows if "series" in row} == {"FGSM", "bim", "MI steps=5"}
    options = {"attack": ["fgsm", "bim"], "source": ["vgg", "vit"], "target": ["vgg", "vit"]}
    rows = rows_of(src.curves(sweep, **options, width="5in"))
    looks = {(row["series"], row["colour"], str(row["dash"]), row["shape"]) for row in rows}
    assert len(looks) == 8 == len({look[1:] for look in looks})
    assert f"bim: vgg {ARROW} vit" in {look[0] for look in looks}


def test_a_matrix_says_what_its_cells_are_and_shows_any_value(sweep):
    frame = only(sweep, "attack == 'fgsm'")
    every = src.rates(frame).query("eps_255 == 2 and protocol == 'joint'")
    both = "images that a source and a target both classify correctly when clean"
    for value, column, words in (
        ("success", "success_rate", f"Cells: fooled, share of {both}; grey: white box"),
        ("accuracy", "robust_accuracy", f"Cells: still correct, share of {both}"),
        ("confidence", "confidence", f"Cells: confidence, mean over {both}"),
    ):
        chart = src.matrix(frame, attack="fgsm", eps_255=2, value=value)
        assert words in text_of(chart) and "at 2/255" in text_of(chart)
        if value == "accuracy":  # to draw takes seconds
            cells = [text for text in texts_of(svg_of(chart)) if text.endswith("%")]
            assert sorted(cells) == sorted(f"{share:.0%}" for share in every[column])
        for cell in rows_of(chart):
            its = every.query(f"source == '{cell['source']}' and target == '{cell['target']}'")
            assert cell[column] == pytest.approx(its[column].item(), abs=1e-4)
    text = text_of(src.matrix(frame, protocol="all", source="vgg", target="vit"))
    assert "fooled, share of all images" in text and "; grey" not in text


def test_the_success_of_a_targeted_attack_is_not_called_fooled(results_of_kind):
    aimed = results_of_kind("targeted")
    assert "Cells: target class reached, share of" in text_of(src.matrix(aimed))
    for draw in (src.ranking, src.curves):
        assert '"target class reached"' in text_of(draw(aimed))


def test_lines_of_a_ranking_reach_the_first_unless_an_attack_is_significantly_weaker(sweep):
    rows = rows_in(sweep).query("eps_255 in (0, 8)")
    rows.loc[(rows["attack"] == "bim") & (rows["index"] % 3 > 0), "predicted"] = rows["label"]
    frame = results_of_frame(rows)
    chart = src.ranking(frame)
    assert "difference from the first (vertical line). Grey: significantly weaker" in text_of(chart)
    known = src.rankings(frame)
    known = known[known["source"].str.startswith("mean") & (known["eps_255"] == 8)]
    known, drawn = known.set_index("attack"), {row["attack"]: row for row in rows_of(chart)}
    first = known["mean"].iloc[0]
    assert {*drawn} == {*known.index} and {*known["undecided"]} == {True, False}
    for attack, row in drawn.items():
        its = known.loc[attack]
        assert (row["mean"], row["at"]) == pytest.approx((its["mean"], first), abs=1e-4)
        assert (row["undecided"] == "no") == (not its["undecided"])
        if attack != known.index[0]:
            ends = [row[end] - first for end in ("start", "end")]
            wanted = its[["difference_low", "difference_high"]].to_list()
            assert ends == pytest.approx(wanted, abs=2e-4)
            assert (ends[1] < 0) == (its["p"] < 0.05)
    weaker = known.index[-1]
    assert rows_of(src.ranking(frame, attack=weaker)) == [drawn[weaker]]  # the first need not be
    alone = src.ranking(only(sweep, "attack == 'fgsm'"))
    (row,) = rows_of(alone)
    assert "Lines: 95 % intervals of means, not of differences." in text_of(alone)
    assert (row["start"], row["end"], row["at"]) == (row["low"], row["high"], None)
    assert row["low"] < row["mean"] < row["high"]


@pytest.mark.slow
def test_names_of_lines_do_not_overlap_and_have_the_colours_of_the_page(tmp_path, sweep):
    words = {"models": ("vgg", "vit"), "budgets": (2.0, 8.0), "full": False}
    folder = write_sweep(tmp_path / "sweep", attacks=MANY, **words)
    at = sorted(y for _, y in places_of(svg_of(src.curves(folder)), MANY).values())
    assert len(at) == 12 and np.diff(at).min() > 7
    page = build_report(sweep).page
    style = (REPOSITORY / "src" / "report" / "templates" / "page.css").read_text()
    colour = re.search(rf"--c{page['colours']['bim']}: (#\w+)", style)[1]
    for attack in (None, ["bim", "mi steps=5"]):
        svg = svg_of(src.curves(sweep, attack=attack))
        assert {text.attrib["fill"] for text in svg.iter() if text.text == "bim"} == {colour}
    script = (REPOSITORY / "src" / "report" / "templates" / "page.js").read_text()
    for name, ours in (("SHAPES", SHAPES), ("DASHES", DASHES)):
        looks = json.loads(re.search(rf"const {name} = (\[.*\]);", script)[1])
        assert looks[: len(ours)] == ours


def test_lines_end_with_their_names_and_begin_with_the_clean_images(sweep, results_of_kind):
    early = only(sweep, "attack != 'bim' or eps_255 <= 2")
    assert {"fgsm", "bim"} < {*texts_of(svg_of(src.curves(early)))}
    for protocol in ("joint", "source_correct"):
        frame = ordinary()
        frame["protocol"] = protocol
        for job in frame.attrs[JOBS]:
            job["protocol"] = protocol
        assert '"eps_255": 0.0' in text_of(src.curves(results_of_frame(frame)))
    white = rows_of(src.curves(results_of_kind("one model"), value="confidence"))
    assert {row["eps_255"] for row in white if "value" in row} == {0.0, 2.0, 8.0}


def test_costs_have_ticks_of_1_2_5_and_names_inside_the_figure(sweep):
    long = "a name of some length"
    costs = with_costs(sweep, fgsm=1, bim=12, mi=900)
    svg = svg_of(src.cost(costs, names={"mi steps=5": long}))
    ticks = [text.replace(",", "") for text in texts_of(svg) if re.fullmatch(r"[\d,]+", text)]
    assert len(ticks) > 3 and {tick.rstrip("0") for tick in ticks} <= {"1", "2", "5"}
    places = places_of(svg, ("fgsm", "bim", long))
    assert len(places) == 3
    for name, (start, _) in places.items():  # of the axis, at whose left is room for its labels
        assert start + 3.5 * len(name) + 20 < float(svg.attrib["width"]), name


def test_groups_name_their_confidences_and_counts(sweep, caplog):
    frame = rows_in(sweep).query("attack == 'fgsm' and source == 'vgg'")
    clean = frame[frame["eps_255"] == 0]
    right = clean[clean["predicted"] == clean["label"]]
    both = right.loc[right["target"] == "vgg", "index"]
    counted = right[(right["target"] == "vit") & right["index"].isin(both)]
    bins = np.floor(counted["confidence"] * 50 + 1e-6).clip(upper=49).value_counts()
    texts = text_of(src.confidence_groups(sweep, **PAIR, bins=2, height="6in"))
    spans = {*re.findall(r"(\d+)\N{EN DASH}(\d+) % \((\d+)\)", texts)}
    assert sorted(int(n) for *_, n in spans) == sorted(bins[bins >= 3])
    assert all(int(high) - int(low) == 2 and int(low) % 2 == 0 for low, high, _ in spans)
    left = bins[bins < 3].sum()
    sentence = f"Not drawn: {left} of {len(counted)} images, in bins of fewer than 3."
    assert left and sentence in texts and sentence in caplog.text
    texts = text_of(src.confidence_groups(sweep, **PAIR, groups=2))
    sizes = sorted(int(n) for _, n in {*re.findall(r'"([^"]+) % \((\d+)\)"', texts)})
    assert f"fgsm: vgg {ARROW} vit" in texts
    assert sum(sizes) == len(counted) and sizes[-1] - sizes[0] <= 1


def test_an_image_shows_its_classes_when_clean_and_when_first_wrong(sweep):
    frame = rows_in(sweep).query("attack == 'fgsm' and source == 'vgg'")
    frame = frame[frame["target"] == "vit"].set_index(["index", "eps_255"])
    right = (frame["predicted"] == frame["label"]).unstack()
    for number, eps in (
        (right.index[right[0.0] & ~right[2.0]][0], 2),
        (right.index[right[0.0] & right[2.0] & ~right[8.0]][0], 8),
    ):
        text = text_of(src.image(number, sweep, **PAIR))
        assert f"fgsm: vgg {ARROW} vit" in text and f'"fgsm: wrong at {eps}/255"' in text
        for row in (frame.loc[number, 0.0], frame.loc[number, float(eps)]):
            assert f'"{CLASSES[row["predicted"]]} {100 * row["confidence"]:.0f} %"' in text


def test_a_strip_has_a_picture_per_budget_and_the_classes(sweep):
    chart = src.strip(1, sweep, **PAIR, names={"vit": "Bartholomew"})
    cells = [row for row in rows_of(chart) if "url" in row]
    assert all(row["url"].startswith("data:image/png") for row in cells)
    assert f"fgsm: vgg {ARROW} Bartholomew" in text_of(chart)
    frame = rows_in(sweep).query("attack == 'fgsm' and source == 'vgg'")
    rows = frame.query("target == 'vit' and index == 1").set_index("eps_255")
    expected = []
    for eps, row in rows.iterrows():
        wrong = "" if row["predicted"] == row["label"] else "wrong: "
        name, share = f"{wrong}{CLASSES[row['predicted']]}", f"{100 * row['confidence']:.0f} %"
        expected.append(f"{f'{eps:g}/255' if eps else 'clean'}\n{name}\n{share}")
    shown = [row["text"] for row in cells]
    assert [shown[0], *shown[2:]] == expected
    assert shown[1].startswith("change\n\N{MULTIPLICATION SIGN}")  # enhanced
    assert len([row for row in rows_of(src.strip(1, sweep, **PAIR, budgets=[8])) if row]) == 3


def test_an_image_is_found_by_its_file(sweep):
    files = sweep.jobs[0].image_files
    name = files[1].partition("/")[2]
    alike = [file for file in files.values() if file.endswith(f"/{name}")]
    assert len(alike) > 1
    for file in (files[1], f"./photographs/{files[1]}", f"/home/me/{files[1]}"):
        assert "Image 1 (" in text_of(src.strip(file, sweep, **PAIR))
    with pytest.raises(ValueError, match=f"choose from {', '.join(alike[:3])}"):
        src.strip(name, sweep, **PAIR)
    with pytest.raises(ValueError, match="no such file"):
        src.strip(files[1][1:], sweep, **PAIR)


def test_a_list_of_files_that_cannot_be_read_leaves_the_numbers(tmp_path):
    small = {"models": ("vgg", "vit"), "sources": ("vgg",), "attacks": ("fgsm",), "images": 20}
    folder = write_sweep(tmp_path / "sweep", **small, budgets=(8.0,), files=True)
    (path,) = folder.glob("*/images.csv")
    for text in ("", "index,file\nx,a.png\n", "index\n1\n", "\0", "index,file\n1,\n", None):
        path.unlink()
        if text is None:
            os.mkfifo(path)
        else:
            path.write_text(text)
        results = results_of(find_jobs([folder]))
        assert "Image 1 (" in text_of(src.strip(1, results))
        with pytest.raises(ValueError, match=r"image a\.png: these images have no files"):
            src.strip("a.png", results)


REFUSED = [
    (src.curves, {"attack": "mj"}, "attack=mj: choose from"),
    (src.curves, {"target": "vgg", "source": "alexnet"}, "source=alexnet: choose from"),
    (src.curves, {"value": "nope"}, "value=nope: choose from success, accuracy"),
    (src.curves, {"names": {"fgsm": "a", "bim": "a"}}, "'a' is the printed name of several"),
    (src.matrix, {"names": {"vgg": "a", "vit": "a"}}, "'a' is the printed name of several"),
    (src.ranking, {"eps_255": 3.0}, "eps_255=3.0: choose from"),
    (src.matrix, {"attack": ["bim", "fgsm"]}, "one attack"),
    (src.matrix, {"value": "rms"}, "value=rms: choose from success, accuracy, confidence"),
    (src.ranking, {"height": "0in"}, "height=0in"),
    (src.ranking, {"width": "wide"}, "width=wide"),
    (src.ranking, {"height": "0.3in"}, "names need a height"),
    (src.ranking, {"names": {"bim": "long" * 12}}, "is too long"),
    (src.cost, {"attack": "bim"}, "bim: the gradients are unknown or 0"),
    (src.image, {"number": 999}, "image 999: choose one of the 120"),
    (src.image, {"number": 1, "target": ["vit", "vgg"]}, "This figure shows one target"),
    (src.strip, {"number": 1, "attack": ["fgsm", "bim"]}, "This figure shows one attack"),
    (src.strip, {"number": 1, **PAIR, "budgets": [3]}, "eps=3: image 1 has pictures at 2, 8."),
    (src.strip, {"number": 30, **PAIR}, "image 30 has no picture: choose from 0, 1, 2, or run"),
    (src.strip, {"number": 1, **PAIR, "width": "1in"}, "4 pictures need a width of"),
    (src.confidence_groups, {"bins": 0}, "bins above 0"),
    (src.confidence_groups, {"target": "nope"}, "target=nope: choose from"),
    (src.confidence_groups, {"bins": 5, "height": "1in"}, "need a height of"),
]


def test_what_cannot_be_drawn_is_refused(sweep, results_of_kind):
    for draw, words, refusal in REFUSED:
        number = [words["number"]] if "number" in words else []
        rest = {key: its for key, its in words.items() if key != "number"}
        with pytest.raises(ValueError, match=re.escape(refusal)):
            draw(*number, sweep, **rest)
    with pytest.raises(ValueError, match="bim: the gradients are unknown or 0"):
        src.cost(with_costs(sweep, fgsm=1, bim=0, mi=900))
    with pytest.raises(ValueError, match="need 9 counted images"):
        src.confidence_groups(only(sweep, "index < 5"))
    with pytest.raises(ValueError, match="no bin has 3 images"):
        src.confidence_groups(only(sweep, "index < 15"), bins=0.01)
    with pytest.raises(ValueError, match="only clean images"):
        src.profiles(results_of_kind("clean images"))
    names = {"mi": "MI", "bim": "MI"}  # of which one is drawn
    src.curves(sweep, attack=["fgsm", "bim"], names=names)


def test_a_refusal_of_the_command_line_is_one_sentence(draw, tmp_path, capsys):
    for words, options, refusal in (
        (["curves"], {"folder": tmp_path / "nosuch"}, "nosuch does not exist"),
        (["curves"], {"folder": ""}, "is empty"),
        (["curves"], {"suffix": ".eps"}, ".pdf, .svg or .png"),
        (["curves", "--names", "bim"], {}, "write NAME=NEW"),
        (["curves", "--names", "bim=a", "bim=b"], {}, "bim has two new names"),
        (["curves", "--nosuch"], {}, "unrecognized arguments: --nosuch"),
        (["ranking", "--value", "accuracy"], {}, "--value: only figures of the kind curves or"),
        (["cost", "--bins=5"], {}, "--bins: only figures of the kind confidence-groups"),
        (["matrix", "--value", "rms"], {}, "value=rms: choose from success"),
    ):
        assert draw(*words, **options) == 2
        error = capsys.readouterr().err
        assert refusal in error and error.count("\n") == 1


def test_other_charts_keep_their_theme(sweep):
    plain = alt.Chart(pd.DataFrame()).mark_point().to_dict()
    assert src.matrix(sweep).to_dict()["config"] != plain["config"]
    assert alt.Chart(pd.DataFrame()).mark_point().to_dict() == plain
