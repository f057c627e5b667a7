"""Rates and their matrix against plain loops, counts by hand and a public study."""

from itertools import product
from math import nan

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import CLEAN, rates, transfer_matrix
from src.analysis.outcomes import PROTOCOLS
from tests.analysis.conftest import make_table

KEY = ["target", "defence", "eps_255", "index"]
NEEDS = {
    **{"all": [], "source_correct": ["source"], "target_correct": ["target"]},
    **{"joint": ["source", "target"], "common": ["source", "target", "behind"]},
}
IMAGES = 90


def made_up(source, targeted):
    """Return random predictions with abstentions, random defences and images not attacked.

    `b` was not evaluated on three images, `c` not attacked on one, and the source not at 4/255.
    """
    random = np.random.default_rng(IMAGES)
    pairs = dict.fromkeys([source, *product("abc", ["none", "jpeg"])])
    places = [(*pair, *its) for pair in pairs for its in product((0.0, 4.0, 8.0), range(IMAGES))]
    table = pd.DataFrame(places, columns=KEY)
    size, defended = len(table), table["defence"] == "jpeg"
    table["label"] = table["index"] % 3
    wrong = random.random(size) < 0.2 + 0.05 * table["eps_255"]
    predicted = (table["label"] + wrong * random.integers(1, 3, size)) % 3
    table["predicted"] = predicted.mask(defended & (random.random(size) < 0.1), -1)
    table["confidence"], table["true_confidence"] = random.random((2, size))
    table["draws"] = 5
    table["draws_correct"] = pd.Series(random.integers(0, 6, size), dtype="Int64").where(defended)
    if targeted:
        goals = pd.Series(random.integers(-1, 3, IMAGES))[table["index"]].reset_index(drop=True)
        table["target_label"] = goals.where((goals >= 0) & (table["eps_255"] > 0)).astype("Int64")
    target, image = table["target"], table["index"]
    table.loc[(target == "c") & (table["eps_255"] == 8) & (image == 1), "confidence"] = nan
    lacking = (target == "b") & (image < 3) | (target == "c") & (image == 5) & (
        table["eps_255"] > 0
    )
    lacking |= (target == source[0]) & (table["defence"] == source[1]) & (table["eps_255"] == 4)
    table["target"] = pd.Categorical(target, categories=["unused", *target.unique()])
    return table[~lacking].sample(frac=1, random_state=0)


def looped(rows, goals, source, target, eps, protocol):
    """Return the numbers of a pair of (model, defence) by a loop over images."""
    denominator, counts = [], dict.fromkeys(["abstained", "clean", "seen", "of_source", "both"], 0)
    for image in range(IMAGES):
        clean, row = (rows.get((*target, its, image)) for its in (0.0, eps))
        first, by_source = (rows.get((*source, its, image)) for its in (0.0, eps))
        behind = rows.get((target[0], {"none": "jpeg"}.get(target[1], "none"), 0.0, image))
        if clean is None:
            continue
        label, goal = clean["label"], goals[image]
        right = {
            name: its["predicted"] == label
            for name, its in {"source": first, "target": clean, "behind": behind}.items()
        }
        counts["clean"] += right["target"]
        counts["seen"] += clean["predicted"] != -1

        def fools(its, label=label, goal=goal):
            its = -1 if its is None else its["predicted"]
            return its != -1 and (its != label if goal is None else its == goal)

        if goal in (-1, label) or row is None:
            continue
        if right["source"] and right["target"] and fools(by_source) and row["predicted"] != -1:
            counts["of_source"] += 1
            counts["both"] += fools(row)
        if all(right[name] for name in NEEDS[protocol]):
            counts["abstained"] += row["predicted"] == -1
            denominator += [row | {"fooled": fools(row)}] * (row["predicted"] != -1)
    return counts, pd.DataFrame(denominator)


def check_share(row, name, k, n):
    """Check a share with its interval; NaN where it has no images."""
    ends = binomtest(k, n).proportion_ci(method="wilson") if n else (nan, nan)
    found = row[[name, f"{name}_low", f"{name}_high"]].tolist()
    assert found == pytest.approx([k / n if n else nan, *ends], nan_ok=True)


@pytest.mark.parametrize(
    ("source", "targeted"),
    [(("a", "none"), False), (("a", "jpeg"), True), (("a+b", "none"), True)],
)
def test_every_quantity_is_that_of_plain_loops(source, targeted):
    table = made_up(source, targeted)
    rows = {tuple(row[name] for name in KEY): row for row in table.to_dict("records")}
    goals = dict.fromkeys(range(IMAGES))
    if targeted:
        attacked = table[table["eps_255"] > 0].set_index("index")["target_label"].fillna(-1)
        goals |= attacked.to_dict()
    name, order = "@".join(source).removesuffix("@none"), ["none", "jpeg"]
    found = [rates(table, name, ["c", "b"], its).assign(protocol=its) for its in PROTOCOLS]
    for its in found:
        places = its[["defence", "target", "eps_255"]].itertuples(index=False, name=None)
        assert list(places) == list(product(order, ["c", "b"], [0, 4, 8]))
    for _, row in pd.concat(found).iterrows():
        target, eps = (row["target"], row["defence"]), row["eps_255"]
        counts, its = looped(rows, goals, source, target, eps, row["protocol"])
        correct, k, n = its["predicted"] == its["label"], its["fooled"].sum(), len(its)
        numbers = [n, correct.sum(), k, counts["abstained"]]
        names = ["denominator", "still_correct", "success", "abstained"]
        assert row[names].tolist() == numbers and row["targeted"] == targeted
        check_share(row, "robust_accuracy", correct.sum(), n)
        check_share(row, "success_rate", k, n)
        assert row["clean_accuracy"] == pytest.approx(counts["clean"] / counts["seen"])
        own = target[0] in source[0].split("+")
        of_source, both = (0, 0) if own else (counts["of_source"], counts["both"])
        assert row[["conditional_images", "conditional_success"]].tolist() == [of_source, both]
        check_share(row, "conditional", *((both, of_source) if of_source >= 10 else (0, 0)))
        draws = (its["draws_correct"] / 5).astype(float).fillna(correct.astype(float))
        means = [
            its["confidence"].mean(skipna=False),
            its["true_confidence"].mean(),
            its.loc[its["fooled"], "confidence"].mean(skipna=False),
            draws.mean(),
        ]
        names = ["confidence", "true_confidence", "success_confidence", "draws_correct"]
        assert row[names].tolist() == pytest.approx(means, nan_ok=True)


# Label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3. At 8: a on 0; b on 0, 2, 3.
TWO = {
    **{("a", 0): [0, 0, 0, 1], ("a", 8): [0, 1, 1, 1]},
    **{("b", 0): [0, 0, 1, 0], ("b", 8): [0, 1, 0, 0]},
}


def rates_of_two(*sources, target_label=None):
    table = make_table(TWO, target_label=target_label)
    parts = [
        rates(table, source, ["a", "b"], protocol).assign(source=source, protocol=protocol)
        for source in sources
        for protocol in PROTOCOLS
    ]
    return pd.concat(parts, ignore_index=True).assign(attack="x", success_rate_sd=nan)


@pytest.mark.parametrize(
    ("sources", "target_label", "wanted"),
    [
        ("b", None, [(CLEAN, "a", 3, 4), (CLEAN, "b", 3, 4), ("b", "a", 1, 2), ("b", "b", 2, 3)]),
        ("a", None, [(CLEAN, "a", 3, 4), (CLEAN, "b", 3, 4), ("a", "a", 1, 3), ("a", "b", 1, 2)]),
        # Image 0 has its own label as target label; b classifies the clean image 2 as class 1.
        (
            "a",
            [0, 1, 1, 2],
            [(CLEAN, "a", 0, 3), (CLEAN, "b", 1, 3), ("a", "a", 2, 2), ("a", "b", 1, 1)],
        ),
    ],
)
def test_the_matrix_has_the_cells_worked_out_by_hand(sources, target_label, wanted):
    cells = transfer_matrix(rates_of_two(*sources, target_label=target_label), 8.0, "joint")
    names = ["source", "target", "k", "n"]
    assert list(cells[names].itertuples(index=False, name=None)) == wanted
    assert list(cells["eps_255"]) == [0, 0, 8, 8]
    for _, row in cells.iterrows():
        check_share(row, "rate", row["k"], row["n"])


def test_sources_that_aim_at_other_classes_share_no_clean_row():
    for other, there in (([2] * 4, False), ([1] * 4, True)):
        parts = [rates_of_two("a", target_label=[1] * 4), rates_of_two("b", target_label=other)]
        for order in (parts, parts[::-1]):
            sources = transfer_matrix(pd.concat(order), 8.0, "joint")["source"].tolist()
            assert sources.count(CLEAN) == 2 * there


@pytest.mark.parametrize(
    ("lacks", "arguments", "words"),
    [
        ("target == 'b' and eps_255 == 0", ["a", ["a", "b"]], "of target 'b' for image 0"),
        ("index < 0", ["a+c", ["b"], "joint"], r"joint.*'a\+c'"),
        ("target == 'a' and eps_255 == 0 and index == 0", ["a", ["b"], "source_correct"], "'a'"),
        ("index < 0", ["a", ["b"], "Joint"], "protocol Joint"),
        ("index < 0", ["a", ["b", "c"]], "target b, c"),
        ("index < 0", ["a", []], r"target \(none\)"),
        (None, ["a", ["b"]], "several rows for one image"),
    ],
)
def test_tables_that_lack_or_repeat_rows_are_refused(lacks, arguments, words):
    table = make_table(TWO)
    table = table.query(f"not ({lacks})") if lacks else pd.concat([table, table])
    with pytest.raises(ValueError, match=words):
        rates(table, *arguments)
