"""Networks compared over trainings and images: plain pandas, least squares and loops."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from src.analysis.trainings import compare_networks


def made_up(networks, targets, images, seed=0, missing=()):
    """Return random outcomes of trainings by number, such as a0, as arrays and as rows."""
    random = np.random.default_rng(seed)
    sources = [f"{name}{number}" for name, count in networks.items() for number in range(count)]
    names = {name: name[0] for name in (*sources, *targets)}
    pairs = [its for its in product(sources, targets) if names[its[0]] != names[its[1]]]
    pairs = [its for its in pairs if its not in missing]
    easy, shift = random.random(images), {name: random.uniform(-0.1, 0.1) for name in names}
    counted = pd.DataFrame(random.random((len(targets), images)) < 0.9, targets)
    rows = pd.DataFrame(
        [
            (*pair, image, float(random.random() < 0.8 * easy[image] + shift[pair[0]]))
            for pair in pairs
            for image in range(images)
            if counted.loc[pair[1], image]
        ],
        columns=["source", "target", "image", "fooled"],
    )
    fooled = np.zeros((len(sources), len(targets), images))
    there = np.zeros(fooled.shape[:2], bool)
    for row in rows.itertuples():
        place = sources.index(row.source), targets.index(row.target)
        fooled[(*place, row.image)], there[place] = row.fooled, True
    found = compare_networks(fooled, counted.to_numpy(), there, (sources, targets), names)
    return found.set_index("source"), rows


def folded(rows, column):
    """Return the mean by network and target network: of source trainings, each over targets."""
    means = rows.groupby(["source", "target"], as_index=False)[column].mean()
    means = means.assign(one=means["source"].str[0], other=means["target"].str[0])
    by_training = means.groupby(["one", "other", "source"])[column].mean()
    return by_training.groupby(["one", "other"]).mean()


def values_of(cells):
    """Return source plus target effects by least squares, averaged over targets."""
    design = pd.get_dummies(cells.reset_index()[["one", "other"]]).astype(float)
    sources, targets = (cells.index.unique(level) for level in (0, 1))
    effects = dict(zip(design, np.linalg.lstsq(design, cells, rcond=None)[0], strict=True))
    mean = np.mean([effects[f"other_{name}"] for name in targets])
    return pd.Series({name: effects[f"one_{name}"] + mean for name in sources})


def test_without_roles_as_targets_the_variances_are_those_of_two_means():
    found, rows = made_up({"a": 3, "b": 5}, ["t0", "u0"], 60)
    means = rows.groupby(["source", "target"])["fooled"].mean().unstack().mean(axis=1)
    network = means.groupby(means.index.str[0])
    assert found["mean"].to_dict() == pytest.approx(network.mean().to_dict())
    first, second = found.index
    rates = rows.groupby(["source", "target"])["fooled"].transform("mean")
    n = rows.groupby(["source", "target"])["fooled"].transform("size")
    trainings = rows["source"].str[0].map({"a": 3, "b": -5} if second == "a" else {"a": -3, "b": 5})
    parts = ((rows["fooled"] - rates) / n / 2 / trainings).groupby(rows["image"]).sum()
    images = len(parts)
    variances = [images / (images - 1) * (parts**2).sum(), *network.var(ddof=1) / network.size()]
    total = sum(variances)
    degrees = total**2 / sum(v**2 / d for v, d in zip(variances, [images - 1, 2, 4], strict=True))
    row, difference = found.loc[second], network.mean()[second] - network.mean()[first]
    half = student.ppf(0.975, degrees) * np.sqrt(total)
    assert row[["difference", "degrees"]].tolist() == pytest.approx([difference, degrees])
    ends = row[["difference_low", "difference_high"]].tolist()
    assert ends == pytest.approx([difference - half, difference + half])
    assert row["p"] == pytest.approx(2 * student.sf(abs(difference) / np.sqrt(total), degrees))


@pytest.mark.parametrize("missing", [(), (("a0", "b1"), ("c2", "a1"))])
def test_networks_that_attack_each_other_are_left_out_as_sources_and_as_targets(missing):
    networks = {"a": 3, "b": 4, "c": 3}
    names = [f"{name}{number}" for name, count in networks.items() for number in range(count)]
    found, rows = made_up(networks, [*names, "d0"], 40, missing=missing)
    values = values_of(folded(rows, "fooled"))
    assert found["mean"].to_dict() == pytest.approx(values.to_dict())
    assert found["trainings"].to_dict() == networks
    first, second, third = found.index
    rates = rows.groupby(["source", "target"])["fooled"].transform("mean")
    n = rows.groupby(["source", "target"])["fooled"].transform("size")
    rows = rows.assign(part=(rows["fooled"] - rates) / n)
    for other in (second, third):
        by_image = []
        for _, its in rows.groupby("image"):
            whole = rows[["source", "target"]].drop_duplicates().merge(its, how="left").fillna(0)
            parts = values_of(folded(whole, "part"))
            by_image.append(parts[other] - parts[first])
        images = len(by_image)
        variances = [images / (images - 1) * np.square(by_image).sum()]
        degrees = [images - 1]
        for network, count in networks.items():
            without = []
            for name in (name for name in names if name[0] == network):
                rest = values_of(
                    folded(rows[rows["source"].ne(name) & rows["target"].ne(name)], "fooled")
                )
                without.append(rest[other] - rest[first])
            variances.append((count - 1) ** 2 / count * np.var(without, ddof=1))
            degrees.append(count - 1)
        total = sum(variances)
        freedom = total**2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
        p = 3 * 2 * student.sf(abs(values[other] - values[first]) / np.sqrt(total), freedom)
        assert found.loc[other, "degrees"] == pytest.approx(freedom)
        assert found.loc[other, "p"] == pytest.approx(min(p, 1))


def test_below_three_trainings_there_is_no_test_of_networks():
    found, _ = made_up({"a": 2, "b": 3, "c": 3}, ["t0", "u0"], 40)
    tested = found["p"].notna()
    assert not tested["a"] and tested.sum() == (found.index[0] != "a")
