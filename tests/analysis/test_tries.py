"""Success within q candidates, and the choice of a source: by hand, by loops, in simulations."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from src.analysis.source_choice import choices
from src.analysis.tries import success_within
from src.sources import main
from tests.analysis.conftest import outcomes_of_arrays, source_means
from tests.conftest import REPOSITORY, run_words


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
    found = success_within(outcomes_of_arrays(JOBS, "tb", MATRIX), [10, 10, 10])
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
    found = success_within(outcomes_of_arrays(JOBS, "t", matrix), [10, 25, 10])
    assert list(found["attack"]) == ["di", "ti", "mi"]
    assert found["single"].tolist() == pytest.approx([0.5] * 3)
    matrix = [[images((0, 110))], [images((0, 100))], [images((100, 130))]]
    found = success_within(outcomes_of_arrays(JOBS, "t", matrix), [10, 25, 10])
    assert found["single"].tolist() == pytest.approx([0.55] * 3)
    assert found[["unseen", "unseen_low"]].isna().all(axis=None)  # there is no other target


def test_a_unit_is_an_image_that_all_candidates_of_a_target_count():
    counted = np.ones((3, 2, 200), bool)
    counted[1, 0, 120:] = False  # b is wrong from image 120 on
    counted[1, 1, :] = False  # the white box does not matter
    found = success_within(outcomes_of_arrays(JOBS, "tb", MATRIX, counted), [1, 1, 1])
    assert found["images"].iloc[0] == 200
    assert found["fooled"].iloc[0] == pytest.approx((100 / 120 + 0.8) / 2)
    counted[0] = False
    with pytest.raises(ValueError, match="No image is left"):
        success_within(outcomes_of_arrays(JOBS, "tb", MATRIX, counted), [1, 1, 1])


def test_each_image_is_judged_by_the_order_learned_on_the_next_five_parts():
    """A loop over the eleven parts of the images; among equals the better one alone comes first."""
    fooled = np.random.default_rng(4).random((6, 1, 110)) < 0.3
    found = success_within(
        outcomes_of_arrays([(f"x{at}", "a") for at in range(6)], "t", fooled), [1] * 6
    )
    part, total = np.random.default_rng(1).permutation(110) * 11 // 110, np.zeros(6)
    for number in range(11):
        learned = np.isin((part - number) % 11, [1, 2, 3, 4, 5])
        alone, left, order = (fooled[:, 0] & learned).sum(axis=1), learned.copy(), []
        while len(order) < 6:
            rest = [at for at in range(6) if at not in order]
            order.append(max(rest, key=lambda at: ((fooled[at, 0] & left).sum(), alone[at], -at)))
            left &= ~fooled[order[-1], 0]
        total += [fooled[order[: q + 1], 0].any(axis=0)[part == number].sum() for q in range(6)]
    assert found["fooled"].tolist() == pytest.approx(total / 110)


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
        found = success_within(outcomes_of_arrays(jobs, "t", fooled), [1.0] * candidates)
        hits.append(found["fooled_low"].le(truth) & found["fooled_high"].ge(truth))
    return np.mean(hits, axis=0)


def test_intervals_of_equal_candidates_cover():
    """Orders that judge each other's images need wider intervals than their scores show."""
    assert (np.abs(covered(5, 60, worlds=1_000)[[0, -1]] - 0.95) <= 0.02).all()


@pytest.mark.slow
@pytest.mark.parametrize(("images", "alike"), [(130, 0.0), (130, 0.5), (40, 0.5)])
def test_intervals_cover_93_to_97_percent_of_worlds(images, alike):
    """At q = 1, 2, 5 and the last q; not where nearly every image is fooled."""
    found = covered(15, images, 1000, alike)[[0, 1, 4, 14] if alike else [0, 1, 4]]
    assert ((found > 0.93) & (found < 0.97)).all()


def test_the_table_names_the_order_and_refuses_other_budgets(tmp_path, capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    words = [demo, "--as", "tries", "--names", "mi=MI", "--protocol", "joint"]
    assert run_words(tmp_path, *words, "--to", "csv", "--out", "a.csv", module="src.table") == 0
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["q"].tolist() == [1, 2, 3, 4, 5, 6]  # a source is tried by none of its own
    assert frame["attack"][0] == "MI" and frame["source"][0] == "resnet_small"
    for more, said in ((["--eps", "3"], "eps_255=3"), (["--protocol", "jiont"], "jiont")):
        assert run_words(tmp_path, *words, *more, module="src.table") == 2
        assert said in capsys.readouterr().err


MODELS = list("abcdef")
NUMBERS = ["success", "most", "any", "best_2", "best_3"]


def transfer_of(fooled, counted=True, targets=None):
    """Return outcomes from arrays of shape (A, S, T, N); a source does not attack itself."""
    attacks, sources, count, images = fooled.shape
    sources, targets = MODELS[:sources], targets or MODELS[:count]
    jobs = [(f"attack{number}", source) for number in range(attacks) for source in sources]
    evaluated = np.array([[source != target for target in targets] for _, source in jobs])
    counted = np.broadcast_to(counted, fooled.shape).reshape(-1, count, images)
    return outcomes_of_arrays(jobs, targets, fooled.reshape(-1, count, images), counted, evaluated)


def made_up(models=6, images=60):
    """Return the random transfer among models, with effects of both sides, and what counts."""
    random = np.random.default_rng(0)
    shares = random.uniform(0.1, 0.5, models)[:, None] + random.uniform(0, 0.4, models)
    fooled = random.random((2, models, models, images)) < shares[..., None]
    return fooled, random.random(fooled.shape[1:]) < 0.98


def chosen(fooled, counted, target, half):
    """Return the other sources by their success on other targets, and the best one on this."""
    able = [its for its in range(len(MODELS)) if its != target]
    rates = np.full((len(MODELS), len(MODELS)), np.nan)
    for source, other in np.argwhere(~np.eye(len(MODELS), dtype=bool)):
        rates[source, other] = fooled[:, source, other, half & counted[other]].mean()
    pairs = list(permutations(able, 2))
    values = source_means(pairs, [rates[pair] for pair in pairs])
    return sorted(able, key=lambda s: -values[s]), max(able, key=lambda s: rates[s, target])


def test_a_source_is_chosen_on_other_targets_and_judged_on_other_images():
    fooled, counts = made_up()
    # Images that a target counts for every source.
    counted = np.array([counts[np.arange(6) != target, target].all(axis=0) for target in range(6)])
    found, every = choices(transfer_of(fooled, counts)), []
    first = np.tile(np.arange(60) % 2 == 0, (10, 1))
    first = np.random.default_rng(0).permuted(first, axis=1)
    for target, row in enumerate(found.iloc[:-1].itertuples()):
        order, best = chosen(fooled, counted, target, np.ones(60, bool))
        assert (row.chosen, row.best) == (MODELS[order[0]], MODELS[best])
        parts = []
        for half in (*first, *~first):
            order, best = chosen(fooled, counted, target, half)
            groups = (order[:1], [best], order[:2], order[:3])
            numbers = [fooled[:, its, target].any(axis=1).mean(axis=0) for its in groups]
            numbers.insert(2, fooled[:, order, target].mean(axis=(0, 1)))
            judged = counted[target] & ~half
            parts.append(judged * [*numbers, np.ones(60)] / judged.sum())
        every.append(np.mean(parts, axis=0))
        assert [getattr(row, name) for name in NUMBERS] == pytest.approx(every[-1][:-1].sum(axis=1))
        assert row.candidates == 5
    last, rates = found.iloc[-1], np.sum(every, axis=2)[:, :-1]
    *parts, weights = np.mean(every, axis=0)
    for name, its, part in zip(NUMBERS, rates.T, parts, strict=True):
        over_images = np.square(part - its.mean() * weights).sum() * 60 / 59
        half = student.ppf(0.975, 5) * np.sqrt(its.var(ddof=1) / 6 + over_images)
        ends = [its.mean(), its.mean() - half, its.mean() + half]
        assert last[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(ends)


def test_trainings_of_a_network_count_as_one_target():
    fooled, counted = made_up()
    counted[np.eye(6, dtype=bool)] = True
    plain = choices(transfer_of(fooled, counted)).iloc[-1]
    twice = np.repeat(fooled, 2, axis=2), np.repeat(counted, 2, axis=1)
    names = [f"{name}{seed}" for name in MODELS for seed in ("", "_seed1")]
    found = choices(transfer_of(*twice, names)).iloc[-1]
    pd.testing.assert_series_equal(found, plain, check_names=False)


def test_few_models_have_no_interval_and_too_few_are_refused():
    few, enough = (choices(transfer_of(*made_up(count))).iloc[-1] for count in (4, 5))
    assert np.isnan([few["success_low"], few["most_high"]]).all() and few["success"] > 0
    assert enough["success_low"] < enough["success"] < enough["success_high"]
    assert choices(transfer_of(made_up(4)[0], False)).empty
    with pytest.raises(ValueError, match="4 targets"):
        choices(transfer_of(*made_up(3)))


def test_the_command_prints_a_choice_or_why_there_is_none(capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    for words in ([demo, "--attack", "none"], [demo, "--eps", "3"], ["nowhere"]):
        assert main(words) == 2 and capsys.readouterr().err.count("\n") == 1
