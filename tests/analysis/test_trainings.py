"""Networks compared over trainings and images: plain pandas, least squares and loops."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from src.analysis.trainings import compare_networks
from tests.analysis.conftest import source_means


def made_up(networks, targets, images, seed=0, missing=()):
    """Return random outcomes of trainings by number, such as a0, as arrays and as rows."""
    random = np.random.default_rng(seed)
    sources = [f"{name}{number}" for name, count in networks.items() for number in range(count)]
    names = {name: name[0] for name in (*sources, *targets)}
    pairs = [its for its in product(sources, targets) if names[its[0]] != names[its[1]]]
    pairs = [its for its in pairs if its not in missing]
    easy, shift = random.random(images), {name: random.uniform(-0.1, 0.1) for name in names}
    counted = random.random((len(targets), images)) < 0.9
    fooled = np.zeros((len(sources), len(targets), images))
    there, rows = np.zeros(fooled.shape[:2], bool), []
    for source, target in pairs:
        place = sources.index(source), targets.index(target)
        fooled[place], there[place] = random.random(images) < 0.8 * easy + shift[source], True
        some = np.flatnonzero(counted[place[1]])
        its = {"source": source, "target": target, "image": some, "fooled": fooled[place][some]}
        rows.append(pd.DataFrame(its))
    found = compare_networks(fooled, counted, there, (sources, targets), names)
    return found.set_index("source"), pd.concat(rows, ignore_index=True)


def folded(rows, column):
    """Return the mean by network and target network: of source trainings, each over targets."""
    means = rows.groupby(["source", "target"], as_index=False)[column].mean()
    means = means.assign(one=means["source"].str[0], other=means["target"].str[0])
    by_training = means.groupby(["one", "other", "source"])[column].mean()
    return by_training.groupby(["one", "other"]).mean()


def values_of(cells):
    return pd.Series(source_means(cells.index, cells))


@pytest.mark.parametrize("missing", [(), (("a0", "b1"), ("c2", "a1"))])
def test_networks_that_attack_each_other_are_left_out_as_sources_and_as_targets(missing):
    networks = {"a": 3, "b": 4, "c": 3}
    names = [f"{name}{number}" for name, count in networks.items() for number in range(count)]
    found, rows = made_up(networks, [*names, "d0"], 40, missing=missing)
    values = values_of(folded(rows, "fooled"))
    assert found["mean"].to_dict() == pytest.approx(values.to_dict())
    assert found["trainings"].to_dict() == networks
    first, *others = found.index
    means = rows.groupby(["source", "target"])["fooled"]
    rows = rows.assign(part=(rows["fooled"] - means.transform("mean")) / means.transform("size"))
    pairs = rows[["source", "target"]].drop_duplicates()
    images = [pairs.merge(its, how="left").fillna({"part": 0}) for _, its in rows.groupby("image")]
    by_image = pd.DataFrame([values_of(folded(its, "part")) for its in images])
    without = {
        name: values_of(folded(rows[rows["source"].ne(name) & rows["target"].ne(name)], "fooled"))
        for name in names
    }
    for other in others:
        n, parts = len(images), by_image[other] - by_image[first]
        variances, degrees = [n / (n - 1) * np.square(parts).sum()], [n - 1]
        for network, count in networks.items():
            left = [its[other] - its[first] for name, its in without.items() if name[0] == network]
            variances.append((count - 1) ** 2 / count * np.var(left, ddof=1))
            degrees.append(count - 1)
        total, difference = sum(variances), values[other] - values[first]
        freedom = total**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
        p = 3 * 2 * student.sf(abs(difference) / np.sqrt(total), freedom)  # of three pairs
        half = student.ppf(1 - 0.025 / 3, freedom) * np.sqrt(total)
        columns = ["difference", "difference_low", "difference_high", "degrees", "p"]
        wanted = [difference, difference - half, difference + half, freedom, min(p, 1)]
        assert found.loc[other, columns].tolist() == pytest.approx(wanted)


def test_below_three_trainings_there_is_no_test_of_networks():
    found, _ = made_up({"a": 2, "b": 3, "c": 3}, ["t0", "u0"], 40)
    tested = found["p"].notna()
    assert not tested["a"] and tested.sum() == 1
    assert made_up({"b": 3, "c": 3}, ["t0", "u0"], 20)[0]["p"].isna().all()  # of 20 images
