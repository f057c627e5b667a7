import numpy as np
import pytest
from scipy.stats import binomtest

from findings.paired_tests import paired_tests
from src.analysis.outcomes import joined, outcomes_of

# Label 0, eight images; a is wrong on the clean image 7, b on 6.
CLEAN = {("a", 0): [0] * 7 + [1], ("b", 0): [0] * 6 + [1, 0]}
FGSM = CLEAN | {("b", 4): [0] * 8, ("b", 8): [1, 1, 0, 0, 0, 0, 1, 1]}
BIM = CLEAN | {("b", 4): [0] * 8, ("b", 8): [0, 2, 2, 2, 2, 0, 0, 1]}
COUNTS = ["n", "first_success", "second_success", "first_only", "second_only"]


def stacked(jobs, eps=8, protocol="joint"):
    """Put the outcomes of jobs together."""
    parts = []
    for attack, source, table in jobs:
        evaluated = list(table.loc[table["eps_255"] > 0, "target"].unique())
        parts.append(outcomes_of(table, attack, source, evaluated, protocol, eps))
    return joined(parts)


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


def test_every_comparison_of_a_sweep_equals_a_count_image_by_image(sweep):
    table = paired_tests(stacked(sweep)).set_index(["source", "target"])
    keys = ["target", "eps_255", "index"]
    predictions = {job[:2]: job[2].set_index(keys)["predicted"].to_dict() for job in sweep}
    assert len(table) == 9 and {*table["first"]} == {"fgsm"} and {*table["second"]} == {"bim"}
    for row in table.itertuples():
        source, target = row.Index
        flips = []
        for image in range(150):
            clean, *attacked = (predictions[name, source] for name in ("fgsm", "fgsm", "bim"))
            if all(clean[model, 0.0, image] == 0 for model in (source, target)):
                flips.append([its[target, 8.0, image] != 0 for its in attacked])
        f, s = np.array(flips).T
        counts = [len(f), f.sum(), s.sum(), (f & ~s).sum(), (s & ~f).sum()]
        assert [getattr(row, name) for name in COUNTS] == counts and row.n > 50
        assert row.p == pytest.approx(binomtest(counts[3], counts[3] + counts[4]).pvalue)
        assert row.difference == pytest.approx((counts[1] - counts[2]) / counts[0])
        assert row.difference_low <= row.difference <= row.difference_high
    holm, largest = dict.fromkeys(table.index), 0.0
    for place, (name, p) in enumerate(table["p"].sort_values().items()):
        holm[name] = largest = max(largest, min(1, p * (9 - place)))
    assert table["p_holm"].to_dict() == pytest.approx(holm)


def test_images_and_targets_of_one_job_alone_are_left_out(make_table):
    first = make_table({("a", 8): [1] * 8, **FGSM}).query("index != 0")
    second = make_table(BIM).query("index != 2")
    (row,) = paired_tests(stacked([("fgsm", "a", first), ("bim", "a", second)])).to_dict("records")
    assert row["target"] == "b"
    assert [row[name] for name in COUNTS[:3]] == [4, 1, 3]  # images 1, 3, 4, 5


def test_targeted_attacks_are_compared_with_one_another_alone(make_table):
    plain, targeted = (make_table(FGSM, target_label=labels) for labels in (None, [1] * 8))
    for one, other in ((plain, targeted), (targeted, plain)):
        assert paired_tests(stacked([("x", "a", one), ("y", "a", other)])).empty
    alike = paired_tests(stacked([("x", "a", targeted), ("y", "a", targeted)]))
    assert len(alike) == 1


def test_without_images_there_is_no_test_and_none_is_corrected_for(make_table, sweep):
    wrong = FGSM | {("c", 0): [1] * 8, ("c", 8): [1] * 8}
    jobs = [(name, "a", make_table(wrong | t)) for name, t in (("x", FGSM), ("y", BIM))]
    table = paired_tests(stacked(jobs)).set_index("target")
    assert table.loc["c", "n"] == 0
    assert table.loc["c", ["difference", "difference_low", "p", "p_holm"]].isna().all()
    assert table.loc["b", "p_holm"] == table.loc["b", "p"]
    alone = paired_tests(stacked(sweep[:1]))
    assert alone.empty and list(alone.columns) == list(table.reset_index()[alone.columns])
