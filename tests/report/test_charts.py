"""Charts of the page without warnings for data of many kinds, and figures for papers."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert

import src
import src.figure
from src.artifacts.jobs import find_jobs
from src.artifacts.record import with_record
from src.report import diagnostics, figure
from src.report.charts.theme import DASHES, SHAPES
from src.report.page.frame import build_report
from src.report.page.html import VEGA_LITE
from src.report.results import results_of
from tests.conftest import REPOSITORY
from tests.records import predictions_of, results_of_frame
from tests.report.conftest import make_sweep as write_sweep

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


CHARTS = {
    "lines": {"x": "eps_255", "colour": "target", "dash": "source"},
    "points": {"x": "eps_255", "x_scale": "sqrt", "marks": "points", "names": True},
    "names": {"x": "target", "colour": "", "marks": "points", "names": True},
    "rows": {"x": "target", "marks": "rows", "percent": True, "colour": ""},
    "bars": {"colour": "", "marks": "bars", "titles": {"entropy": "bits"}},
    "images": {"x": "index", "y_scale": "log", "colour": "label"},
    "logarithms": {"x": "target", "x_scale": "log", "y_scale": "log"},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A sweep whose job has a table `entropy` for each of the charts, and the rows of each."""
    folder = tmp_path_factory.mktemp("measured") / "sweep"
    few = {"sources": ("vgg",), "attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    (job,) = find_jobs([write_sweep(folder, **few)])
    rows = job.predictions.query("eps_255 > 0").assign(entropy=lambda its: its["confidence"])
    own = {
        name: {"_target_": f"{name}.Entropy", "chart": {"y": "entropy", **chart}}
        for name, chart in CHARTS.items()
    }
    record = job.record.model_copy(update={"config": job.record.config | {"measurements": own}})
    tables = {name: pq.read_table(job.folder / f"{name}.parquet") for name in job.files}
    table = rows[["index", "label", "target", "eps_255", "entropy"]].astype({"target": str})
    table = pa.Table.from_pandas(table, preserve_index=False)
    for name, its in (tables | dict.fromkeys([*CHARTS, "entropy"], table)).items():
        its = with_record(its.replace_schema_metadata({}), name, record)
        pq.write_table(its, job.folder / f"{name}.parquet")
    return results_of(find_jobs([folder])), rows


def test_a_users_chart_takes_every_setting(measured, capfd):
    results, rows = measured
    figures = {one.name: one for one in build_report(results).figures}
    for name, chart in CHARTS.items():
        one, x = figures[f"own-{name}"], chart.get("x", "source")
        means = rows.assign(source="vgg").groupby(x)["entropy"].mean()
        drawn = one.data.groupby(x)[["entropy", "images"]].apply(
            lambda its: its["entropy"] @ its["images"] / its["images"].sum()
        )
        assert drawn.to_dict() == pytest.approx(means.to_dict()), name
        one.chart.to_dict()  # valid by Vega-Lite's schema
        vl_convert.vegalite_to_vega(one.specification(), vl_version=VEGA_LITE, show_warnings=True)
    assert "WARN" not in capfd.readouterr().err


def test_a_new_diagnostic_and_a_new_figure_are_one_entry(measured, monkeypatch, tmp_path):
    page = (REPOSITORY / "docs" / "own-measurement.md").read_text(encoding="utf-8")
    block = "### A {} of the program\n.*?^```python\n(.*?)^```$"
    entry, function = (
        re.search(block.format(kind), page, re.MULTILINE | re.DOTALL)[1]
        for kind in ("chart", "figure")
    )
    monkeypatch.setattr(diagnostics, "DIAGNOSTICS", {**diagnostics.DIAGNOSTICS})
    monkeypatch.setattr(figure, "FIGURES", {**figure.FIGURES})
    results, rows = measured
    exec(entry, vars(diagnostics))
    (one,) = [one for one in build_report(results).figures if one.name == "entropy"]
    means = rows.groupby(["target", "eps_255"])["entropy"].mean()
    assert one.data.set_index(["target", "eps_255"])["entropy"].to_dict() == means.to_dict()
    exec(function, vars(figure))
    out = tmp_path / "success.svg"
    words = ["success", str(results.jobs[0].folder), "--source", "vgg", "--out", str(out)]
    assert src.figure.main(words) == 0 and "fgsm" in out.read_text()
    assert src.figure.main([*words, "--bins", "3"]) == 2


PAIR = {"attack": "fgsm", "source": "vgg", "target": "vit"}
ARROW = "\N{RIGHTWARDS ARROW}"
CLASSES = ("cat", "dog", "owl", "fox", "elk", "ape")


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
        out, place = tmp_path / f"figure{suffix}", 1 if kind == "image" else 0
        words = [*map(str, words[:place]), str(folder), *map(str, words[place:])]
        return src.figure.main([kind, *words, "--out", str(out)]) or out.read_bytes()

    return run


def rows_in(sweep):
    """Return the predictions of a sweep on images in the storage that all jobs have."""
    return predictions_of(sweep).query("variant == 'float32'")


def only(sweep, query):
    """Return the results of some predictions of a sweep."""
    return results_of_frame(rows_in(sweep).query(query))


def text_of(chart) -> str:
    """Return a chart as JSON, with a space in the place of an end of a line of its title."""
    return json.dumps(chart.to_dict(), ensure_ascii=False).replace('", "', " ")


def rows_of(chart) -> list[dict[str, Any]]:
    """Return the rows of all tables of a figure."""
    tables = chart.to_dict()["datasets"].values()
    return [row for rows in tables for row in rows if isinstance(row, dict)]


@pytest.mark.parametrize("kind", ["matrix", pytest.param("image", marks=pytest.mark.slow)])
def test_a_figure_has_its_size_and_text_of_seven_points(draw, kind, capfd):
    svg = draw(kind, *[5] * (kind == "image"), "--width", "101.6mm", "--height", "2.4in")
    root = ElementTree.fromstring(svg)
    sizes = [float(root.attrib[name].removesuffix("pt")) for name in ("width", "height")]
    assert sizes == pytest.approx([288, 172.8], abs=1)  # panels are fitted in steps
    assert {*re.findall(rb'font-size="(.*?)"', svg)} == {b"7px"}  # the file has one per point
    assert not capfd.readouterr().err


def test_what_is_named_has_a_line_with_a_look_of_its_own(sweep):
    names = {"fgsm": "FGSM", "mi": "MI"}
    rows = rows_of(src.curves(sweep, names=names))
    assert {row["series"] for row in rows if "series" in row} == {"FGSM", "bim", "MI steps=5"}
    options = {"attack": ["fgsm", "bim"], "source": ["vgg", "vit"], "target": ["vgg", "vit"]}
    rows = rows_of(src.curves(sweep, **options, width="5in"))
    looks = {(row["series"], row["colour"], str(row["dash"]), row["shape"]) for row in rows}
    assert len(looks) == 8 == len({look[1:] for look in looks})
    assert f"bim: vgg {ARROW} vit" in {look[0] for look in looks}


def test_the_success_of_a_targeted_attack_is_not_called_fooled(results_of_kind):
    aimed = results_of_kind("targeted")
    assert "Cells: target class reached, share of" in text_of(src.matrix(aimed))
    for draw in (src.ranking, src.curves):
        assert '"target class reached' in text_of(draw(aimed))


def test_lines_have_the_looks_of_the_page_and_begin_with_the_clean_images(results_of_kind):
    script = (REPOSITORY / "src" / "report" / "templates" / "page.js").read_text()
    for name, ours in (("SHAPES", SHAPES), ("DASHES", DASHES)):
        looks = json.loads(re.search(rf"const {name} = (\[.*\]);", script)[1])
        assert looks[: len(ours)] == ours
    white = rows_of(src.curves(results_of_kind("one model"), value="confidence"))
    assert {row["eps_255"] for row in white if "value" in row} == {0.0, 2.0, 8.0}


def test_a_strip_has_a_picture_per_budget_and_the_classes(sweep):
    chart = src.strip(1, sweep, **PAIR, names={"vit": "Bartholomew"})
    cells = [row for row in rows_of(chart) if "url" in row]
    assert all(row["url"].startswith("data:image/png") for row in cells)
    assert f"fgsm: vgg {ARROW} Bartholomew" in text_of(chart)
    rows = rows_in(sweep).query("attack == 'fgsm' and source == 'vgg' and target == 'vit'")
    rows = rows[rows["index"] == 1]
    expected = [
        f"{'wrong: ' * (row.predicted != row.label)}{CLASSES[row.predicted]}\n"
        f"{100 * row.confidence:.0f} %"
        for row in rows.itertuples()
    ]
    clean, change, *attacked = (row["text"].partition("\n") for row in cells)
    assert [clean[2], *(text for _, _, text in attacked)] == expected
    assert [head for head, *_ in attacked] == ["2/255", "8/255"] and clean[0] == "clean"
    assert change[2].startswith("\N{MULTIPLICATION SIGN}")  # enhanced


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


REFUSED = [
    (src.curves, {"attack": "mj"}, "attack=mj: choose from"),
    (src.curves, {"value": "nope"}, "value=nope: choose from success, accuracy"),
    (src.curves, {"names": {"fgsm": "a", "bim": "a"}}, "'a' is the printed name of several"),
    (src.ranking, {"eps_255": 3.0}, "eps_255=3.0: choose from"),
    (src.matrix, {"attack": ["bim", "fgsm"]}, "one attack"),
    (src.ranking, {"width": "wide"}, "width=wide"),
    (src.ranking, {"height": "0.3in"}, "names need a height"),
    (src.ranking, {"names": {"bim": "long" * 12}}, "is too long"),
    (src.cost, {"attack": "bim"}, "bim: the gradients are unknown or 0"),
    (src.image, {"number": 999}, "image 999: choose one of the 120"),
    (src.strip, {"number": 1, "attack": ["fgsm", "bim"]}, "This figure shows one attack"),
    (src.strip, {"number": 1, **PAIR, "budgets": [3]}, "eps=3: image 1 has pictures at 2, 8."),
    (src.strip, {"number": 30, **PAIR}, "image 30 has no picture: choose from 0, 1, 2, or run"),
    (src.strip, {"number": 1, **PAIR, "width": "1in"}, "4 pictures need a width of"),
    (src.confidence_groups, {"bins": 0}, "bins above 0"),
    (src.confidence_groups, {"bins": 5, "height": "1in"}, "need a height of"),
]


def test_what_cannot_be_drawn_is_refused(sweep, results_of_kind):
    for draw, words, refusal in REFUSED:
        number = [words["number"]] if "number" in words else []
        rest = {key: its for key, its in words.items() if key != "number"}
        with pytest.raises(ValueError, match=re.escape(refusal)):
            draw(*number, sweep, **rest)
    with pytest.raises(ValueError, match="need 9 counted images"):
        src.confidence_groups(only(sweep, "index < 5"))
    with pytest.raises(ValueError, match="no bin has 3 images"):
        src.confidence_groups(only(sweep, "index < 15"), bins=0.01)
    with pytest.raises(ValueError, match="only clean images"):
        src.profiles(results_of_kind("clean images"))


def test_a_refusal_of_the_command_line_is_one_sentence(draw, tmp_path, capsys):
    for words, options, refusal in (
        (["curves"], {"folder": tmp_path / "nosuch"}, "nosuch does not exist"),
        (["curves"], {"suffix": ".eps"}, ".pdf, .svg or .png"),
        (["curves", "--names", "bim=a", "bim=b"], {}, "bim has two new names"),
        (["ranking", "--value", "accuracy"], {}, "--value: only figures of the kind curves or"),
        (["cost", "--bins=5"], {}, "--bins: only figures of the kind confidence-groups"),
    ):
        assert draw(*words, **options) == 2
        error = capsys.readouterr().err
        assert refusal in error and error.count("\n") == 1
