"""Figures for papers: their size, their numbers, and what is refused."""

import re
import sys

import pandas as pd
import pytest

from src import figure
from src.figure import main
from src.report.paper_figures import save_figure
from tests.conftest import REPOSITORY

KINDS = ["curves", "ranking", "cost", "matrix"]


@pytest.fixture
def folder(make_sweep):
    return make_sweep(attacks=("fgsm", "mi"))


def drawn(chart, *columns):
    """Return the rows of the chart's table that has some columns."""
    spec = chart.to_dict()
    for text in spec["datasets"].values():
        names = text.splitlines()[0].split(",") if isinstance(text, str) else []
        if {*columns} <= {*names}:
            return [dict(zip(names, row.split(","), strict=True)) for row in text.splitlines()[1:]]
    raise AssertionError(f"no table has {columns}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_has_its_printed_size_and_readable_text(folder, tmp_path, kind):
    if kind == "cost":  # made-up jobs take no gradients
        folder = REPOSITORY / "docs" / "results" / "kinds-photos"
    chart = figure(kind, folder, width="3.3in", height="2in", names={"mi": "MI-FGSM"})
    sizes = re.findall(r'"(?:labelFontSize|titleFontSize|fontSize)": ([\d.]+)', chart.to_json())
    assert sizes and min(map(float, sizes)) >= 7
    for suffix in (".svg", ".pdf", ".png"):
        save_figure(chart, tmp_path / f"figure{suffix}")
    head = (tmp_path / "figure.svg").read_text()[:300]
    assert 'width="237.6pt" height="144pt"' in head or 'width="238pt" height="144pt"' in head
    assert (tmp_path / "figure.pdf").read_bytes()[:4] == b"%PDF"
    if kind not in ("matrix", "cost"):
        assert "MI-FGSM" in (tmp_path / "figure.svg").read_text()


def test_curves_are_means_over_other_models(folder):
    from src import load_sweep, rates

    found = rates(load_sweep(folder))
    found = found[(found["protocol"] == "joint") & (found["source"] == "vgg")]
    rows = drawn(
        figure("curves", folder, attack=["mi", "fgsm"], source="vgg"), "attack", "success_rate"
    )
    for row in rows:
        mine = found[(found["attack"] == row["attack"]) & (found["target"] != "vgg")]
        mine = mine[mine["eps_255"] == float(row["eps_255"])]
        assert float(row["success_rate"]) == pytest.approx(mine["success_rate"].mean(), rel=1e-3)
    by_target = drawn(figure("curves", folder, attack="mi", source="vgg"), "target")
    assert {row["target"] for row in by_target} == {"resnet", "vit"}


def test_wrong_words_are_refused_in_one_line(folder, tmp_path, capsys, monkeypatch):
    for words in (
        ["curve"],
        ["curves", "--attack", "no"],
        ["curves", "--width", "3"],
        ["curves", "--out", str(tmp_path / "a.gif")],
        ["matrix", "--attack", "fgsm", "mi"],
        ["ranking", "--eps", "77"],
    ):
        monkeypatch.setattr(sys, "argv", ["src.figure", words[0], str(folder), *words[1:]])
        with pytest.raises(SystemExit) as stop:
            main()
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1, words
    assert not [*tmp_path.glob("*.gif")]


def test_the_command_writes_a_file(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "figure.svg"
    words = ["ranking", str(folder), "--names", "mi=MI-FGSM", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["src.figure", *words])
    main()
    assert str(out) in capsys.readouterr().out and "MI-FGSM" in out.read_text()


def test_a_frame_has_figures_too(folder):
    from src import load_sweep

    frame = load_sweep(folder)
    assert isinstance(frame, pd.DataFrame)
    assert figure("matrix", frame).to_dict()["height"] == 144
