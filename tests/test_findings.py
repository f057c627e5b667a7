"""Results in the documentation against the stored tables."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from findings.__main__ import (
    DOCS,
    RESULTS,
    adaptive_rows,
    behind_small,
    matched_tables,
    on_photographs,
    pages,
    sweep_of,
    undefended_small,
)
from findings.board import Boards
from findings.collect import collect
from findings.costs import TABLE
from findings.defences import through_defences, undefended
from findings.networks import Networks
from src.artifacts.jobs import find_jobs
from src.report.published import load_published
from tests.conftest import block_of

README = (DOCS.parent / "README.md").read_text(encoding="utf-8")


def tells(text: str, *numbers: float | str) -> bool:
    """Tell whether a paragraph, an item or a row holds some numbers, in whatever words."""
    parts = re.split(r"\n\s*\n|\n(?=[-|])", text)
    found = (re.findall(r"\d+(?:[.,]\d+)*", part) for part in parts)
    return any({*map(str, numbers)} <= {*part} for part in found)


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


@pytest.mark.slow
def test_the_pages_are_what_the_tables_say():
    for path, text in pages().items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, path


def test_the_first_run_in_the_readme_is_what_the_tables_say():
    demo = sweep_of("demo")
    printed = {" ".join(line.split()) for line in README.splitlines()}
    heading, columns, _, *rows = demo.matrix("mi").splitlines()
    for line in (heading, columns, *rows[:4]):
        assert " ".join(line.split()) in printed
    seconds = json.loads((RESULTS / "demo-times.json").read_text(encoding="utf-8"))["seconds"]
    assert tells(
        README, *(f"{seconds[part]:.0f}" for part in ("whole", "first_result", "second_run"))
    )


@pytest.mark.slow
def test_the_findings_in_the_readme_are_what_the_tables_say():
    at_100, at_10 = (Boards("small").equal_cost(cost).set_index("attack") for cost in (100, 10))
    first, second = at_100.index[0], at_10.index[0]
    assert (first, second) == ("sia", "gi") and at_100["copies"]["sia"] < at_100["steps"]["di"]
    numbers = [100, len(at_100), 4, *map(percent, at_100["mean"][["sia", "di"]])]
    assert tells(README, *numbers, int(at_100["images"].iloc[0]))
    alike = matched_tables().correlation(on_photographs())
    unlike = matched_tables().correlation(matched_tables().of("own"), on_photographs())
    numbers = [int(alike["n"])]
    for found in (alike, unlike):
        numbers += [f"{abs(found[name]):.2f}" for name in ("rho", "rho_low", "rho_high")]
    assert tells(README, *numbers)
    again = recount().loc["rank_16"]
    assert tells(README, *(f"{abs(again[name]):.2f}" for name in ("value", "low", "high")))
    robust, rows = behind_small("mi").robust, of_adaptive()
    shares = [robust["jpeg"], robust["none"], rows.loc[("jpeg", "resnet_small"), "others_adaptive"]]
    shares.append(undefended_small("resnet_small")["correct"].min())
    assert tells(README, *map(percent, shares))
    networks = Networks(RESULTS / "networks.card")
    pair = "mobilenetv2", "efficientnet_lite2", 8
    step, other = networks.step(*pair), networks.control("shuffled", *pair)
    counts = (step["first_success"], step["n"], step["second_success"], other)
    means = networks.means.loc[8]["mean"]
    assert tells(README, *map(int, counts), percent(means["mi"]), percent(means["fgsm"]))


def recount() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "recount.csv", comment="#", index_col="number")


def test_every_published_attack_of_ours_has_the_mean_of_the_seven_undefended_targets():
    tables, cells = load_published()
    ours = pd.read_csv(RESULTS / "published-attacks.csv", index_col="attack")["success"]
    seven = ["VGG-16", "Mobilenet_v2", "Inception_v3", "ViT", "PiT", "Visformer", "Swin"]
    cells = cells.query("table == 'transferattack' and goal == 'untargeted'")
    cells = cells[(cells["source"] == "ResNet-50") & cells["target"].isin(seven)]
    means = cells.groupby("attack")["success_percent"].mean()
    names = tables["transferattack"].attacks
    assert {*names} <= {*ours.index} and len(names) == 31
    for name, theirs in names.items():
        assert ours[name] == pytest.approx(means[theirs], abs=0.051), name


def test_the_correlation_with_published_success_is_that_of_the_printed_ranks():
    sources = Networks(RESULTS / "networks.card").sources
    ranking = Boards("photographs").board("own", sources).rows.set_index("attack")
    published = pd.read_csv(RESULTS / "published-attacks.csv", index_col="attack")
    both = published[["success"]].join(ranking["rank"], how="inner")
    places = both["success"].rank(ascending=False)
    expected = np.corrcoef(places, both["rank"].rank())[0, 1]
    assert matched_tables().correlation(ranking)["rho"] == pytest.approx(expected)


def of_adaptive() -> pd.DataFrame:
    return adaptive_rows(find_jobs([RESULTS / "defences-adaptive"])).set_index(
        ["defence", "source"]
    )


@pytest.mark.slow
def test_the_source_itself_falls_behind_each_defence_of_images_as_the_pages_conclude():
    rows = of_adaptive().reset_index()
    fixed = rows[~rows["defence"].isin(["none", "smoothing"])]
    assert set(fixed["defence"]) == {"jpeg", "bit_depth", "median", "random_resize_pad"}
    assert (fixed["itself_adaptive_high"] < fixed["itself_mi_low"]).all()
    assert (fixed["others_adaptive_high"] < fixed["others_mi"]).all()
    assert (rows.loc[rows["defence"] == "jpeg", "itself_adaptive"] <= 0.12).all()


@pytest.mark.slow
def test_a_row_of_adaptive_attacks_is_what_its_tables_count():
    """The number of the source's own images right behind JPEG, once more from the predictions."""
    jobs = find_jobs([RESULTS / "defences-jpeg"])
    plain, job = (
        next(one for one in jobs if (one.record.attack, one.record.source) == name)
        for name in (("mi", "resnet_small"), ("pgd", "resnet_small@jpeg"))
    )
    correct = {}
    for attack, one in (("mi", plain), ("pgd", job)):
        table = one.defended.assign(right=lambda rows: rows["predicted"] == rows["label"])
        for eps in (0, 4):
            rows = table.query("target == 'resnet_small' and defence == 'jpeg' and eps_255 == @eps")
            correct[attack, eps] = rows.set_index("index")["right"]
    rows = plain.predictions.query("target == 'resnet_small' and eps_255 == 0").set_index("index")
    counted = (rows["predicted"] == rows["label"]) & correct["mi", 0]
    row = of_adaptive().loc[("jpeg", "resnet_small")]
    assert row["itself_images"] == counted.sum()
    assert row["itself_mi"] == correct["mi", 4][counted].mean()
    assert row["itself_adaptive"] == correct["pgd", 4][counted].mean()
    assert row["gradients"] == 100


@pytest.mark.slow
def test_a_share_of_attacks_through_defences_is_what_its_tables_count():
    """The share right behind JPEG under MI through it, once more from the predictions."""
    jobs = find_jobs([RESULTS / "networks-defences.card"])
    targets = jobs[0].record.targets
    row = through_defences(jobs, targets).set_index("defence").loc["jpeg"]
    rights = {}
    for job in jobs:
        source = job.record.source_model
        if source.defence in ("none", "jpeg"):
            table = job.defended.assign(right=lambda rows: rows["predicted"] == rows["label"])
            right = table.pivot_table("right", ["target", "defence", "index"], "eps_255")
            own = right.loc[source.model, source.defence][0]
            rights[job.record.attack, source.defence] = right, own
    shares = []
    for target in (name for name in targets if name != "mobilenetv2"):
        behind = [(right.loc[target, "jpeg"], own) for right, own in rights.values()]
        counted = np.all([right[0] * own > 0 for right, own in behind], axis=0)
        shares.append(rights["mi", "jpeg"][0].loc[target, "jpeg"][8][counted].mean())
    assert row["others_mi_through"] == pytest.approx(np.mean(shares))
    assert row["least"] <= row["others_mi_through"]


@pytest.mark.slow
def test_an_attack_through_a_defence_is_compared_on_undefended_networks():
    """The share right without a defence under DI through random resizing, from the predictions."""
    jobs = find_jobs([RESULTS / "networks-defences.card"])
    targets = jobs[0].record.targets
    rows = undefended(jobs, targets)
    rights = {}
    for job in jobs:
        if job.record.attack == "di":
            its = job.predictions.assign(right=lambda rows: rows["predicted"] == rows["label"])
            defence = job.record.source_model.defence
            rights[defence] = its.pivot_table("right", ["target", "index"], "eps_255")
    clean = rights["none"][0].unstack("target") > 0
    counted = clean.mul(clean["mobilenetv2"], axis=0)
    for defence in ("none", "random_resize_pad"):
        left = rights[defence][8].unstack("target")
        others = [name for name in targets if name != "mobilenetv2"]
        share = np.mean([left.loc[counted[name], name].mean() for name in others])
        row = rows[(rows["attack"] == "di") & (rows["defence"] == defence)]
        assert row["correct"].item() == pytest.approx(share)
    assert rows["defence"][0] == "random_resize_pad" and rows["attack"][0] == "di"


@pytest.mark.slow
def test_a_report_of_the_stored_tables_leaves_out_what_they_lack(run_in, tmp_path):
    words = ["folder=docs/results/photographs", f"out={tmp_path}"]
    assert run_in(DOCS.parent, *words, module="src.report.__main__") == 0
    text = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    best = sweep_of("photographs").results.rankings.iloc[0]
    assert f"<b>{best['attack']} transfers best</b>" in text
    assert f"the {best['images']} of 250 images" in text
    page = block_of(tmp_path / "report.html")
    assert "212 / 250 = 84.80%" in page and "most probable" not in page


def test_stored_tables_replace_those_of_earlier_sweeps(tmp_path):
    for name in ("targeted", "demo"):
        collect([RESULTS / name], tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {
        one.name for one in (RESULTS / "demo").iterdir()
    }


def test_attacks_are_brought_to_the_cost_that_their_rows_state():
    table = pd.read_parquet(TABLE).query("setting != 'own'")
    assert (table["gradients"] <= table["setting"].astype(int)).all()
    assert TABLE.stat().st_size < 1e6
