import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student_t

from src.analysis.diagnostics import pair_similarity


def pairs_of(job, eps=8, protocol="joint", source="a", targets=("a", "b")):
    return pair_similarity(*job, source, list(targets), eps, protocol)


@pytest.fixture
def make_job(make_table):
    """Make a job of source `a` evaluated on `a` and `b`, with each image's cosine to `b`."""

    def make(clean_a, clean_b, fooled_b, cosine, **labels):
        n = len(clean_a)
        predictions = {("a", 0): clean_a, ("b", 0): clean_b, ("a", 8): [1] * n}
        predictions |= {("b", 4): [0] * n, ("b", 8): fooled_b}
        like = pd.DataFrame({"index": np.tile(np.arange(n), 2), "target": np.repeat(["a", "b"], n)})
        like["cosine"] = [*[1.0] * n, *cosine]
        return make_table(predictions, **labels), like.sample(frac=1, random_state=0)

    return make


# Both models are correct on images 0, 1, 2 and 5; the attack fools `b` on 0 and 5; the gradient of
# image 5 is zero.
CASE = (
    [0, 0, 0, 0, 2, 0],
    [0, 0, 0, 2, 2, 0],
    [1, 0, 0, 0, 0, 1],
    [0.3, 0.1, 0.05, 0.9, 0.9, np.nan],
)


def test_a_pair_is_described_on_its_counted_images(make_job):
    job = make_job(*CASE)
    white, row = (one for _, one in pairs_of(job).iterrows())
    assert row["target"] == "b" and row["n"] == 4 and row["relation"] == "transfer"
    known = np.array([0.3, 0.1, 0.05])
    assert row["cosine"] == pytest.approx(known.mean())
    assert row["success_rate"] == 0.5
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    assert (row["success_rate_low"], row["success_rate_high"]) == pytest.approx(interval)
    # Correct on 5 and 4 of 6 images, and on 4 of them both.
    expected = (5 * 4 + 1 * 2) / 36
    assert row["kappa"] == pytest.approx((5 / 6 - expected) / (1 - expected))
    assert white["target"] == "a" and white["relation"] == "white box" and white["n"] == 5
    assert (white["cosine"], white["kappa"], white["success_rate"]) == (1, 1, 1)


def test_images_without_a_cosine_are_not_counted(make_job):
    predictions, similarity = make_job(*CASE)
    row = pairs_of((predictions, similarity[similarity["index"] > 0])).iloc[1]
    assert (row["n"], row["success_rate"]) == (3, pytest.approx(1 / 3))
    assert row["cosine"] == pytest.approx(np.mean([0.1, 0.05]))
    assert row["kappa"] == pairs_of((predictions, similarity)).iloc[1]["kappa"]


def test_ten_images_give_students_interval_and_fewer_none(make_job):
    nan, correct = np.nan, [0] * 12
    cosine = np.array([*np.linspace(-0.2, 0.5, 10), nan, nan])
    row = pairs_of(make_job(correct, correct, correct, cosine)).iloc[1]
    known = cosine[:10]
    expected = student_t.interval(0.95, 9, known.mean(), known.std(ddof=1) / np.sqrt(10))
    assert (row["cosine_low"], row["cosine_high"]) == pytest.approx(expected)
    cosine[9] = nan
    row = pairs_of(make_job(correct, correct, correct, cosine)).iloc[1]
    assert row["cosine"] == pytest.approx(cosine[:9].mean()) and np.isnan(row["cosine_low"])
    row = pairs_of(make_job([0, 0], [1, 1], [1, 0], [0.4, 0.2])).iloc[1]
    assert row["n"] == 0
    numbers = ["cosine", "cosine_low", "success_rate", "success_rate_low"]
    assert row[numbers].isna().all()


def test_error_consistency_of_extremes(make_job):
    for first, second, kappa in (
        ([0, 1, 0, 2], [0, 1, 0, 2], 1),
        ([0, 1, 0, 2], [1, 0, 1, 0], -1),
        ([0, 1, 2, 3, 0], [0, 1, 3, 3, 1], 6 / 11),
        ([0] * 8 + [1] * 4, [0] * 8 + [1] * 3 + [0], 0.8),
        ([0, 0], [0, 0], np.nan),  # they agree by necessity
        ([1, 2], [1, 2], np.nan),
        ([0, 0], [1, 1], 0),
    ):
        n = len(first)
        row = pairs_of(make_job(first, second, [0] * n, [0.1] * n), targets=["b"]).iloc[0]
        assert row["kappa"] == pytest.approx(kappa, nan_ok=True)
        assert not row["kappa_high"] > 1 and not row["kappa_low"] < -1
