"""Every chart by its data and encoding, and without warnings for data of many kinds."""

import json
import re
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert

import src.figure
from src.artifacts.jobs import find_jobs
from src.artifacts.record import with_record
from src.report import diagnostics, figure
from src.report.page.frame import build_report
from src.report.page.html import VEGA_LITE
from src.report.results import results_of
from tests.conftest import REPOSITORY
from tests.report.conftest import make_sweep

DRAWN = ("missing values",)  # some of Vega's warnings come from drawing alone
COMPILED = ("ordinary", "unsure", "one image", "hostile names", "many models")
COMPILED += ("sources that are no targets",)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*DRAWN, *COMPILED])
def test_every_chart_renders_without_a_warning(made_up, kind, capfd):
    report = made_up(kind)
    names = [one.name for one in report.figures]
    assert len(set(names)) == len(names) and "confidences" in names
    for one in report.figures:
        one.chart.to_dict()  # valid by Vega-Lite's schema
        spec = {**one.drawn(), "datasets": {"rows": json.loads(one.data.to_json(orient="records"))}}
        if kind in DRAWN:
            svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, show_warnings=True)
            marks = [each.get("class", "") for each in ElementTree.fromstring(svg).iter()]
            assert any("role-mark" in each for each in marks), one.name
        else:
            vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE, show_warnings=True)
        assert spec["description"] == f"{one.title}. {one.caption}"
    assert "WARN" not in capfd.readouterr().err
    assert kind != "ordinary" or {*names} == {
        *("effects", "similarity", "filtered", "spectra", "low-passed"),
        *("visibility", "iterations", "variants", "excess"),
        *("confidences", "confidence-profiles", "classes"),
    }


CHARTS = {
    "lines": {"x": "eps_255", "colour": "target", "dash": "source"},
    "points": {"x": "eps_255", "x_scale": "sqrt", "marks": "points", "names": True},
    "names": {"x": "target", "colour": "", "marks": "points", "names": True},
    "rows": {"x": "target", "marks": "rows", "percent": True, "colour": ""},
    "bars": {"colour": "", "marks": "bars", "titles": {"entropy": "bits"}},
    "images": {"x": "index", "y_scale": "log", "colour": "label"},
    "logarithms": {"x": "target", "x_scale": "log", "y_scale": "log"},
}


def measured(folder, names, settings):
    """Return the results of a sweep whose job has tables of these names, with some settings."""
    few = {"sources": ("vgg",), "attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    (job,) = find_jobs([make_sweep(folder, **few)])
    rows = job.predictions.query("eps_255 > 0").assign(entropy=lambda its: its["confidence"])
    record = job.record.model_copy(update={"config": job.record.config | settings})
    tables = {name: pq.read_table(job.folder / f"{name}.parquet") for name in job.files}
    table = rows[["index", "label", "target", "eps_255", "entropy"]].astype({"target": str})
    tables |= dict.fromkeys(names, pa.Table.from_pandas(table, preserve_index=False))
    for name, table in tables.items():
        table = with_record(table.replace_schema_metadata({}), name, record)
        pq.write_table(table, job.folder / f"{name}.parquet")
    return results_of(find_jobs([folder])), rows


def test_a_users_chart_takes_every_setting(tmp_path, capfd):
    own = {
        name: {"_target_": f"{name}.Entropy", "chart": {"y": "entropy", **chart}}
        for name, chart in CHARTS.items()
    }
    results, rows = measured(tmp_path / "sweep", CHARTS, {"measurements": own})
    figures = {one.name: one for one in build_report(results).figures}
    for name, chart in CHARTS.items():
        one, x = figures[f"own-{name}"], chart.get("x", "source")
        means = {"vgg": rows["entropy"].mean()}
        if x != "source":
            means = rows.groupby(x)["entropy"].mean().to_dict()
        drawn = one.data.groupby(x)[["entropy", "images"]].apply(
            lambda its: its["entropy"] @ its["images"] / its["images"].sum()
        )
        assert drawn.to_dict() == pytest.approx(means), name
        one.chart.to_dict()  # valid by Vega-Lite's schema
        vl_convert.vegalite_to_vega(one.drawn(), vl_version=VEGA_LITE, show_warnings=True)
    assert "WARN" not in capfd.readouterr().err


def test_a_new_diagnostic_and_a_new_figure_are_one_entry(monkeypatch, tmp_path):
    page = (REPOSITORY / "docs" / "own-measurement.md").read_text(encoding="utf-8")
    block = "### A {} of the program\n.*?^```python\n(.*?)^```$"
    entry, function = (
        re.search(block.format(kind), page, re.MULTILINE | re.DOTALL)[1]
        for kind in ("chart", "figure")
    )
    monkeypatch.setattr(diagnostics, "DIAGNOSTICS", {**diagnostics.DIAGNOSTICS})
    monkeypatch.setattr(figure, "FIGURES", {**figure.FIGURES})
    results, rows = measured(tmp_path / "sweep", ["entropy"], {})
    exec(entry, vars(diagnostics))
    (one,) = [one for one in build_report(results).figures if one.name == "entropy"]
    means = rows.groupby(["target", "eps_255"])["entropy"].mean()
    assert one.data.set_index(["target", "eps_255"])["entropy"].to_dict() == means.to_dict()
    exec(function, vars(figure))
    out = tmp_path / "success.svg"
    words = ["success", str(results.jobs[0].folder), "--source", "vgg", "--out", str(out)]
    assert src.figure.main(words) == 0 and "fgsm" in out.read_text()
    assert src.figure.main([*words, "--bins", "3"]) == 2
