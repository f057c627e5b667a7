"""Success within q candidates: by hand on small matrices, and in simulated worlds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import src
from src import load_sweep
from src.analysis.outcomes import Outcomes
from src.analysis.tries import success_within
from src.utils.model_names import ModelRef
from tests.conftest import REPOSITORY, run_words
from tests.records import predictions_of, results_of_frame
from tests.report.conftest import make_sweep

DEMO = REPOSITORY / "docs" / "results" / "demo"
CURVES = ["fooled", "unseen", "single"]


def tries(frame: pd.DataFrame, **options) -> pd.DataFrame:
    return src.tries(results_of_frame(frame), **options)


def outcomes_of(jobs, targets, fooled, counted=None) -> Outcomes:
    """Return outcomes from successes of shape (J, T, N); all images count by default."""
    fooled = np.asarray(fooled, bool)
    counted = np.ones_like(fooled) if counted is None else counted
    return Outcomes(
        jobs,
        [ModelRef.parse(target) for target in targets],
        np.arange(fooled.shape[2]),
        np.zeros(len(jobs), bool),
        np.ones(fooled.shape[:2], bool),
        counted,
        fooled & counted,
        ~fooled & counted,
    )


def images(*parts: tuple[int, int]) -> np.ndarray:
    """Return a mask of 200 images that is True from each start to each end."""
    return np.isin(np.arange(200), np.concatenate([np.arange(*part) for part in parts]))


JOBS = [("mi", "a"), ("di", "b"), ("ti", "a")]
MATRIX = [
    # on target t    on target b
    [images((0, 120)), images((0, 40))],
    [images((120, 200)), images((0, 200))],  # a white box on b
    [images((0, 100)), images((40, 200))],
]


def test_greedy_orders_are_those_worked_out_by_hand():
    """`ti` fools 65 % as a mean over t and b, `mi` 40 % and `di`, which b skips, 40 % of t.

    After `ti`, `di` gains 40 %, and `mi` 15 %: 10 % of t and 20 % of b.
    """
    found = success_within(outcomes_of(JOBS, "tb", MATRIX), [10, 10, 10])
    assert list(found["attack"]) == ["ti", "di"] and list(found["source"]) == ["a", "b"]
    assert found["fooled"].tolist() == pytest.approx([0.65, (0.9 + 1.0) / 2])
    # Learned on b alone: ti, mi. Learned on t alone: mi, di, ti.
    assert found["unseen"].tolist() == pytest.approx([(0.5 + 0.2) / 2, (0.6 + 1.0) / 2])
    assert found["single"].tolist() == pytest.approx([0.65, 0.65])
    assert found["gradients"].tolist() == [10, 20]
    assert (found[["images", "targets", "candidates"]] == [200, 2, 3]).all(axis=None)
    assert (found["fooled_low"] < found["fooled"]).all()


def test_the_best_single_candidate_needs_no_more_gradients():
    """`di` alone is better on t than `mi`, but needs more gradients than both others."""
    matrix = [[images((0, 80))], [images((0, 100))], [images((100, 110))]]
    found = success_within(outcomes_of(JOBS, "t", matrix), [10, 25, 10])
    assert list(found["attack"]) == ["di", "ti", "mi"]
    assert found["single"].tolist() == pytest.approx([0.5] * 3)
    matrix = [[images((0, 110))], [images((0, 100))], [images((100, 130))]]
    found = success_within(outcomes_of(JOBS, "t", matrix), [10, 25, 10])
    assert found["single"].tolist() == pytest.approx([0.55] * 3)
    assert np.isnan(
        success_within(outcomes_of(JOBS, "t", matrix), [10, np.nan, 10])["single"]
    ).all()
    assert found[["unseen", "unseen_low"]].isna().all(axis=None)  # there is no other target


def test_a_unit_is_an_image_that_all_candidates_of_a_target_count():
    counted = np.ones((3, 2, 200), bool)
    counted[1, 0, 120:] = False  # b is wrong from image 120 on
    counted[1, 1, :] = False  # the white box does not matter
    found = success_within(outcomes_of(JOBS, "tb", MATRIX, counted), [1, 1, 1])
    assert found["images"].iloc[0] == 200
    assert found["fooled"].iloc[0] == pytest.approx((100 / 120 + 0.8) / 2)
    counted[0] = False
    with pytest.raises(ValueError, match="No image is left"):
        success_within(outcomes_of(JOBS, "tb", MATRIX, counted), [1, 1, 1])


def test_the_order_of_jobs_does_not_matter():
    random = np.random.default_rng(5)
    fooled, jobs = random.random((6, 3, 90)) < 0.3, [(f"x{i}", "a") for i in range(6)]
    found = success_within(outcomes_of(jobs, "tuv", fooled), np.arange(6.0))
    other = random.permutation(6)
    again = outcomes_of([jobs[at] for at in other], "tuv", fooled[other])
    pd.testing.assert_frame_equal(success_within(again, np.arange(6.0)[other]), found)


@pytest.mark.slow
def test_equal_candidates_are_judged_without_optimism():
    """The best of 20 equal candidates on the same images seems several points better."""
    random, totals, hindsight, worlds = np.random.default_rng(2), 0, 0, 60
    rate, jobs = 0.3, [(f"x{number:02}", "a") for number in range(20)]
    for _ in range(worlds):
        fooled = np.sqrt(0.5) * random.standard_normal((1, 3, 200))
        fooled = fooled + np.sqrt(0.5) * random.standard_normal((20, 3, 200)) > norm.isf(rate)
        found = success_within(outcomes_of(jobs, "tuv", fooled), [1.0] * 20)
        totals = totals + found[CURVES].to_numpy() / worlds
        hindsight += fooled.mean(axis=(1, 2)).max() / worlds
    latent = norm.sf(
        (norm.isf(rate) - np.sqrt(0.5) * norm.ppf(np.arange(0.5, 2000) / 2000)) / np.sqrt(0.5)
    )
    truth = np.array([np.mean(1 - (1 - latent) ** q) for q in range(1, 21)])
    assert np.abs(totals[:, :2] - truth[:, None]).max() < 0.012
    assert np.abs(totals[:, 2] - rate).max() < 0.012 and hindsight > rate + 0.015


def covered(candidates, images, worlds, alike=0.0):
    """Return the share of worlds in which the interval has the truth, for each q.

    Equal candidates fool 30 % of the images. With `alike` above 0, images are hard or easy for all
    of them, so the truth is the same for every order.
    """
    random, jobs = np.random.default_rng(1), [(f"x{at:02}", "a") for at in range(candidates)]
    latent = norm.sf(
        (norm.isf(0.3) - np.sqrt(alike) * norm.ppf(np.arange(0.5, 500) / 500)) / np.sqrt(1 - alike)
    )
    truth = np.array([np.mean(1 - (1 - latent) ** q) for q in range(1, candidates + 1)])
    hits = []
    for _ in range(worlds):
        fooled = random.random((candidates, 1, images)) < random.choice(latent, images)
        found = success_within(outcomes_of(jobs, "t", fooled), [1.0] * candidates)
        hits.append(found["fooled_low"].le(truth) & found["fooled_high"].ge(truth))
    return np.mean(hits, axis=0)


def test_intervals_of_equal_candidates_cover():
    """Orders that judge each other's images need wider intervals than their scores show."""
    assert (np.abs(covered(5, 60, worlds=200)[[0, -1]] - 0.95) <= 0.02).all()


@pytest.mark.slow
@pytest.mark.parametrize(("images", "alike"), [(130, 0.0), (130, 0.5), (40, 0.5)])
def test_intervals_cover_93_to_97_percent_of_worlds(images, alike):
    """At q = 1, 2, 5 and the last q; not where nearly every image is fooled."""
    found = covered(15, images, 1000, alike)[[0, 1, 4, 14] if alike else [0, 1, 4]]
    assert ((found > 0.93) & (found < 0.97)).all()


@pytest.mark.slow
def test_a_sweep_is_judged_at_its_reference_budget_without_relatives():
    frame = predictions_of(load_sweep(DEMO))
    frame = frame[frame["eps_255"].isin([0, 1, 4])]
    found = tries(frame)
    assert (found["targets"] == 5).all() and (found["candidates"] == 9).all()
    assert list(found["q"]) == [1, 2, 3, 4, 5, 6]  # a source is tried by none of its own
    targets, sources = frame["target"].unique(), [*frame["source"].unique()]
    mean = np.mean([np.mean(fooled_by_any(frame, its, sources)) for its in targets])
    assert found["fooled"].iloc[0] < found["fooled"].iloc[-1] <= mean
    assert found["fooled"].iloc[-1] > 0.9 * mean
    smaller = tries(frame, eps_255=1)
    assert (smaller["fooled"] < found["fooled"]).all()


def fooled_by_any(frame, target, sources, right=None) -> list[bool]:
    """Return whether some attack at 4/255 fools a target on each image that the models get right.

    By default the target alone must be right.
    """
    rows = frame.assign(correct=frame["predicted"] == frame["label"])
    clean = rows[rows["correct"] & (rows["eps_255"] == 0)].groupby("index")["target"].agg(set)
    units = clean.index[[models.issuperset(right or [target]) for models in clean]]
    tried = rows["source"].isin([*sources]) & (rows["source"] != target) & (rows["eps_255"] == 4)
    wrong = rows[tried & (rows["target"] == target) & ~rows["correct"]]
    return units.isin(wrong["index"]).tolist()


@pytest.fixture(scope="module")
def demo():
    frame = predictions_of(load_sweep(DEMO))
    return frame[frame["eps_255"].isin([0, 4])]


def test_more_sources_never_make_a_target_safer(demo):
    """The images are those of the target alone, so a weak source removes no fragile image."""
    target, sources = "vit_small", ["inception_small", "vgg_small", "resnet_small"]
    rows = demo[(demo["target"] == target) | (demo["eps_255"] == 0)]
    shares, images, joint = [], set(), []
    for number in (1, 2, 3):
        part = rows[rows["source"].isin(sources[:number])]
        last = tries(part).iloc[-1]
        fooled = fooled_by_any(demo, target, sources[:number])
        assert last["fooled"] == pytest.approx(np.mean(fooled)) and last["q"] == 3 * number
        shares.append(last["fooled"])
        images.add((last["images"], len(fooled)))
        last = tries(part, protocol="joint").iloc[-1]
        fooled = fooled_by_any(demo, target, sources[:number], [target, *sources[:number]])
        assert last["fooled"] == pytest.approx(np.mean(fooled)) and last["images"] == len(fooled)
        joint.append(last["images"])
    assert shares == sorted(shares) and len(images) == 1
    assert joint == sorted(joint, reverse=True) and joint[0] > joint[-1]


@pytest.mark.parametrize(
    ("protocol", "right"),
    [
        ("all", []),
        ("source_correct", ["resnet_small", "vgg_small"]),
        ("common", ["mobilenet_small", "resnet_small", "vgg_small"]),
    ],
)
def test_other_protocols_count_other_images(demo, protocol, right):
    target, sources = "mobilenet_small", ["vgg_small", "resnet_small"]
    rows = demo[
        demo["source"].isin(sources) & ((demo["target"] == target) | (demo["eps_255"] == 0))
    ]
    last = tries(rows, protocol=protocol).iloc[-1]
    if right:
        fooled = fooled_by_any(demo, target, sources, right)
    else:
        at = demo[demo["source"].isin(sources) & (demo["target"] == target)]
        wrong = at[(at["predicted"] != at["label"]) & (at["eps_255"] == 4)]
        fooled = np.isin(demo["index"].unique(), wrong["index"])
    assert last["images"] == len(fooled) and last["fooled"] == pytest.approx(np.mean(fooled))


def test_an_abstention_is_counted_and_not_fooled(demo):
    """A candidate on which the target abstains must not change the images of the others."""
    target, sources = "mobilenet_small", ["vgg_small", "resnet_small"]
    rows = demo[
        demo["source"].isin(sources) & ((demo["target"] == target) | (demo["eps_255"] == 0))
    ]
    attacked, even = rows["eps_255"] > 0, rows["index"] % 2 == 0
    one = rows.assign(predicted=rows["predicted"].mask(attacked & (rows["attack"] == "mi"), -1))
    found = tries(one).iloc[-1]
    fooled = fooled_by_any(demo[demo["attack"] != "mi"], target, sources)
    assert found["images"] == len(fooled) and found["fooled"] == pytest.approx(np.mean(fooled))
    every = rows.assign(predicted=rows["predicted"].mask(attacked & even, -1))
    found = tries(every).iloc[-1]
    odd = fooled_by_any(demo[demo["index"] % 2 == 1], target, sources)
    assert found["images"] == len(fooled)
    assert found["fooled"] == pytest.approx(np.sum(odd) / len(fooled))


def test_targeted_attacks_count_the_images_of_the_target(tmp_path):
    axes = {"models": ("a", "b", "t"), "sources": ("a", "b"), "targets": ("t",), "aimed": True}
    frame = predictions_of(
        load_sweep(make_sweep(tmp_path / "a", attacks=("fgsm",), full=False, **axes))
    )
    last, rows = tries(frame).iloc[-1], frame[frame["target"] == "t"]
    clean = rows[(rows["eps_255"] == 0) & (rows["predicted"] == rows["label"])]
    reached = rows[(rows["eps_255"] == 8) & (rows["predicted"] == rows["target_label"])]
    units = clean["index"].unique()
    assert last["images"] == len(units) < frame["index"].nunique()
    share = np.isin(units, reached["index"]).mean()
    assert last["fooled"] == pytest.approx(share) and share > 0


def test_other_options_and_budgets_are_refused(tmp_path, capsys):
    for words, said in (
        (["--eps", "3"], "eps_255=3"),
        (["--rows", "attack"], "unrecognized arguments: --rows"),
        (
            ["--protocol", "jiont"],
            "protocol jiont: choose from all, source_correct, target_correct",
        ),
    ):
        assert run_words(tmp_path, str(DEMO), "--as", "tries", *words, module="src.table") == 2
        assert said in capsys.readouterr().err


def test_the_table_names_the_order(tmp_path, capsys):
    words = [str(DEMO), "--as", "tries", "--names", "mi=MI"]
    assert run_words(tmp_path, *words, module="src.table") == 0
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:6]] == [
        "1",
        "2",
        "5",
        "6",
    ]
    assert "1. MI from resnet_small" in printed.replace("\\", "")
    assert "images that the target classifies correctly" in printed
    assert run_words(tmp_path, *words, "--protocol", "joint", module="src.table") == 0
    assert "images that a source and a target both classify correctly" in capsys.readouterr().out
    assert run_words(tmp_path, *words, "--to", "csv", "--out", "a.csv", module="src.table") == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 6
