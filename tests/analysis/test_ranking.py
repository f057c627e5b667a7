"""Rankings of attacks and of sources against loops, least squares and tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from src.analysis.intervals import wilson_interval
from src.analysis.multiple_comparisons import LEVEL, compare_pairs, detectable
from src.analysis.outcomes import joined
from src.analysis.ranking import ALL_TARGETS, GROUP, rankings, source_rankings
from src.utils.model_names import ModelRef
from tests.analysis.conftest import outcomes_of, outcomes_of_arrays, source_means

IMAGES = 120
SHARES = {"mi": 0.6, "bim": 0.45, "pgd": 0.1}
SOURCES = {"a": 0.0, "b": -0.15, "c": 0.2, "a@jpeg": 0.1, "b@jpeg": 0.0, "a+b": 0.1}
TARGETS = {"a": 0.0, "b": 0.05, "c": 0.1, "d": -0.1, "e": 0.0, "d@jpeg": 0.0, "a@jpeg": 0.0}


def made_up(attacks=SHARES, sources=SOURCES, targets=TARGETS):
    """Return random outcomes; `pgd` lacks the pair of a and d, and `e` counts no image for c."""
    random = np.random.default_rng(5)
    values = {}
    for attack, share in attacks.items():
        for source, change in sources.items():
            for target, effect in targets.items():
                fooled = random.random(IMAGES) < share + change + effect
                counted = random.random(IMAGES) < 0.95 - 0.1 * (target == "d")
                values[attack, source, target] = np.where(counted, fooled, -1)
    if "pgd" in attacks:
        values["pgd", "c", "e"][:] = -1
        del values["pgd", "a", "d"]
    return values


def check_tests(ranked, names, parts_of, targets, against=None, draws=0.0):
    """Check the tests of rows, given what images contribute to their means over some targets.

    Rounding errors of `parts_of` may lead to other draws of signs: p-values differ by `draws`.
    """
    parts = parts_of(targets)
    order = np.argsort(-parts.mean(axis=1)).tolist()
    assert ranked.index.tolist() == [names[at] for at in order]
    assert ranked["mean"].tolist() == pytest.approx(parts.mean(axis=1)[order])
    assert ranked["images"].eq(parts.shape[1]).all() and ranked["targets"].eq(len(targets)).all()
    assert ranked["rank"].tolist() == [*range(1, len(names) + 1)]
    place = order[0] if against is None else names.index(against)
    tests = compare_pairs(parts, one=None if against is None else place)
    others = [at for at in order if at != place]
    rows, columns = ranked.drop(index=names[place]), ["difference", "discordance", "p"]
    assert ranked.loc[names[place], columns].isna().all()
    for name in columns:
        wanted = getattr(tests, name)[others, place]
        assert rows[name].tolist() == pytest.approx(wanted, abs=draws * (name == "p") + 1e-9)
    half = pytest.approx(tests.margin[others, place], rel=5 * draws + 1e-6)
    assert (rows["difference_high"] - rows["difference"]).tolist() == half
    assert (rows["difference"] - rows["difference_low"]).tolist() == half
    assert ranked["undecided"].tolist() == (~(ranked["p"] < LEVEL)).tolist()
    usual = np.median(tests.discordance[others, place])
    seen = detectable(tests.cutoff, usual, parts.shape[1])
    assert ranked["detectable"].tolist() == pytest.approx([seen] * len(names), rel=5 * draws + 1e-6)
    depends = []
    if against is None and len(targets) > 1 and (rows["p"] < LEVEL).all():
        for target in targets:
            rest = compare_pairs(parts_of([its for its in targets if its != target]), one=place)
            ahead = (rest.p[place] < LEVEL) & (rest.difference[place] > 0)
            depends += [ModelRef.parse(target).model] * (not ahead[others].all())
    assert ranked["depends_on"].tolist() == [", ".join(depends), *[""] * len(others)]
    return depends


def parts_of_attacks(values, attacks, pairs):
    """Return what each image contributes to the attacks' means, and at most, by a loop."""
    counted = {
        pair: np.all([values[(attack, *pair)] >= 0 for attack in attacks], axis=0) for pair in pairs
    }
    counted = {pair: its for pair, its in counted.items() if its.any()}
    targets = {target for _, target in counted}
    parts, most = np.zeros((len(attacks), IMAGES)), np.zeros(IMAGES)
    for (source, target), images in counted.items():
        sources = sum(other == target for _, other in counted)
        share = images / (images.sum() * sources * len(targets))
        most += share
        parts += [share * (values[attack, source, target] == 1) for attack in attacks]
    return parts[:, most > 0] * (most > 0).sum(), most[most > 0]


def ends_of_mean(parts, most, single):
    """Return Wilson's interval at the size at which zeros and ones would vary as much."""
    n, mean = len(most), parts.mean()
    spread = sum(n * (part / n - mean * its) ** 2 for part, its in zip(parts, most, strict=True))
    few = n * min(mean, 1 - mean)
    usual = (few * spread + 2 * mean * (1 - mean)) / (few + 2)
    size = n if single or not usual else n * mean * (1 - mean) / usual
    return [float(end) for end in wilson_interval(mean * size, size)]


@pytest.mark.parametrize("against", [None, "bim"])
def test_rankings_of_attacks_are_those_of_plain_loops(against):
    values, seen = made_up(), []
    found = rankings(outcomes_of(values), against)
    for keys, ranked in found.groupby([*GROUP, "defence", "source"], sort=False):
        targeted, ensemble, defended, defence, source = keys
        members = ["a", "b", "c"] if source == "mean of 3 sources" else [source]
        refs = [*map(ModelRef.parse, members)]
        assert (targeted, ensemble, defended) == (False, refs[0].is_ensemble, refs[0].is_defended)
        pairs = [
            (str(ref), target)
            for ref in refs
            for target in map(ModelRef.parse, TARGETS)
            if target.defence == defence and not ref.includes(target)
        ]
        pairs = [(name, str(target)) for name, target in pairs]
        ranked, lacks = ranked.set_index("attack"), ("a", "d") in pairs
        assert ranked["lacks"].tolist() == ["", "", "a -> d" if lacks else ""]
        if lacks:
            assert ranked.loc["pgd", ["mean", "rank", "p"]].isna().all()
            assert ranked["undecided"]["pgd"]
            ranked = ranked.drop(index="pgd")
        counting = [pair for pair in pairs if lacks or pair != ("c", "e")]
        targets = [target for target in TARGETS if any(target == its for _, its in counting)]

        names = [*SHARES][: len(ranked)]

        def parts_of(its, pairs=pairs, names=names):
            return parts_of_attacks(values, names, [pair for pair in pairs if pair[1] in its])

        check_tests(ranked, names, lambda its: parts_of(its)[0], targets, against)
        assert ranked["sources"].eq(len(members)).all()
        parts, most = parts_of(targets)
        for name, its in zip(names, parts, strict=True):
            ends = ends_of_mean(its, most, len(counting) == 1)
            assert ranked.loc[name, ["low", "high"]].tolist() == pytest.approx(ends)
        seen.append((defence, source))
    plain = [("none", name) for name in ("mean of 3 sources", "a", "b", "c", "a@jpeg", "b@jpeg")]
    assert {*plain, ("none", "a+b"), ("jpeg", "mean of 3 sources")} <= {*seen}


def test_targeted_attacks_have_a_ranking_of_their_own():
    values = made_up()
    both = rankings(outcomes_of(values, aimed=["pgd"]))
    rest = {key: its for key, its in values.items() if key[0] != "pgd"}
    pd.testing.assert_frame_equal(both[~both["targeted"]], rankings(outcomes_of(rest)))
    alone = both[both["targeted"]]
    assert {*alone["attack"]} == {"pgd"} and alone["rank"].eq(1).all()
    assert alone["undecided"].all() and alone[["difference", "p"]].isna().all(axis=None)


def parts_of_sources(values, attacks, sources, targets):
    """Return what each image contributes to the sources' values, by least squares."""
    pairs = [(s, t) for s in sources for t in targets if s != t]
    rows, seen = [], np.zeros(IMAGES, bool)
    for source, target in pairs:
        every = [values[attack, s, target] for attack in attacks for s in "abc"]
        images = np.all(np.array(every) >= 0, axis=0)
        its = [values[attack, source, target] == 1 for attack in attacks]
        rows.append(np.where(images, np.mean(its, axis=0), 0) / images.sum())
        seen |= images
    values = source_means(pairs, rows)
    return np.array([values[name][seen] for name in sources]) * seen.sum()


def test_rankings_of_sources_are_those_of_least_squares():
    sources, targets = {"a": 0.0, "b": -0.1, "c": 0.12}, {name: TARGETS[name] for name in "abcde"}
    values = made_up({"mi": 0.5, "bim": 0.4}, sources, targets)
    values |= {("pgd", "a", target): its for (_, _, target), its in values.items()}
    found, seen, depends = source_rankings(outcomes_of(values)), [], []
    for (name, target), ranked in found.groupby(["attack", "target"], sort=False):
        attacks = ["mi", "bim"] if name == "mean of 2 attacks" else [name]
        ranked = ranked.set_index("source")
        assert ranked["attacks"].eq(len(attacks)).all() and not ranked["extrapolated"].any()
        its = [*targets] if target == ALL_TARGETS else [target]
        names = [name for name in sources if name != target]

        def parts_of(its, attacks=attacks, names=names):
            return parts_of_sources(values, attacks, names, its)

        depends += check_tests(ranked, names, parts_of, its, draws=0.03)
        seen.append((name, target))
    names = ["mean of 2 attacks", "mi", "bim"]
    assert seen == [(name, target) for name in names for target in (ALL_TARGETS, *targets)]
    assert depends == ["d", "d"]


def test_a_value_beyond_all_or_nothing_is_called_extrapolated():
    """The target that a lacks, itself, is fooled less from b than all others by 90 points."""
    rows = {("mi", "a", t): [1] * 2 + [0] * 38 for t in "cd"}
    rows |= {("mi", "b", t): [1] * 38 + [0] * 2 for t in "cd"}
    rows["mi", "b", "a"] = [0] * 40
    ranked = source_rankings(outcomes_of(rows))
    ranked = ranked[ranked["target"] == ALL_TARGETS].set_index("source")
    assert ranked["mean"].to_dict() == pytest.approx({"b": 1.9 / 3, "a": 1.9 / 3 - 0.9})
    assert ranked["extrapolated"].to_dict() == {"b": False, "a": True}


ALIKE = [1, 0] * 20


@pytest.mark.parametrize(
    ("targets_of", "ranks", "lacks"),
    [
        ({"a": "abcd", "b": "abcd"}, [1, 2], ""),
        ({"a": "abcd", "b": "abc"}, None, "d as a target of both a and b"),
        ({"a": ["b@jpeg"], "b": ["a@jpeg"]}, None, "2 more targets besides a, b"),
        ({"a": "t", "b": "t"}, [1, 2], ""),  # one target ranks its sources
        ({"a": "a", "b": "b"}, [], ""),  # white boxes rank none
        ({"a": "t"}, [], ""),
    ],
)
def test_sources_need_two_common_targets_besides_themselves(targets_of, ranks, lacks):
    found = outcomes_of({("mi", s, t): ALIKE for s, its in targets_of.items() for t in its})
    ranked = source_rankings(found)
    ranked = ranked[ranked["target"] == [*ranked["target"], ""][0]]
    assert (ranked["lacks"] == lacks).all()
    assert ranked["rank"].isna().all() if ranks is None else ranked["rank"].tolist() == ranks


@pytest.mark.parametrize("lacking", ["bim", "mi"])
def test_a_mean_over_attacks_has_only_the_pairs_of_all(lacking):
    rows = {
        (attack, source, target): [1] * fooled + [0] * (40 - fooled)
        for attack in ("bim", "mi")
        for source, fooled in (("a", 24), ("b", 16))
        for target in ("tu" if attack == lacking else "tuv")
    }
    ranked = source_rankings(outcomes_of(rows)).head(2)
    assert ranked["attack"].eq("mean of 2 attacks").all() and ranked["targets"].eq(2).all()
    assert ranked["mean"].tolist() == pytest.approx([0.6, 0.4])


def test_below_30_images_nothing_is_decided():
    ranked = rankings(outcomes_of({("mi", "a", "b"): [1] * 29, ("bim", "a", "b"): [0] * 29}))
    assert ranked["undecided"].all() and ranked[["p", "difference_low"]].isna().all(axis=None)
    assert ranked["difference"].iloc[1] == -1


def test_attacks_that_count_no_image_in_common_have_no_ranking():
    assert rankings(outcomes_of({("mi", "a", "b"): [1, -1], ("bim", "a", "b"): [-1, 1]})).empty


@pytest.mark.parametrize(("differing", "stated"), [(0, False), (5, False), (6, True)])
def test_few_images_that_differ_state_no_detectable_difference(differing, stated):
    fooled = [1] * differing + [0] * (100 - differing)
    ranked = rankings(outcomes_of({("mi", "a", "b"): fooled, ("bim", "a", "b"): [0] * 100}))
    assert ranked["detectable"].notna().eq(stated).all()


def test_images_that_differ_are_counted_from_the_attack_that_others_are_compared_with():
    fooled = {"mi": 40, "bim": 10, "fgsm": 10, "pgd": 10}
    rows = {(name, "a", "b"): [1] * k + [0] * (100 - k) for name, k in fooled.items()}
    assert rankings(outcomes_of(rows), "bim")["detectable"].isna().all()


def test_seeds_are_averaged_per_image():
    parts = [outcomes_of({("mi", "a", "b"): its}) for its in ([1, 1, 0, -1], [1, 0, 0, 0])]
    ranked = rankings(joined(parts))
    assert ranked[["mean", "images"]].iloc[0].tolist() == [(1 + 0.5 + 0) / 3, 3]


def test_the_order_of_jobs_decides_nothing_if_two_attacks_lack_one_pair_each():
    values = {(attack, s, t): ALIKE for attack in ("mi", "bim") for s in "ab" for t in "cd"}
    del values["mi", "a", "c"], values["bim", "b", "d"]
    jobs = [
        {key: its for key, its in values.items() if key[:2] == job}
        for job in {*(k[:2] for k in values)}
    ]
    parts = [outcomes_of(its) for its in jobs]
    first, last = (rankings(joined(order)) for order in (parts, parts[::-1]))
    columns = ["attack", "source", "mean", "lacks"]
    pd.testing.assert_frame_equal(first[columns], last[columns])
    assert first["source"].iloc[0] == "mean of 2 sources"


@pytest.mark.parametrize(
    "share", [0.03, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.01, 0.3, 0.97))]
)
@pytest.mark.parametrize("alike", [pytest.param(0.3, marks=pytest.mark.slow), 0.9])
def test_the_interval_of_mean_success_covers_it(share, alike):
    """Each of 300 sources is a sample of 150 images on four targets, which fall together."""
    samples, targets, images = 300, 4, 150
    random = np.random.default_rng(7)
    difficulty = random.standard_normal((samples, 1, images))
    noise = random.standard_normal((samples, targets, images))
    fooled = np.sqrt(alike) * difficulty + np.sqrt(1 - alike) * noise > norm.isf(share)
    jobs = [("mi", f"source {number}") for number in range(samples)]
    ranked = rankings(outcomes_of_arrays(jobs, [f"target {at}" for at in range(targets)], fooled))
    ranked = ranked[ranked["source"].str.startswith("source")]
    covered = ((ranked["low"] <= share) & (share <= ranked["high"])).mean()
    assert len(ranked) == samples and covered >= 0.92
    assert (ranked["high"] > ranked["low"]).all()
