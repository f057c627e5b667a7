import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest, linregress
from scipy.stats import t as student_t

from src.analysis.errors import error_agreement
from src.analysis.similarity import (
    SimilarJob,
    image_level,
    pair_similarity,
    transfer_regression,
)
from src.analysis.similarity_words import similarity_sentences


@pytest.fixture
def make_job(make_table):
    """Make a job of source `a` shown to `a` and `b`, with each image's cosine to `b`."""

    def make(clean_a, clean_b, fooled_b, cosine, attack="bim", **aims):
        answers = {
            ("a", 0): clean_a,
            ("b", 0): clean_b,
            ("a", 8): [1] * len(clean_a),
            ("b", 4): [0] * len(clean_a),
            ("b", 8): fooled_b,
        }
        n = len(clean_a)
        like = pd.DataFrame(
            {
                "index": np.tile(np.arange(n), 2),
                "target": np.repeat(["a", "b"], n),
                "cosine": [*[1.0] * n, *cosine],
                "sign_agreement": [*[1.0] * n, *(0.5 + np.array(cosine) / 10)],
            }
        )
        like = like.sample(frac=1, random_state=0)
        return SimilarJob(attack, "a", make_table(answers, **aims), like)

    return make


# Both models are right on images 0, 1, 2 and 5; the attack fools `b` on 0 and 5; the gradient of
# image 5 is zero.
CASE = (
    [0, 0, 0, 0, 2, 0],
    [0, 0, 0, 2, 2, 0],
    [1, 0, 0, 0, 0, 1],
    [0.3, 0.1, 0.05, 0.9, 0.9, np.nan],
)


def test_a_pair_is_described_on_its_counted_images(make_job):
    job = make_job(*CASE)
    white, row = (one for _, one in pair_similarity([job], 8).iterrows())
    assert (row["attack"], row["source"], row["target"], row["eps_255"]) == ("bim", "a", "b", 8)
    assert row["n"] == 4 and not row["white_box"]
    known = np.array([0.3, 0.1, 0.05])
    assert row["cosine"] == pytest.approx(known.mean())
    assert row["sign_agreement"] == pytest.approx((0.5 + known / 10).mean())
    assert row["success_rate"] == 0.5
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    assert (row["success_rate_low"], row["success_rate_high"]) == pytest.approx(interval)
    errors = error_agreement(job.predictions, "a", "b")
    assert (row["kappa"], row["same_wrong"]) == (errors.kappa, 1.0)
    assert white["target"] == "a" and white["white_box"] and white["n"] == 5
    assert (white["cosine"], white["kappa"], white["success_rate"]) == (1, 1, 1)


def test_the_protocol_and_the_budget_are_those_asked_for(make_job):
    job = make_job(*CASE)
    row = pair_similarity([job], 8, "target_correct").iloc[1]
    assert row["n"] == 4
    row = pair_similarity([job], 8, "all").iloc[1]
    assert row["n"] == 6 and row["success_rate"] == pytest.approx(2 / 6)
    assert row["cosine"] == pytest.approx(np.mean([0.3, 0.1, 0.05, 0.9, 0.9]))
    only = pair_similarity([job], 4)
    assert only["target"].tolist() == ["b"] and only["success_rate"].tolist() == [0]


def test_an_attack_that_aims_succeeds_by_reaching(make_job):
    clean_a, clean_b, _, cosine = CASE
    job = make_job(clean_a, clean_b, [1, 2, 0, 0, 0, 2], cosine, target_label=[1, 1, 1, 1, 1, 2])
    frame = pair_similarity([job, make_job(*CASE)], 8)
    assert frame["success_rate"].iloc[1] == 0.5
    assert frame["targeted"].tolist() == [True, True, False, False]


def test_ten_images_give_students_interval_and_fewer_none(make_job):
    nan, right = np.nan, [0] * 12
    cosine = np.array([*np.linspace(-0.2, 0.5, 10), nan, nan])
    row = pair_similarity([make_job(right, right, right, cosine)], 8).iloc[1]
    known = cosine[:10]
    expected = student_t.interval(0.95, 9, known.mean(), known.std(ddof=1) / np.sqrt(10))
    assert (row["cosine_low"], row["cosine_high"]) == pytest.approx(expected)
    cosine[9] = nan
    row = pair_similarity([make_job(right, right, right, cosine)], 8).iloc[1]
    assert row["cosine"] == pytest.approx(cosine[:9].mean()) and np.isnan(row["cosine_low"])
    row = pair_similarity([make_job([0, 0], [1, 1], [1, 0], [0.4, 0.2])], 8).iloc[1]
    assert row["n"] == 0
    numbers = ["cosine", "cosine_low", "sign_agreement", "success_rate", "success_rate_low"]
    assert row[numbers].isna().all()


def test_members_of_an_ensemble_are_white_box(make_job):
    job = make_job(*CASE)
    table = job.predictions.replace({"target": {"a": "b+c"}})
    like = job.similarity.replace({"target": {"a": "b+c"}})
    frame = pair_similarity([SimilarJob("bim", "b+c", table, like)], 8)
    assert frame["white_box"].tolist() == [True, True]


def test_what_a_job_lacks_is_named(make_job):
    job = make_job(*CASE)
    with pytest.raises(ValueError, match=r"bim on a has no eps_255 = 16; its budgets are 4, 8"):
        pair_similarity([job], 16)
    with pytest.raises(ValueError, match="has no eps_255 = 0"):
        pair_similarity([job], 0)
    short = job._replace(similarity=job.similarity[job.similarity["index"] != 2])
    with pytest.raises(ValueError, match="similarity table of bim on a lacks image 2 of 'a'"):
        image_level([short], 8)
    with pytest.raises(ValueError, match="similarity table lacks the columns cosine"):
        pair_similarity([job._replace(similarity=job.similarity.drop(columns="cosine"))], 8)


def pairs_of(attack, cosine, kappa, success, white_box=False, both=()):
    """A frame such as `pair_similarity` gives, of pairs over 100 images.

    The pairs at the places `both` are the one before them, the other way round.
    """
    frame = pd.DataFrame({"cosine": cosine, "kappa": kappa, "success_rate": success})
    frame["attack"], frame["source"], frame["n"] = attack, "a", 100
    frame["target"] = [f"t{place}" for place in range(len(frame))]
    for place in both:
        frame.loc[place, ["source", "target"]] = [f"t{place - 1}", "a"]
    frame["eps_255"], frame["white_box"], frame["targeted"] = 8.0, white_box, False
    for name in ("cosine_low", "cosine_high", "sign_agreement", "same_wrong"):
        frame[name] = np.nan
    frame["success_rate_low"] = frame["success_rate_high"] = np.nan
    return frame


def test_regression_equals_scipy():
    generator = np.random.default_rng(0)
    cosine, kappa = generator.random((2, 6))
    frames = {
        "fgsm": pairs_of("fgsm", cosine, kappa, 0.2 + 0.5 * cosine + generator.normal(0, 0.05, 6)),
        "bim": pairs_of("bim", cosine, kappa, 0.6 - 0.4 * kappa + generator.normal(0, 0.05, 6)),
    }
    frames["bim"].loc[1, ["source", "target"]] = ["t0", "a"]
    white = pairs_of("bim", [1.0, 1.0], [1.0, 1.0], [1.0, 0.9], white_box=True)
    frame = pd.concat([*frames.values(), white], ignore_index=True)
    frame.loc[0, "kappa"] = np.nan
    result = transfer_regression(frame).set_index(["attack", "predictor"])
    assert result.index.tolist() == [
        (attack, name) for attack in ("fgsm", "bim") for name in ("cosine", "kappa")
    ]
    assert result["pairs"].tolist() == [6, 5, 6, 6]
    assert result["model_pairs"].tolist() == [6, 5, 5, 5]
    for (attack, predictor), row in result.iterrows():
        pairs = frame[~frame["white_box"] & (frame["attack"] == attack)]
        known = pairs.dropna(subset=[predictor])
        line = linregress(known[predictor], known["success_rate"])
        half = student_t.ppf(0.975, len(known) - 2) * line.stderr
        expected = [line.slope, line.slope - half, line.slope + half, line.rvalue, line.pvalue]
        expected.append(line.intercept)
        columns = ["slope", "slope_low", "slope_high", "r", "p", "intercept"]
        assert row[columns].tolist() == pytest.approx(expected)


def test_a_line_needs_four_pairs_of_models():
    three = transfer_regression(pairs_of("bim", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.2, 0.3, 0.5]))
    assert three["pairs"].tolist() == [3, 3] and three["attack"].unique().tolist() == ["bim"]
    assert three[["slope", "slope_low", "r", "p"]].isna().all(axis=None)
    # Three pairs of models, each both ways round, are six points but not more models.
    values = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    success = [0.2, 0.3, 0.3, 0.2, 0.5, 0.4]
    both = transfer_regression(pairs_of("bim", values, values, success, both=(1, 3, 5)))
    assert both["pairs"].tolist() == [6, 6] and both["model_pairs"].tolist() == [3, 3]
    assert both["slope"].isna().all()
    four = transfer_regression(pairs_of("bim", values, values, success, both=(1, 3)))
    assert four["model_pairs"].tolist() == [4, 4] and four["slope"].notna().all()


def test_a_line_needs_variation():
    rising, bent = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.1, 0]
    for flat in (0.1, np.array([0.1, 0.1002, 0.1004, 0.1009])):
        row = transfer_regression(pairs_of("bim", flat * np.ones(4), rising, bent))
        assert np.isnan(row["slope"].iloc[0]) and not np.isnan(row["slope"].iloc[1])
        same = transfer_regression(pairs_of("bim", rising, bent, flat * np.ones(4)))
        assert same["slope"].isna().all()
    exact = transfer_regression(pairs_of("bim", rising, [0.1] * 4, [0.2, 0.4, 0.6, 0.8]))
    assert exact["slope"].iloc[0] == pytest.approx(2) and exact["r"].iloc[0] == pytest.approx(1)


def test_targeted_jobs_do_not_mix_with_others():
    values = np.array([0.1, 0.2, 0.3, 0.4])
    free = pairs_of("bim", values, values, [0.1, 0.2, 0.4, 0.4])
    aimed = pairs_of("bim", values, values, [0.4, 0.3, 0.2, 0.1]).assign(targeted=True)
    both = pd.concat([free, aimed], ignore_index=True)
    pd.testing.assert_frame_equal(transfer_regression(both), transfer_regression(free))
    assert transfer_regression(aimed)["slope"].to_numpy() == pytest.approx([-1, -1])
    assert "at 8/255: bim +" in similarity_sentences(both, transfer_regression(both))[0]
    alone = similarity_sentences(aimed, transfer_regression(aimed))[0]
    assert "at 8/255: targeted bim -10.0 [" in alone


def test_the_odds_ratio_is_the_likeliest_one(make_job):
    generator = np.random.default_rng(3)
    n = 150
    cosine = generator.normal(0.1, 0.15, n)
    fooled = (generator.random(n) < 1 / (1 + np.exp(0.5 - 6 * cosine))).astype(int)
    frame = image_level([make_job([0] * n, [0] * n, fooled, cosine)], 8)
    row = frame.iloc[1]
    assert (row["n"], row["success"]) == (n, fooled.sum())
    x = np.column_stack([np.ones(n), cosine * 10])

    def loss(b):
        return np.logaddexp(0, x @ b).sum() - fooled @ (x @ b)

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    chance = 1 / (1 + np.exp(-x @ best))
    sd = np.sqrt(np.linalg.inv(x.T @ (x * (chance * (1 - chance))[:, None]))[1, 1])
    expected = np.exp(best[1] + 1.959964 * sd * np.array([0, -1, 1]))
    numbers = row[["odds_ratio", "odds_ratio_low", "odds_ratio_high"]].tolist()
    assert numbers == pytest.approx(expected, rel=1e-4)
    assert row["p"] == pytest.approx(student_t.sf(abs(best[1]) / sd, 1e9) * 2, rel=1e-3)
    # The white box: cosines of 1, up to rounding, and successes everywhere.
    assert frame.iloc[0][["odds_ratio", "p"]].isna().all()


@pytest.mark.parametrize(
    ("cosine", "fooled"),
    [
        ([0.1, 0.2] * 4 + [0.3], [0, 1, 1, 0, 0, 1, 1, 0, 1]),  # nine images
        (np.linspace(0, 1, 12), [0] * 12),  # no success
        (np.linspace(0, 1, 12), [1] * 12),  # nothing else
        (np.linspace(0, 1, 12), [0] * 6 + [1] * 6),  # apart
        (np.linspace(0, 1, 12), [1] * 5 + [0] * 7),  # apart the other way
        ([0.0] * 6 + [0.5] * 3 + [1.0] * 3, [0] * 7 + [1] * 5),  # apart but for ties
        ([1 - 1e-7, 1.0] * 6, [0, 0, 1, 1] * 3),  # one model, twice
        ([np.nan] * 6 + [0.1, 0.2, 0.3] * 2, [0, 1] * 6),  # six images with gradients
    ],
)
def test_no_odds_ratio_where_none_is_best(make_job, cosine, fooled):
    n = len(fooled)
    row = image_level([make_job([0] * n, [0] * n, fooled, list(cosine))], 8).iloc[1]
    assert row["n"] == np.isfinite(cosine).sum()
    assert row[["odds_ratio", "odds_ratio_low", "odds_ratio_high", "p"]].isna().all()


def test_sentences_tell_the_line_of_each_attack():
    cosine = [0.1, 0.2, 0.3, 0.4, 0.4]
    frame = pd.concat(
        [
            pairs_of(
                "fgsm", cosine, [0.4, 0.2, 0.1, 0.3, 0.3], [0.12, 0.19, 0.31, 0.38, 0.4], both=(4,)
            ),
            pairs_of("bim", cosine[:4], [0.1, 0.3, 0.4, 0.2], [0.14, 0.21, 0.27, 0.42]),
            pairs_of("pgd", cosine[:1], [0.1], [0.14]),
            pairs_of("mim", cosine[:4], [0.1] * 4, [0.5] * 4),
        ]
    )
    regression = transfer_regression(frame)
    first, second = similarity_sentences(frame, regression)
    assert first.startswith(
        "Over the pairs that are not white box, 0.1 more gradient cosine goes with so many "
        "percentage points of success at 8/255: fgsm +"
    )
    for attack, n, models in (("fgsm", 5, 4), ("bim", 4, 4)):
        row = regression.query("attack == @attack and predictor == 'cosine'").iloc[0]
        slope, low, high = 10 * row[["slope", "slope_low", "slope_high"]]
        p = f"p = {row['p']:.2g}" if attack == "bim" else "p < 0.001"
        assert (
            f"{attack} {slope:+.1f} [{low:+.1f}, {high:+.1f}] (r = {row['r']:.2f}, {p}, n = {n} "
            f"source-target pairs of {models} pairs of models)"
        ) in first
    assert first.endswith(
        "; no line is fitted for pgd (1 pair of models, of at least 4), mim (it, or the success, "
        "is the same for all 4 pairs). The pairs share models and images, so these 95 % intervals "
        "are too narrow."
    )
    assert "0.1 more error agreement (Cohen's kappa) goes with" in second
    assert "better" not in first + second and "worse" not in first + second


def test_sentences_tell_the_pairs_where_there_is_no_line():
    frame = pairs_of("bim", [0.12, np.nan], [0.5, np.nan], [0.1, 0.25])
    frame.loc[0, ["cosine_low", "cosine_high"]] = [0.1, 0.14]
    white = pairs_of("bim", [1.0], [1.0], [1.0], white_box=True)
    frame = pd.concat([white, frame], ignore_index=True)
    first, second = similarity_sentences(frame, transfer_regression(frame))
    assert first == (
        "Whether success at 8/255 goes with gradient cosine cannot be told: no line is fitted for "
        "bim (1 pair of models, of at least 4): a -> t0 (bim) cosine 0.120 [0.100, 0.140], kappa "
        "0.500, success 10 / 100 = 10.00%; a -> t1 (bim) cosine n/a, kappa n/a, success "
        "25 / 100 = 25.00%."
    )
    assert second.endswith("no line is fitted for bim (1 pair of models, of at least 4).")
    nothing = frame.iloc[:0]
    for sentence in similarity_sentences(nothing, transfer_regression(nothing)):
        assert sentence.startswith("No pair of models tells")
    first, _ = similarity_sentences(white, transfer_regression(white))
    assert first.endswith("for bim (0 pairs of models, of at least 4).")


def test_of_many_pairs_the_first_six_are_told():
    frame = pd.concat(
        [pairs_of(f"m{k}", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.2, 0.3, 0.5]) for k in range(3)],
        ignore_index=True,
    )
    first, second = similarity_sentences(frame, transfer_regression(frame))
    assert "; the first 6 of 9 pairs: a -> t0 (m0)" in first
    assert first.count("a -> t") == 6 and "a -> " not in second
    flat = pairs_of("bim", [0.1] * 4, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.5])
    first, second = similarity_sentences(flat, transfer_regression(flat))
    assert first.count("a -> t") == 4 and "goes with so many" in second
    other = flat.rename(columns={"cosine": "kappa", "kappa": "cosine"})
    first, second = similarity_sentences(other, transfer_regression(other))
    assert "goes with so many" in first and second.count("a -> t") == 4
