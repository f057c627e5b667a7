"""Figures for papers: their size, text and numbers, and what is refused."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
import vl_convert

import src.figure
from src import cost, curves, load_sweep, matrix, ranking, rankings, rates
from src.artifacts.jobs import find_jobs
from src.report.page.frame import build_report
from src.report.page.html import VEGA_LITE
from src.report.results import results_of
from tests.conftest import REPOSITORY
from tests.records import JOBS, predictions_of, results_of_frame
from tests.report.conftest import make_sweep as write_sweep

ATTACKS = ("fgsm", "bim", "mi steps=5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    small = {"sources": ("vgg", "vit"), "budgets": (4.0, 8.0, 16.0), "full": False}
    return write_sweep(tmp_path_factory.mktemp("sweep"), attacks=ATTACKS, **small)


@pytest.fixture
def draw(tmp_path):
    """A function that runs the command line and returns the figure's content, or the exit code."""

    def run(*words, suffix=".svg"):
        out = tmp_path / f"figure{suffix}"
        code = src.figure.main([*map(str, words), "--out", str(out)])
        return code or out.read_bytes()

    return run


def texts_of(svg: bytes) -> list[str]:
    return [text for text in ElementTree.fromstring(svg).itertext() if text.strip()]


@pytest.mark.parametrize(
    "kind",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("curves", "ranking")), "matrix"],
)
def test_a_figure_has_its_size_and_text_of_seven_points(draw, folder, kind, capfd):
    svg = draw(kind, folder, "--width", "84mm", "--height", "5cm")
    root = ElementTree.fromstring(svg)
    sizes = [float(root.attrib[name].removesuffix("pt")) for name in ("width", "height")]
    assert sizes == pytest.approx([72 * 8.4 / 2.54, 72 * 5 / 2.54], abs=0.01)
    fonts = re.findall(rb'font-size="(.*?)"', svg)
    assert set(fonts) == {b"7px"}  # of which the file has one per point
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_every_suffix_has_its_format(draw, folder):
    for suffix, start in ((".pdf", b"%PDF"), (".png", b"\x89PNG"), (".svg", b"<svg")):
        assert draw("ranking", folder, suffix=suffix).startswith(start)


@pytest.mark.slow
def test_a_line_for_what_is_named(draw, folder):
    names = {"fgsm": "FGSM", "bim": "bim", "mi steps=5": "MI steps=5"}
    svg = draw("curves", folder, "--names", "fgsm=FGSM", "--names", "mi=MI")
    assert {*names.values()} < {*texts_of(svg)}
    svg = draw("curves", folder, "--attack", "bim", "--source", "vgg", "--target", "resnet", "vit")
    assert {"resnet", "vit"} < {*texts_of(svg)} and "bim" not in texts_of(svg)
    svg = draw("curves", folder, "--attack", "bim", "fgsm", "--source", "vgg", "vit")
    assert {f"{a}, {s}" for a in ("bim", "fgsm") for s in ("vgg", "vit")} < {*texts_of(svg)}


def only(folder, query):
    """Return the results of some predictions of a sweep."""
    return results_of_frame(predictions_of(load_sweep(folder)).query(query))


def read_rows(spec) -> list[dict[str, Any]]:
    """Return the rows of a figure's only table."""
    (rows,) = spec["datasets"].values()
    return rows


def title_of(spec) -> str:
    return " ".join(spec["title"])


def texts_drawn(spec) -> list[str]:
    return texts_of(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE).encode())


def test_a_matrix_says_what_its_cells_are_and_shows_any_value(folder):
    frame = only(folder, "attack == 'fgsm'")
    every = rates(frame).query("eps_255 == 4 and protocol == 'joint'")
    both = "images that a source and a target both classify correctly when clean"
    for value, column, words in (
        ("success", "success_rate", f"Cells: fooled, share of {both}; grey: white box"),
        ("accuracy", "robust_accuracy", f"Cells: still correct, share of {both}"),
        ("confidence", "confidence", f"Cells: confidence, mean over {both}"),
    ):
        spec = matrix(frame, attack="fgsm", eps_255=4, value=value).to_dict()
        assert words in title_of(spec) and "at 4/255" in title_of(spec)
        if value == "accuracy":  # to draw takes seconds
            cells = [text for text in texts_drawn(spec) if text.endswith("%")]
            assert sorted(cells) == sorted(f"{share:.0%}" for share in every[column])
        for cell in read_rows(spec):
            its = every.query(f"source == '{cell['source']}' and target == '{cell['target']}'")
            assert cell[column] == pytest.approx(its[column].item(), abs=1e-4)
    spec = matrix(frame, attack="fgsm", protocol="all", source="vgg", target="vit").to_dict()
    assert "fooled, share of all images" in title_of(spec) and "grey" not in title_of(spec)


def test_the_success_of_a_targeted_attack_is_not_called_fooled(tmp_path):
    words = {"models": ("vgg", "vit"), "budgets": (8.0,), "full": False, "aimed": True}
    sweep = write_sweep(tmp_path / "aimed", **words)
    assert "Cells: target class reached, share of" in title_of(matrix(sweep).to_dict())
    for draw in (ranking, curves):
        spec = json.dumps(draw(sweep).to_dict())
        assert '"target class reached"' in spec and "other models fooled" not in spec


def test_lines_of_a_ranking_reach_the_first_unless_an_attack_is_significantly_weaker(folder):
    rows = predictions_of(load_sweep(folder)).query("eps_255 in (0, 8)")
    rows.loc[(rows["attack"] == "bim") & (rows["index"] % 3 > 0), "predicted"] = rows["label"]
    frame = results_of_frame(rows)
    spec = ranking(frame).to_dict()
    assert "difference from the first (vertical line). Grey: significantly weaker" in title_of(spec)
    known = rankings(frame)
    known = known[known["source"].str.startswith("mean") & (known["eps_255"] == 8)]
    known, drawn = known.set_index("attack"), {row["attack"]: row for row in read_rows(spec)}
    first = known["mean"].iloc[0]
    assert {*drawn} == {*known.index} and {*known["undecided"]} == {True, False}
    for attack, row in drawn.items():
        its = known.loc[attack]
        assert row["mean"] == pytest.approx(its["mean"], abs=1e-4)
        assert row["at"] == pytest.approx(first, abs=1e-4)
        assert (row["undecided"] == "no") == (not its["undecided"])
        if attack != known.index[0]:
            ends = [row[end] - first for end in ("start", "end")]
            wanted = its[["difference_low", "difference_high"]].to_list()
            assert ends == pytest.approx(wanted, abs=2e-4)
            assert (ends[1] < 0) == (its["p"] < 0.05)
    weaker = known.index[-1]
    (row,) = read_rows(ranking(frame, attack=weaker).to_dict())
    assert row == drawn[weaker]  # the first need not be drawn


def test_without_tests_the_lines_of_a_ranking_are_intervals_of_means(folder):
    frame = only(folder, "attack == 'fgsm' and eps_255 in (0, 8)")
    spec = ranking(frame).to_dict()
    (row,) = read_rows(spec)
    assert "Lines: 95 % intervals of means, not of differences." in title_of(spec)
    assert (row["start"], row["end"], row["at"]) == (row["low"], row["high"], None)
    assert row["low"] < row["mean"] < row["high"]


@pytest.mark.slow
def test_close_labels_do_not_overlap(tmp_path, draw):
    attacks = [f"attack{number}" for number in range(12)]
    words = {"models": ("vgg", "vit"), "budgets": (2.0, 8.0), "full": False}
    folder = write_sweep(tmp_path / "sweep", attacks=attacks, **words)
    root = ElementTree.fromstring(draw("curves", folder))
    shift = re.compile(r"translate\(([-\d.]+),([-\d.]+)\)")
    at = [
        float(shift.match(each.attrib["transform"])[2])
        for each in root.iter()
        if each.text in attacks
    ]
    gaps = [below - above for above, below in zip(sorted(at), sorted(at)[1:], strict=False)]
    assert len(at) == 12 and min(gaps) > 7
    with pytest.raises(ValueError, match="12 names need a height"):
        curves(folder, width="3.3in", height="1in")


@pytest.mark.slow
def test_an_attack_has_the_colour_of_the_page_in_every_figure(draw, folder):
    page = build_report(results_of(find_jobs([folder]))).page
    style = (REPOSITORY / "src" / "report" / "templates" / "page.css").read_text()
    colour = re.search(rf"--c{page['colours']['bim']}: (#\w+)", style)[1]
    for words in ((), ("--attack", "bim", "mi steps=5")):
        svg = ElementTree.fromstring(draw("curves", folder, *words))
        assert {text.attrib["fill"] for text in svg.iter() if text.text == "bim"} == {colour}


def test_a_line_that_ends_early_has_its_name(folder):
    frame = only(folder, "attack != 'bim' or eps_255 <= 8")
    svg = vl_convert.vegalite_to_svg(curves(frame, width="3.3in").to_dict(), vl_version=VEGA_LITE)
    assert {"fgsm", "bim"} < {*texts_of(svg.encode())}


@pytest.mark.parametrize(
    "words, refusal",
    [
        (["curves", "--attack", "mj"], "attack=mj: choose from"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (
                    ["curves", "--target", "vgg", "--source", "alexnet"],
                    "source=alexnet: choose from",
                ),
                (["ranking", "--eps", "3"], "eps_255=3.0: choose from"),
                (["matrix", "--attack", "bim", "fgsm"], "one attack"),
                (["ranking", "--height", "0in"], "height=0in"),
            )
        ),
        pytest.param(["ranking", "--width", "wide"], "width=wide", marks=pytest.mark.slow),
        (["ranking", "--names", f"bim={'long' * 12}"], "is too long"),
        (["cost"], "the gradients are unknown or 0"),
        (["matrix", "--value", "rms"], "value=rms: choose from success, accuracy, confidence"),
        (["ranking", "--value", "accuracy"], "--value: only figures of the kind curves or matrix"),
        (["cost", "--bins=5"], "--bins: only figures of the kind confidence-groups"),
        (["curves", "--nosuch"], "unrecognized arguments: --nosuch"),
    ],
)
def test_a_refusal_is_one_sentence(draw, folder, words, refusal, capsys):
    kind, *options = words
    assert draw(kind, folder, *options) == 2
    error = capsys.readouterr().err
    assert refusal in error and error.count("\n") == 1


def test_other_refusals(draw, folder, tmp_path, capsys):
    for words, suffix, refusal in (
        (["curves", tmp_path / "nosuch"], ".pdf", "nosuch does not exist"),
        (["curves", ""], ".pdf", "is empty"),
        (["curves", folder], ".eps", ".pdf, .svg or .png"),
        (["curves", folder, "--names", "bim"], ".pdf", "write NAME=NEW"),
        (["curves", folder, "--names", "bim=a", "bim=b"], ".pdf", "bim has two new names"),
    ):
        assert draw(*words, suffix=suffix) == 2
        assert refusal in capsys.readouterr().err


@pytest.mark.slow
def test_one_ranking_is_drawn_unless_attacks_are_named(folder):
    rows = predictions_of(load_sweep(folder))
    for record in rows.attrs[JOBS]:
        record["norm"] = "l2" if record["label"] == "bim" else "linf"
    frame = results_of_frame(rows)
    for words, bim in (({}, False), ({"attack": ["bim", "fgsm"]}, True)):
        drawn = {row["attack"] for row in read_rows(ranking(frame, **words).to_dict())}
        assert ("bim" in drawn) == bim and "fgsm" in drawn


def with_costs(folder, **costs):
    """Return a sweep's results with the gradients per image and budget of each attack."""
    rows = predictions_of(load_sweep(folder))
    gradients = rows["attack"].str.split().str[0].map(costs).astype(float)
    return results_of_frame(rows.assign(gradients=gradients * (rows["eps_255"] > 0)))


def test_costs_have_ticks_of_1_2_5_and_names_inside_the_figure(folder):
    long = {"mi steps=5": "a name of some length"}
    spec = cost(with_costs(folder, fgsm=1, bim=12, mi=900), names=long).to_dict()
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    shift = re.compile(r"translate\(([-\d.]+),([-\d.]+)\)")
    root, ends = ElementTree.fromstring(svg), {}
    ticks = [int(text.replace(",", "")) for text in texts_of(svg) if re.fullmatch(r"[\d,]+", text)]
    assert len(ticks) > 3 and {str(tick).rstrip("0") for tick in ticks} <= {"1", "2", "5"}
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        if text.text in ("fgsm", "bim", *long.values()) and text.attrib["fill"] != "white":
            assert text.attrib["fill"] == "#16191d"
            ends[text.text] = float(shift.match(text.attrib["transform"])[1])
    assert len(ends) == 3
    for name, start in ends.items():  # of the axis, at whose left is room for its labels
        assert start + 3.5 * len(name) + 20 < float(root.attrib["width"]), name


def test_an_attack_without_gradients_has_no_place_over_cost(folder):
    with pytest.raises(ValueError, match="bim: the gradients are unknown or 0"):
        cost(with_costs(folder, fgsm=1, bim=0, mi=900))
