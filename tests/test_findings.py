"""Results in the documentation against the stored tables."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from findings.__main__ import (
    DOCS,
    PAIRS,
    RESULTS,
    adaptive_rows,
    behind_small,
    matched_tables,
    on_photographs,
    pages,
    sweep_of,
)
from findings.board import Boards
from findings.collect import collect
from findings.costs import TABLE
from findings.defences import through_defences
from findings.networks import Networks
from src.artifacts.jobs import find_jobs
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
    written = [DOCS / "findings.md", DOCS / "benchmarks.md", *DOCS.glob("findings/*.md")]
    texts = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in written}
    assert texts == pages()


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
    at_100 = matched_tables().of("100")
    assert at_100.index[0] == "di"
    behind_di = int((~at_100["undecided"]).sum())
    alike = matched_tables().correlation(on_photographs()[["mean"]])
    unlike = matched_tables().correlation(matched_tables().of("own")[["mean"]], on_photographs())
    numbers = [percent(at_100["mean"].iloc[0]), behind_di, len(at_100) - 1, int(alike["n"])]
    for found in (alike, unlike):
        numbers += [f"{abs(found[name]):.2f}" for name in ("rho", "rho_low", "rho_high")]
    assert tells(README, *numbers)
    robust, rows = behind_small("mi").robust, of_adaptive()
    shares = [robust["jpeg"], robust["none"], rows.loc[("jpeg", "resnet_small"), "others_adaptive"]]
    shares.append(rows.loc[("none", "resnet_small"), "others_pgd"])
    assert tells(README, *map(percent, shares))
    photographs = sweep_of("photographs")
    fgsm, bim = (photographs.rates(name, *PAIRS[0], 8) for name in ("fgsm", "bim"))
    assert tells(README, *(int(n) for n in (fgsm["success"], fgsm["denominator"], bim["success"])))


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
def test_a_report_of_the_stored_tables_leaves_out_what_they_lack(run_in, tmp_path):
    words = ["folder=docs/results/photographs", f"out={tmp_path}"]
    assert run_in(DOCS.parent, *words, module="src.report.__main__") == 0
    text = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    best = sweep_of("photographs").summary.rankings.iloc[0]
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


def test_the_formula_of_time_and_memory_is_what_the_benchmark_fitted():
    stored = json.loads((RESULTS / "benchmarks" / "growth.json").read_text(encoding="utf-8"))
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    formulas = stored["results"][0]["formulas"]
    assert tells(page, *"{:.1f} {:.2g} {:.2g}".format(*formulas["seconds"]).split())
    assert tells(page, *"{:,.0f} {:.0f} {:.2g}".format(*formulas["megabytes"]).split())


def speeds(name: str) -> pd.DataFrame:
    stored = json.loads((RESULTS / "benchmarks" / f"speeds-{name}.json").read_text("utf-8"))
    return pd.DataFrame(stored["results"][0]["speeds"]).set_index("model")


def test_the_hours_of_the_daily_command_are_by_the_speeds_that_were_measured():
    images, budgets, steps = 10_000, 6, 10
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for name in ("daily", "resized"):
        found = images / 3600 / speeds(name)  # hours of a pass, by model
        passes = 1 + len(found) * budgets  # of predictions: the clean images, and every source's
        hours = {
            (gradients, kind): gradients * found[kind].sum() + passes * found["predictions"].sum()
            for gradients in (1, 1 + (steps - 1) * budgets)
            for kind in ("gradients", "gradients_bf16")
        }
        assert tells(page, *(f"{hours[n, 'gradients']:.2g}" for n in (1, 55))), name
        assert name != "daily" or tells(README, *(f"{hours[n, 'gradients']:.2g}" for n in (1, 55)))
    assert tells(page, f"{hours[55, 'gradients_bf16']:.2g}")


def test_what_imagenet_takes_is_by_the_speeds_that_were_measured():
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    found = speeds("resnet101").loc["timm"]
    for kind in ("gradients", "gradients_bf16"):
        days = (711e6 / found[kind] + 100e6 / found["predictions"]) / 86_400
        speed = (f"{found[kind]:.1f}", f"{found['predictions']:.0f}")
        assert tells(page, *speed, f"{days / 365.25:.1f}", f"{days / 50:.0f}")


def test_the_robust_network_is_as_accurate_as_the_page_says():
    counts = json.loads((RESULTS / "robust.json").read_text(encoding="utf-8"))
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    for name in ("clean", "cross_entropy", "margin", "dlr"):
        assert tells(page, counts[name])


def test_attacks_are_brought_to_the_cost_that_their_rows_state():
    table = pd.read_parquet(TABLE).query("setting != 'own'")
    assert (table["gradients"] <= table["setting"].astype(int)).all()
    assert TABLE.stat().st_size < 1e6
