"""Every number that the page looks up, against `rankings` and `src.table`."""

import io
import json
import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from src import load_sweep, rankings, table
from src.analysis.quantities import QUANTITIES
from src.artifacts.jobs import find_jobs
from src.report.page.frame import AXES, RANKING_KEYS, SOURCE_KEYS, build_report, key_of
from src.report.page.html import as_json
from src.report.results import results_of
from src.report.terminal import print_rankings
from tests.report.conftest import KINDS, make_sweep

HOLES = ("clean images", "missing values", "one image")


def value(page, column, **place):
    """Look a value of a `quantity`, or another `quantity.column`, up as the page's script does."""
    at = 0
    for axis in AXES:
        names = [*page["axes"][axis], *["white boxes"] * (axis == "target")]
        at = at * len(names) + names.index(place[axis])
    quantity, _, kind = column.partition(".")
    rows = dict(zip(page["rows"]["place"], page["rows"][quantity][kind or "value"], strict=True))
    return rows.get(at)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("sweep"), **KINDS["defended"])


@pytest.fixture(scope="module")
def frame(folder):
    return load_sweep(folder)


@pytest.fixture(scope="module")
def attack_rankings(frame):
    return rankings(frame)


VALUES = {"fooled": "success", "correct": "accuracy", "confidence": "confidence"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short", "eps", "protocol"),
    [*product(VALUES, (2.0, 8.0), ("joint", "all"))],
)
def test_cells_and_means_are_those_of_the_table(made_up, frame, short, eps, protocol):
    page = made_up("defended").page
    for defence, rows in product(("none", "jpeg"), (["source", "attack"], ["attack"])):
        words = {"value": VALUES[short], "eps_255": eps, "protocol": protocol, "defence": defence}
        text = table(frame, rows=rows, columns="target", to="csv", **words)
        for row in pd.read_csv(io.StringIO(text)).to_dict("records"):
            for target in ("vgg", "resnet", "vit", "mixer", "average"):
                place = {"attack": row["attack"], "source": row.get("source", "")}
                place |= {"target": target if target != "average" else "", "eps_255": eps}
                shown = value(page, short, **place, defence=defence, protocol=protocol)
                assert shown == pytest.approx(row[target], abs=6e-5), (place, defence)
                text = value(page, f"{short}.text", **place, defence=defence, protocol=protocol)
                assert text == f"{100 * row[target]:.1f}", (place, defence)


@pytest.mark.slow
def test_rankings_are_those_of_rankings(made_up, frame, attack_rankings):
    page = made_up("defended").page
    both = {"attack": attack_rankings, "source": rankings(frame, of="source")}
    for of, key in (("attack", "source"), ("source", "attack")):
        ranked = both[of]
        every = ranked["sources" if of == "attack" else "attacks"] > 1
        ranked = ranked.assign(
            **{key: ranked[key].mask(every, "") if of == "attack" else ranked[key]}
        )
        shown = page["rankings" if of == "attack" else "sources"]
        checked, keys = 0, RANKING_KEYS if of == "attack" else SOURCE_KEYS
        if of == "source":
            ranked["target"] = ranked["target"].mask(ranked["target"] == "all targets", "")
        for place, rows in ranked.groupby([*keys], sort=False):
            names = dict(zip(keys, place, strict=True))
            if names[key] not in page["axes"][key]:
                continue  # the mean over attacks, which the page does not show
            its = shown[key_of(page["axes"], names, keys)]["rows"]
            its = [one for one in its if one.get("name")]
            rows = rows[rows["rank"].notna()]
            assert [one["name"] for one in its] == rows[of].tolist()
            for one, (_, row) in zip(its, rows.iterrows(), strict=True):
                assert one["value"] == pytest.approx(row["mean"], abs=6e-5)
                assert one["text"] == f"{100 * row['mean']:.1f}"
                if row["rank"] > 1:
                    assert one["behind"] == f"{-100 * row['difference']:z.1f}"
                    assert one["rank"].startswith("= ") == row["undecided"]
                checked += 1
        assert checked


def printed(results):
    """Return what the terminal shows of the rankings."""
    console = Console(file=io.StringIO(), width=300)
    print_rankings(results, console)
    return console.file.getvalue()


FEW = [pytest.param(20, marks=pytest.mark.slow), 60, pytest.param(150, marks=pytest.mark.slow)]


@pytest.mark.parametrize("images", FEW)
def test_page_and_terminal_compare_sources_alike_on_each_target(tmp_path, images):
    """Three networks that attack each other are ranked on single targets alone."""
    small = {"attacks": ("bim",), "budgets": (8.0,), "full": False}
    results = results_of(find_jobs([make_sweep(tmp_path, images=images, **small)]))
    page, text = build_report(results).page, printed(results)
    place = {"defence": "none", "attack": "bim", "eps_255": page["first"]["eps"]}
    for target in ("vgg", "resnet", "vit"):
        ranked = page["sources"][key_of(page["axes"], {**place, "target": target}, SOURCE_KEYS)]
        assert ranked["text"].startswith(f"on {target}") and ranked["text"] in text
        assert ("not tested" in ranked["text"]) == (images < 30)
        for row in ranked["rows"]:
            assert f"{row['name']} {row['text']}%" in ranked["text"]


@pytest.mark.slow
@pytest.mark.parametrize("images", [99, 400])
def test_page_and_terminal_judge_sources_alike_over_all_targets(tmp_path, images):
    models = ("vgg", "resnet", "vit", "mixer")
    small = {"attacks": ("bim",), "budgets": (8.0,), "full": False}
    folder = make_sweep(tmp_path, models=models, images=images, **small)
    results = results_of(find_jobs([folder]))
    results.sources["depends_on"] = results.sources["target"].map({"all targets": "vit"}).fillna("")
    results.sources["undecided"] = results.sources["rank"] == 1
    page, text = build_report(results).page, printed(results)
    place = {"defence": "none", "attack": "bim", "eps_255": page["first"]["eps"], "target": ""}
    notes = page["sources"][key_of(page["axes"], place, SOURCE_KEYS)]["notes"]
    assert all(note[1:-1] in text for note in notes)
    assert ("Without target vit, no lead is significant." in notes) == (images > 100)


def test_the_answer_names_the_first_and_what_it_is_ahead_of(made_up, attack_rankings):
    lead, rest, details = made_up("defended").answer
    rows = attack_rankings.query("eps_255 == 8 and defence == 'none' and sources > 1")
    first, second = rows.iloc[0], rows.iloc[1]
    decided = not second["undecided"]
    assert lead.startswith(first["attack"]) and ("transfers best" in lead) == decided
    assert "at 8/255" in rest and second["attack"] in rest
    assert f"{abs(100 * second['difference']):.1f} point" in rest
    assert f"the {first['images']} of 130 images" in details and "p < 0.05" in details


def test_a_quantity_that_is_drawn_can_be_chosen(results_of_kind, monkeypatch):
    results = results_of_kind("one source")
    entry = replace(QUANTITIES["true_confidence"], drawn="in the true class")
    monkeypatch.setitem(QUANTITIES, "true_confidence", entry)
    page = build_report(results).page
    assert [*page["shown"]] == ["fooled", "correct", "class"]
    place = {"attack": "bim", "source": "vgg", "target": "vit", "defence": "none"}
    place |= {"protocol": "joint", "eps_255": 8.0}
    (share,) = results.select(**place)["true_confidence"]
    assert value(page, "class", **place) == pytest.approx(share, abs=6e-5)
    assert value(page, "class.text", **place) == f"{100 * share:.1f}"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in HOLES else pytest.mark.slow) for kind in sorted(KINDS)],
)
def test_all_data_of_a_page_are_json_without_nan(made_up, kind):
    report = made_up(kind)
    assert json.loads(as_json(report.page)).keys() == report.page.keys()
    for name, block in report.blocks.items():
        if name.startswith("job-"):
            job = json.loads(zlib.decompress(block))
            size = len(job["models"]) * len(job["eps"]) * len(job["index"])
            assert len(job["predicted"]) == len(job["confidence"]) == size


def test_every_image_has_its_prediction(made_up, results_of_kind):
    report, job = made_up("ordinary"), results_of_kind("ordinary").attacked[0][0].job
    number = report.page["jobs"].index((job.attack, job.record.source))
    block = json.loads(zlib.decompress(report.blocks[f"job-{number}"]))
    shape = (len(block["models"]), len(block["eps"]), len(block["index"]))
    predicted, confidence = (np.reshape(block[name], shape) for name in ("predicted", "confidence"))
    for row in job.defended.sample(200, random_state=0).to_dict("records"):
        at = (
            block["models"].index([row["target"], row["defence"]]),
            block["eps"].index(row["eps_255"]),
            block["index"].index(row["index"]),
        )
        code = predicted[at]
        assert (block["label"][at[2]] if code == 0 else code - 1) == row["predicted"]
        assert confidence[at] == round(100 * row["confidence"])


@pytest.mark.slow
def test_white_boxes_are_in_no_mean_and_one_source_with_another_target_is_ranked(tmp_path):
    small = {"targets": ("vgg",), "budgets": (8.0,), "full": False}
    folder = make_sweep(tmp_path, models=("vgg", "resnet"), **small)
    report = build_report(results_of(find_jobs([folder])))
    page, place = report.page, {"defence": "none", "protocol": "joint", "eps_255": 8.0}
    ranked = rankings(folder).query("eps_255 == 8")
    assert set(ranked["source"]) == {"resnet"}
    for _, row in ranked.iterrows():
        place["attack"] = row["attack"]
        assert value(page, "fooled", **place, source="vgg", target="vgg") is not None
        assert value(page, "fooled", **place, source="vgg", target="") is None
        for source, target in (("", "vgg"), ("", ""), ("resnet", "")):
            shown = value(page, "fooled", **place, source=source, target=target)
            assert shown == pytest.approx(row["mean"], abs=6e-5)
    shown = page["rankings"][key_of(page["axes"], {**place, "source": ""}, RANKING_KEYS)]["rows"]
    assert [row["name"] for row in shown] == ranked.sort_values("rank")["attack"].tolist()
    assert "".join(report.answer).startswith(ranked.sort_values("rank")["attack"].iloc[0])
