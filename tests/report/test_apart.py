"""What is ranked apart stays out of means, and what is not measured is not drawn."""

import json

import pandas as pd
import pytest

import src
from src.artifacts.jobs import find_jobs, name_jobs
from src.report import figure as charts
from src.report.named_tables import matrices
from src.report.page.frame import build_report
from src.report.results import results_of
from tests.records import JOBS, results_of_frame
from tests.report.conftest import make_sweep
from tests.report.test_paper import frame_of, ordinary, table
from tests.report.test_selections import value

ENSEMBLE = "vgg+vit"


def with_ensemble() -> pd.DataFrame:
    """MI also from an ensemble, for twice as many gradients; the targets are others."""
    counts = {"fgsm": 2, "mi": 9}
    fooled = {
        (attack, source, target): count
        for attack, count in counts.items()
        for source in ("vgg", "vit")
        for target in ("net", "other")
    }
    frame = frame_of(fooled | {("mi", ENSEMBLE, target): 12 for target in ("net", "other")})
    rows = (frame["source"] == ENSEMBLE) & (frame["eps_255"] > 0)
    frame.loc[rows, "gradients"] *= 2
    return frame


def test_an_ensemble_is_in_no_mean_of_sources():
    ranked = src.rankings(results_of_frame(with_ensemble()))
    ranked = ranked[(ranked["attack"] == "mi") & (ranked["eps_255"] == 8)]
    costs = ranked.set_index("source")["gradients"]
    assert costs["mean of 2 sources"] == costs["vgg"] == 7 and costs[ENSEMBLE] == 14
    frame = with_ensemble()
    alone = frame[frame["attack"] == "mi"]
    for rows in ("source", ["source", "attack"]):
        assert "‡" not in table(alone, rows=rows, to="markdown")
    assert "‡" not in table(with_ensemble(), rows="attack", to="markdown")


def test_a_mean_without_a_pair_that_counts_no_image_is_marked():
    pairs = [(source, target) for source in ("vgg", "vit") for target in ("net", "other")]
    frame = frame_of({("fgsm", *pair): 12 for pair in pairs})
    clean, half = frame["eps_255"] == 0, frame["index"] < len(frame["index"].unique()) / 2
    wrong = frame["target"].eq("vgg") & half | frame["target"].eq("net") & ~half
    frame.loc[clean & wrong, "predicted"] = 1
    lines = table(frame, rows="source", columns="target", to="markdown").splitlines()
    assert [line.split()[1] for line in lines if "‡ |" in line] == ["vgg"]
    lines = table(frame, rows="target", columns="source", to="markdown").splitlines()
    assert [line.split()[1] for line in lines if "‡ |" in line] == ["net"]


def test_a_mean_lacks_no_white_box():
    fooled = dict.fromkeys([("fgsm", "vgg"), ("fgsm", "vit"), ("mi", "vgg")], 12)
    frame = frame_of({(*job, target): 12 for job in fooled for target in ("vgg", "vit")})
    text = table(frame, rows="attack", columns="target", to="markdown", average=False)
    assert "‡" not in text and "†" in text


def test_images_of_other_data_sets_have_a_matrix_of_their_own():
    frames = [ordinary(), ordinary()]
    frames[1].attrs[JOBS] = [job | {"data": "f" * 16} for job in frames[1].attrs[JOBS]]
    jobs = [job for frame in frames for job in results_of_frame(frame).jobs]
    shown = [forms[2] for forms in matrices(results_of(name_jobs(jobs))).values()]
    assert len({grid.caption for grid in shown}) == 2 * 3
    assert [len(grid.rows) for grid in shown] == [6] * 6


def test_an_attack_with_other_budgets_can_be_chosen():
    frame = ordinary()
    other = {"fgsm": 8, "mi": 4, "di": 4}
    kept = frame["eps_255"] == frame["attack"].map(other)
    part = frame[kept | (frame["eps_255"] == 0)]
    for job in part.attrs[JOBS]:
        eps = float(other[job["attack"]])
        job |= {"budgets": [0.0, eps], "reference": eps}
    results = results_of_frame(part)
    assert {*build_report(results).page["axes"]["attack"]} == {*other}
    assert "mi" in json.dumps(charts.matrix(results, attack="mi", eps_255=4).to_dict())


@pytest.mark.parametrize("protocol", ["joint", "source_correct"])
def test_a_curve_begins_with_the_clean_images(protocol):
    frame = ordinary()
    frame["protocol"] = protocol
    for job in frame.attrs[JOBS]:
        job["protocol"] = protocol
    spec = json.dumps(charts.curves(results_of_frame(frame), width="3.3in", names={}).to_dict())
    assert '"eps_255": 0.0' in spec


def test_two_models_with_one_printed_name_are_refused():
    results = results_of_frame(ordinary())
    with pytest.raises(ValueError, match="'net' is the printed name of several"):
        charts.matrix(results, width="3.3in", names={"vgg": "net", "vit": "net"})
    names = {"mi": "MI", "di": "MI"}  # of which one is drawn
    charts.curves(results, width="3.3in", attack=["fgsm", "mi"], names=names)


def test_models_may_have_the_names_of_columns():
    frame = frame_of({("fgsm", "source", target): 12 for target in ("target", "attack")})
    head, row = table(frame, rows=["attack", "source"], to="csv", average=False).splitlines()
    assert head == "attack,source,target,attack" and row.startswith("fgsm,source,")


def test_a_mean_over_sources_is_over_the_same_ones_at_each_budget(tmp_path):
    few = {"attacks": ("fgsm",), "full": False}
    make_sweep(tmp_path / "one", sources=("vgg",), budgets=(2.0, 8.0), **few)
    make_sweep(tmp_path / "other", sources=("resnet",), budgets=(4.0, 8.0), **few)
    page = build_report(results_of(find_jobs([tmp_path / "one", tmp_path / "other"]))).page
    place = {"attack": "fgsm", "defence": "none", "protocol": "joint", "target": ""}
    means = {eps: value(page, "fooled", **place, source="", eps_255=eps) for eps in (2.0, 4.0, 8.0)}
    each = [value(page, "fooled", **place, source=name, eps_255=8.0) for name in ("vgg", "resnet")]
    assert means[2.0] is None is means[4.0]
    assert min(each) < means[8.0] < max(each)


def test_the_sources_of_a_mean_are_those_at_the_attacks_own_reference_budget(tmp_path):
    few = {"full": False, "sources": ("vgg",)}
    make_sweep(tmp_path / "mi", attacks=("mi",), budgets=(4.0, 8.0), **few)
    make_sweep(tmp_path / "one", attacks=("fgsm",), budgets=(2.0, 4.0), **few)
    few["sources"] = ("resnet",)
    make_sweep(tmp_path / "other", attacks=("fgsm",), budgets=(1.0, 4.0), **few)
    jobs = find_jobs([tmp_path / name for name in ("mi", "one", "other")])
    page = build_report(results_of(jobs)).sweeps["B"].page
    place = {"attack": "fgsm", "defence": "none", "protocol": "joint"}
    at = [value(page, "fooled", **place, source="", target="", eps_255=eps) for eps in (1, 2, 4)]
    assert at[:2] == [None, None]
    each = [
        value(page, "fooled", **place, source=source, target="vit", eps_255=4)
        for source in ("vgg", "resnet")
    ]
    on_vit = value(page, "fooled", **place, source="", target="vit", eps_255=4)
    assert on_vit == pytest.approx(sum(each) / 2, abs=1e-4)
    assert page["means"] == ["mean of 2 sources"]
