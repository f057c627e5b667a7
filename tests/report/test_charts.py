"""Charts of the page without warnings for data of many kinds, and figures for papers."""

import json
import re
from xml.etree import ElementTree

import pytest
import vl_convert

import src
import src.figure
from src.report.page.html import VEGA_LITE
from tests.records import predictions_of, results_of_frame

DRAWN = ("ordinary", "one image", "missing values", "hostile names", "sources that are no targets")


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWN)
def test_every_chart_renders_without_a_warning(made_up, kind, capfd):
    report = made_up(kind)
    names = [one.name for one in report.figures]
    assert len(set(names)) == len(names) and "confidences" in names
    for one in report.figures:
        one.chart.to_dict()  # valid by Vega-Lite's schema
        rows = json.loads(one.data.to_json(orient="records"))
        spec = {**one.specification(), "datasets": {"rows": rows}}
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, show_warnings=True)
        assert "role-mark" in svg and spec["description"] == f"{one.title}. {one.caption}", one.name
    assert "WARN" not in capfd.readouterr().err
    assert kind != "ordinary" or len(names) == 12


PAIR = {"attack": "fgsm", "source": "vgg", "target": "vit"}


@pytest.fixture
def sweep(results_of_kind):
    """Results of FGSM and BIM from three sources; the first has pictures. Tests only read them."""
    return results_of_kind("ordinary")


@pytest.fixture
def draw(tmp_path, sweep):
    """A function that runs the command line and returns the figure's content, or the exit code."""

    def run(kind, *words, suffix=".svg", folder=sweep.jobs[0].sweep_folder):
        out = tmp_path / f"figure{suffix}"
        return src.figure.main([kind, str(folder), *words, "--out", str(out)]) or out.read_bytes()

    return run


def text_of(chart) -> str:
    """Return a chart as JSON, with a space in the place of an end of a line of its title."""
    return json.dumps(chart.to_dict(), ensure_ascii=False).replace('", "', " ")


def test_a_figure_has_its_size_and_text_of_seven_points(draw, capfd):
    svg = draw("matrix", "--width", "101.6mm", "--height", "2.4in")
    root = ElementTree.fromstring(svg)
    sizes = [float(root.attrib[name].removesuffix("pt")) for name in ("width", "height")]
    assert sizes == pytest.approx([288, 172.8], abs=0.01)
    assert {*re.findall(rb'font-size="(.*?)"', svg)} == {b"7px"}  # the file has one per point
    assert not capfd.readouterr().err


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


def test_an_image_that_is_wrong_when_clean_is_called_so(sweep):
    rows = predictions_of(sweep).query("target == 'vit' and eps_255 == 0 and attack == 'fgsm'")
    right = (rows["predicted"] == rows["label"]).groupby(rows["index"]).first()
    for number in (right.idxmin(), right.idxmax()):
        text = text_of(src.image(int(number), sweep, **PAIR))
        assert ("already wrong when clean" in text) == (not right[number])
        assert ("wrong at" in text or "lowest at" in text) == right[number]


REFUSED = [
    (src.curves, {"attack": "mj"}, "attack=mj: choose from"),
    (src.curves, {"names": {"fgsm": "a", "bim": "a"}}, "'a' is the printed name of several"),
    (src.ranking, {"eps_255": 3.0}, "eps_255=3.0: choose from"),
    (src.matrix, {"attack": ["bim", "fgsm"]}, "one attack"),
    (src.ranking, {"width": "wide"}, "width=wide"),
    (src.ranking, {"height": "0.3in"}, "names need a height"),
    (src.ranking, {"names": {"bim": "long" * 12}}, "is too long"),
    (src.cost, {"attack": "bim"}, "bim: the gradients are unknown or 0"),
    (src.image, {"number": 999}, "image 999: choose one of the 120"),
    (src.strip, {"number": 1, "attack": ["fgsm", "bim"]}, "This figure shows one attack"),
    (
        src.strip,
        {"number": 1, **PAIR, "budgets": [3]},
        "eps=3: image 1 has pictures at 1, 2, 4, 8",
    ),
    (src.strip, {"number": 30, **PAIR}, "image 30 has no picture: choose from 0, 1, 2, or run"),
    (src.strip, {"number": 1, **PAIR, "width": "1in"}, "7 pictures need a width of"),
    (src.confidence_groups, {"bins": 0}, "bins above 0"),
    (src.confidence_groups, {"bins": 5, "height": "1in"}, "need a height of"),
]


def test_what_cannot_be_drawn_is_refused(sweep, results_of_kind):
    for draw, words, refusal in REFUSED:
        number = [words["number"]] if "number" in words else []
        rest = {key: its for key, its in words.items() if key != "number"}
        with pytest.raises(ValueError, match=re.escape(refusal)):
            draw(*number, sweep, **rest)
    frame = predictions_of(sweep).query("variant == 'float32'")
    for few, words, refusal in (
        (5, {}, "need 9 counted images"),
        (15, {"bins": 0.01}, "no bin has 3 images"),
    ):
        with pytest.raises(ValueError, match=refusal):
            src.confidence_groups(results_of_frame(frame[frame["index"] < few]), **words)
    with pytest.raises(ValueError, match="only clean images"):
        src.profiles(results_of_kind("clean images"))


def test_a_refusal_of_the_command_line_is_one_sentence(draw, tmp_path, capsys):
    for words, options, refusal in (
        (["curves"], {"folder": tmp_path / "nosuch"}, "nosuch does not exist"),
        (["curves"], {"suffix": ".eps"}, ".pdf, .svg or .png"),
        (["curves", "--names", "bim=a", "bim=b"], {}, "bim has two new names"),
        (["ranking", "--value", "accuracy"], {}, "--value: only figures of the kind curves or"),
    ):
        assert draw(*words, **options) == 2
        error = capsys.readouterr().err
        assert refusal in error and error.count("\n") == 1
