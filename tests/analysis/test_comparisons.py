from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from src.analysis.comparisons import asymmetry, image_outcomes, paired_tests
from src.analysis.intervals import paired_interval

# Label 0, eight images; a is wrong on the clean image 7, b on 6.
CLEAN = {("a", 0): [0] * 7 + [1], ("b", 0): [0] * 6 + [1, 0]}
FGSM = CLEAN | {("b", 4): [0] * 8, ("b", 8): [1, 1, 0, 0, 0, 0, 1, 1]}
BIM = CLEAN | {("b", 4): [0] * 8, ("b", 8): [0, 2, 2, 2, 2, 0, 0, 1]}


def stacked(jobs, eps=8, protocol="joint"):
    """Put the outcomes of jobs below each other."""
    parts = []
    for attack, source, table in jobs:
        evaluated = list(table.loc[table["eps_255"] > 0, "target"].unique())
        rows = image_outcomes(table, source, evaluated, eps, protocol)
        parts.append(rows.assign(attack=attack, source=source))
    return pd.concat(parts, ignore_index=True)


def difference(first_only, second_only, n):
    """Return the columns of a single test of four images that differ, three to one."""
    low, high = map(float, paired_interval(first_only, second_only, n))
    values = {"difference": (first_only - second_only) / n, "difference_low": low}
    p = 0.625  # 2 (C(4,3) + C(4,4)) / 16
    values |= {"difference_high": high, "p": p, "p_holm": p}
    return {name: pytest.approx(value) for name, value in values.items()}


def holm(p):
    """Step down by hand: the k-th smallest p times the tests left, never falling."""
    corrected, last = np.empty(len(p)), 0.0
    for place, which in enumerate(np.argsort(p, kind="stable")):
        last = max(last, min(1.0, (len(p) - place) * p[which]))
        corrected[which] = last
    return corrected


@pytest.fixture(scope="module")
def sweep(make_table):
    """Two attacks from three sources evaluated on all three, predictions at random."""
    generator = np.random.default_rng(3)
    clean = {(model, 0): generator.integers(0, 5, 150) // 4 for model in "abc"}
    jobs = []
    for attack, strength in (("fgsm", 2), ("bim", 4)):
        for source in "abc":
            predictions = {
                (m, e): generator.integers(0, 2 + strength, 150) for m in "abc" for e in (2, 8)
            }
            table = make_table(clean | predictions).sample(frac=1, random_state=1)
            jobs.append((attack, source, table))
    return jobs


@pytest.fixture(scope="module")
def outcomes(sweep):
    """The outcomes of that sweep's images."""
    return stacked(sweep)


def test_two_attacks_are_compared_on_the_images_that_they_share(make_table):
    jobs = [(name, "a", make_table(t)) for name, t in (("fgsm", FGSM), ("bim", BIM))]
    (row,) = paired_tests(stacked(jobs)).to_dict("records")
    names = {"kind": "attack", "target": "b", "common": "a", "first": "fgsm", "second": "bim"}
    # Images 0 to 5 are counted; fgsm flips 0 and 1, bim 1 to 4.
    counts = {"n": 6, "first_success": 2, "second_success": 4, "first_only": 1, "second_only": 3}
    assert row == {**names, **counts, **difference(1, 3, 6)}


def test_every_pair_of_a_sweep_equals_a_count_image_by_image(sweep, outcomes):
    table = paired_tests(outcomes).set_index(["kind", "target", "common", "first", "second"])
    keys = ["target", "eps_255", "index"]
    predictions = {job[:2]: job[2].set_index(keys)["predicted"].to_dict() for job in sweep}
    expected = {}
    for (one, first), (other, second) in combinations(predictions.items(), 2):
        if (one[0] == other[0]) == (one[1] == other[1]):
            continue
        kind, shared, differing = ("attack", 1, 0) if one[1] == other[1] else ("source", 0, 1)
        for target in "abc":
            judges = {one[1], other[1], target}
            flips = []
            for image in range(150):
                if all(first[model, 0.0, image] == 0 for model in judges):
                    flips.append([t[target, 8.0, image] != 0 for t in (first, second)])
            f, s = np.array(flips).T
            counts = [len(f), f.sum(), s.sum(), (f & ~s).sum(), (s & ~f).sum()]
            expected[kind, target, one[shared], one[differing], other[differing]] = counts
    assert len(table) == len(expected) == 9 + 18
    for row in table.itertuples():
        counts = [row.n, row.first_success, row.second_success, row.first_only, row.second_only]
        assert counts == expected[row.Index] and row.n > 50
        cells = [[0, row.first_only], [row.second_only, 0]]
        assert row.p == pytest.approx(min(1, mcnemar(cells, exact=True).pvalue))
        assert row.difference == pytest.approx((counts[1] - counts[2]) / counts[0])
        assert row.difference_low <= row.difference <= row.difference_high
    for _, kind in table.groupby(level="kind"):
        np.testing.assert_allclose(kind["p_holm"], holm(kind["p"].to_numpy()))
    assert (table["p_holm"] > table["p"]).any()


def test_pairs_come_in_the_order_of_the_jobs(sweep):
    table = paired_tests(stacked([(*job[:2], job[2].sort_values("target")) for job in sweep[:4]]))
    names = table[["kind", "common", "first", "second", "target"]].to_numpy().tolist()
    attacks = [["attack", "a", "fgsm", "bim", target] for target in "abc"]
    pairs = ("ab", "ac", "bc")
    assert names == attacks + [["source", "fgsm", *pair, t] for pair in pairs for t in "abc"]


def test_images_and_targets_of_one_job_alone_are_left_out(make_table):
    more = {("a", 8): [1] * 8, **FGSM}
    first = make_table(more).query("index != 0")
    second = make_table(BIM).query("index != 2")
    jobs = [("fgsm", "a", first), ("bim", "a", second)]
    (row,) = paired_tests(stacked(jobs)).to_dict("records")
    assert row["target"] == "b"
    counts = [row[name] for name in ("n", "first_success", "second_success")]
    assert counts == [4, 1, 3]  # images 1, 3, 4, 5


def test_targeted_success_is_reaching_the_class(make_table):
    labels = [1, 2, 2, 2, 1, 1, 1, 1]
    tables = [make_table(t, target_label=labels) for t in (FGSM, BIM)]
    jobs = [(name, "a", t) for name, t in zip(("llc", "illc"), tables, strict=True)]
    (row,) = paired_tests(stacked(jobs)).to_dict("records")
    names = ("n", "first_success", "second_success", "first_only", "second_only")
    assert [row[name] for name in names] == [6, 1, 3, 1, 3]


def test_only_like_target_labels_are_compared(make_table):
    labels, others = [1] * 8, [2] + [1] * 7
    plain, targeted, elsewhere = (make_table(FGSM, target_label=t) for t in (None, labels, others))
    for one, other in ((plain, targeted), (targeted, plain), (targeted, elsewhere)):
        assert paired_tests(stacked([("x", "a", one), ("y", "a", other)])).empty
    alike = paired_tests(stacked([("x", "a", targeted), ("y", "a", targeted)]))
    assert list(alike["kind"]) == ["attack"]
    # The least likely class is the source's own choice, so two sources may differ.
    sources = paired_tests(stacked([("x", "a", targeted), ("x", "b", elsewhere)]))
    assert sources[["first_success", "second_success"]].to_numpy().tolist() == [[2, 1]]
    assert paired_tests(stacked([("x", "a", targeted), ("x", "b", plain)])).empty
    both = {("a", 8): [1] * 8, ("b", 8): [1] * 8}
    there, back = make_table(CLEAN | both, target_label=labels), make_table(CLEAN | both)
    assert asymmetry(stacked([("x", "a", there), ("x", "b", back)])).empty
    back = make_table(CLEAN | both, target_label=others)
    row = asymmetry(stacked([("x", "a", there), ("x", "b", back)])).iloc[0]
    assert (row["first_success"], row["second_success"], row["n"]) == (6, 5, 6)


def test_without_images_there_is_no_test_and_none_is_corrected_for(make_table):
    wrong = FGSM | {("c", 0): [1] * 8, ("c", 8): [1] * 8}
    jobs = [(name, "a", make_table(wrong | t)) for name, t in (("x", FGSM), ("y", BIM))]
    table = paired_tests(stacked(jobs)).set_index("target")
    assert table.loc["c", "n"] == 0
    assert table.loc["c", ["difference", "difference_low", "p", "p_holm"]].isna().all()
    assert table.loc["b", "p_holm"] == table.loc["b", "p"]


def test_asymmetry_is_forward_minus_backward_on_the_images_of_both(make_table):
    # Image 7 is not counted from a, 6 not from b.
    forward = make_table(CLEAN | {("a", 8): [1] * 8, ("b", 8): [1, 1, 1, 1, 0, 0, 1, 1]})
    backward = make_table(CLEAN | {("a", 8): [1, 0, 0, 0, 2, 0, 1, 1], ("b", 8): [1] * 8})
    ensemble = make_table(CLEAN | {("a+b", 0): [0] * 8, ("a", 8): [1] * 8, ("b", 8): [1] * 8})
    jobs = [
        ("fgsm", "a", forward),
        ("fgsm", "a+b", ensemble),
        ("bim", "b", backward),  # another attack, so no pair of it
        ("fgsm", "b", backward.sample(frac=1, random_state=4)),
    ]
    (row,) = asymmetry(stacked(jobs)).to_dict("records")
    names = {"attack": "fgsm", "first": "a", "second": "b"}
    counts = {"n": 6, "first_success": 4, "second_success": 2, "first_only": 3, "second_only": 1}
    assert row == {**names, **counts, **difference(3, 1, 6)}


def test_asymmetry_turns_round_with_the_jobs_and_is_corrected_over_all_rows(sweep, outcomes):
    table, turned = asymmetry(outcomes), asymmetry(stacked(sweep[::-1]))
    assert len(table) == 6 and (table["difference"] != 0).any()
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))
    by_pair = turned.set_index(["attack", "second", "first"])
    for row in table.itertuples():
        other = by_pair.loc[(row.attack, row.first, row.second)]
        assert (row.first_success, row.second_only) == (
            other["second_success"],
            other["first_only"],
        )
        assert row.difference == -other["difference"] and row.p == other["p"]


def test_a_single_job_gives_empty_tables_with_all_columns(sweep, outcomes):
    for compare in (paired_tests, asymmetry):
        alone, whole = compare(stacked(sweep[:1])), compare(outcomes)
        assert alone.empty and list(alone.columns) == list(whole.columns)
        assert list(compare(outcomes.iloc[:0]).columns) == list(whole.columns)


def test_categories_and_the_order_of_rows_do_not_count(outcomes):
    whole = outcomes[outcomes["source"] != "c"]
    names = whole.astype(dict.fromkeys(["attack", "source", "target"], "category"))
    pd.testing.assert_frame_equal(paired_tests(names), paired_tests(whole))
    key = ["kind", "target", "common", "first", "second"]
    mixed = paired_tests(whole.groupby(["attack", "source"], sort=False).sample(frac=1))
    expected = paired_tests(whole).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(mixed.sort_values(key, ignore_index=True), expected)


def test_jobs_that_do_not_fit_are_refused(make_table):
    first = ("fgsm", "a", make_table(FGSM))
    with pytest.raises(ValueError, match="no predictions at eps_255 = 3; the budgets are 4, 8"):
        stacked([first], 3)
    other = ("bim", "a", make_table(BIM, label=3))
    for compare in (paired_tests, asymmetry):
        with pytest.raises(ValueError, match="image 0 has different labels in two jobs"):
            compare(stacked([first, other]))
