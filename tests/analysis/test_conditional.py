"""Conditional success against plain loops, and against the counts of a public study."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src import load_sweep
from src.analysis import rates
from tests.conftest import REPOSITORY

STUDY = REPOSITORY / "src" / "assets" / "transferlab.csv"
COUNTS = ["conditional_success", "conditional_images"]
SHARES = ["conditional", "conditional_low", "conditional_high"]


def rows_of(table):
    """Return the table's rows by model, defence, budget and image."""
    table = table.rename(columns={"index": "image"})
    rows = table.itertuples(index=False)
    return {(row.target, row.defence, row.eps_255, row.image): row for row in rows}


def looped(seen, source, target, eps):
    """Count k and n of a pair of (model, defence)."""
    k = n = 0
    for index in dict.fromkeys(image for *_, image in seen):
        rows = [
            seen.get((*pair, budget, index)) for pair in (source, target) for budget in (0, eps)
        ]
        if any(row is None or row.predicted == -1 for row in rows):
            continue
        of_source, by_source, of_target, by_target = (row.predicted for row in rows)
        label, goal = rows[0].label, rows[0].goal
        if of_source != label or of_target != label or goal == label:
            continue
        fools = [by != label if goal < 0 else by == goal for by in (by_source, by_target)]
        n += fools[0]
        k += all(fools)
    return k, n


def check(row, k, n):
    assert row[COUNTS].tolist() == [k, n]
    if n < 10:
        assert row[SHARES].isna().all()
    else:
        interval = binomtest(k, n).proportion_ci(method="wilson")
        assert row[SHARES].tolist() == pytest.approx([k / n, interval.low, interval.high])


def test_every_pair_of_the_demo_has_the_counts_of_plain_loops():
    results = load_sweep(REPOSITORY / "docs" / "results" / "demo")
    frame = results.predictions.assign(goal=-1)
    at_2 = []
    for (attack, source), table in frame.groupby(["attack", "source"], observed=True):
        targets, seen = list(table["target"].unique()), rows_of(table)
        found = rates(table, source, targets).set_index(["target", "eps_255"])
        others = rates(table, source, targets, "all").set_index(["target", "eps_255"])
        pd.testing.assert_frame_equal(found[COUNTS + SHARES], others[COUNTS + SHARES])
        for target, eps in found.index:
            row, pair = found.loc[(target, eps)], ((source, "none"), (target, "none"))
            check(row, *((0, 0) if target == source else looped(seen, *pair, eps)))
            at_2 += [(attack, row)] * (eps == 2 and target != source)
    means = {
        name: pd.DataFrame({"attack": attack, "its": row[name]} for attack, row in at_2)
        .groupby("attack")["its"]
        .mean()
        for name in ("success_rate", "conditional")
    }
    assert len(at_2) == 36
    assert means["success_rate"].idxmin() == means["conditional"].idxmax() == "fgsm"
    assert [round(its["fgsm"], 3) for its in means.values()] == [0.111, 0.198]


@pytest.mark.parametrize("source", ["a", "a@jpeg", "a+b"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("images", [12, 90])
def test_made_tables_have_the_counts_of_plain_loops(source, targeted, images):
    """Abstentions, target labels, an ensemble; a source that was evaluated at 8/255 alone."""
    random = np.random.default_rng(images)
    model, _, defence = source.partition("@")
    its = (model, defence or "none")
    pairs = dict.fromkeys([its, *product("abc", ["none", "jpeg"])])
    places = [
        (*pair, eps, index, index % 3)
        for pair, eps, index in product(pairs, (0.0, 4.0, 8.0), range(images))
        if (pair, eps) != (its, 4.0)
    ]
    table = pd.DataFrame(places, columns=["target", "defence", "eps_255", "index", "label"])
    wrong = random.random(len(table)) < 0.1 + 0.05 * table["eps_255"]
    abstains = (table["defence"] == "jpeg") & (random.random(len(table)) < 0.1)
    predicted = (table["label"] + wrong * random.integers(1, 3, len(table))) % 3
    goals = random.integers(0, 3, images)[table["index"]] if targeted else -1
    table = table.assign(predicted=predicted.mask(abstains, -1), goal=goals)
    label = table["goal"].where(targeted & (table["eps_255"] > 0))
    made = table.assign(confidence=0.5, true_confidence=0.5, target_label=label)
    counted, seen = 0, rows_of(table)
    for _, row in rates(made, source, ["b", "c"], "target_correct").iterrows():
        target, eps = (row["target"], row["defence"]), row["eps_255"]
        k, n = (0, 0) if target[0] in model.split("+") else looped(seen, its, target, eps)
        check(row, k, n)
        assert n == 0 or eps == 8
        counted += n
    assert counted > 0


def test_counts_of_a_public_study_are_of_this_definition():
    study = pd.read_csv(STUDY)
    for its in study.itertuples():
        both, source_only = its.fooled_given_source, its.source_fooled - its.fooled_given_source
        target_only = its.fooled - both
        neither = its.joint - both - source_only - target_only
        assert min(both, source_only, target_only, neither) >= 0
    its = study.query("eps_255 == 2 and attack == 'fgsm' and source == 'resnet18'").iloc[0]
    both, source_only, target_only, neither = 604, 3189 - 604, 644 - 604, 8905 - 3189 - 644 + 604
    assert its.tolist()[5:] == [644, 8905, 604, 3189]
    # Both fooled, one of them, neither; last, those that one of them gets wrong when clean.
    cells = [both, source_only, target_only, neither, 500, 595]
    kinds = {("resnet18", 0): [0, 0, 0, 0, 1, 0], ("vgg16", 0): [0, 0, 0, 0, 0, 1]}
    kinds |= {("resnet18", 2): [1, 1, 0, 0, 1, 1], ("vgg16", 2): [1, 0, 1, 0, 1, 1]}
    parts = [
        pd.DataFrame({"index": range(10000), "target": target, "eps_255": float(eps)}).assign(
            predicted=np.repeat(classes, cells), label=0, confidence=0.5, true_confidence=0.5
        )
        for (target, eps), classes in kinds.items()
    ]
    row = rates(pd.concat(parts, ignore_index=True), "resnet18", ["vgg16"]).iloc[1]
    assert row[["success", "denominator", *COUNTS]].tolist() == its.tolist()[5:]
    check(row, 604, 3189)
