"""Trainings of one network in tables and rankings, by plain pandas."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from src.artifacts.jobs import find_jobs, name_jobs
from src.report.named_tables import table
from src.report.results import results_of
from src.report.source_choice import choose_source, source_tables
from tests.records import JOBS, jobs_of_frame, predictions_of, results_of_frame
from tests.report.conftest import make_sweep as write_sweep
from tests.report.frames import rows_of

MODELS = ("net", "net_seed1", "other", "vgg", "vgg_seed1", "vgg_seed2", "vit")
NETWORKS = {name: name.partition("_")[0] for name in MODELS} | {"other": "net"}
"""The file of `other` states `training_of: net`."""


def made_up(make_sweep, networks, attack, **facts):
    """Return random predictions of models, which are trainings of these networks."""
    names = tuple(networks)
    folder = make_sweep(models=names, attacks=(attack,), images=60, budgets=(8.0,))
    frame = predictions_of(results_of(find_jobs([folder])))
    for job in frame.attrs[JOBS]:
        job |= facts
        job["config"]["model"] = {name: {"network": {"name": networks[name]}} for name in names}
        if "other" in names:
            job["config"]["model"]["other"]["training_of"] = "net"
    return frame


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """Random predictions of seven models, of which three and three are trainings of one network."""
    make = partial(write_sweep, tmp_path_factory.mktemp("trainings") / "sweep", full=False)
    return made_up(make, NETWORKS, "mi")


@pytest.fixture(scope="module")
def results(frame):
    return results_of_frame(frame)


def rates_of(frame):
    """Return the success rate of each pair on the images that both classify correctly."""
    rows = []
    for (source, target), its in frame.groupby(["source", "target"], observed=True):
        clean = frame[(frame["source"] == source) & (frame["eps_255"] == 0)]
        right = clean[clean["predicted"] == clean["label"]]
        images = [{*right.loc[right["target"] == name, "index"]} for name in (source, target)]
        attacked = its[(its["eps_255"] == 8) & its["index"].isin(set.intersection(*images))]
        if len(attacked):
            rows.append((source, target, (attacked["predicted"] != attacked["label"]).mean()))
    return pd.DataFrame(rows, columns=["source", "target", "rate"])


def cells_by_network(rows):
    """Return mean, least and most by source network and target network."""
    one, other = rows["source"].map(NETWORKS), rows["target"].map(NETWORKS)
    another = (one == other) & (rows["source"] != rows["target"])
    rows = rows.assign(one=one, other=other.mask(another, "another training"))
    by_training = rows.groupby(["one", "other", "source"])["rate"].mean()
    ends = rows.groupby(["one", "other"])["rate"].agg(["min", "max", "size"])
    return ends.join(by_training.groupby(["one", "other"]).mean().rename("mean"))


@pytest.mark.parametrize("missing", [False, True])
def test_rows_and_columns_are_networks_with_the_range_of_their_trainings(frame, results, missing):
    if missing:
        lacking = (frame["source"] == "net") & (frame["target"] == "vgg_seed1")
        frame = frame[~lacking].copy()
        results = results_of_frame(frame)
    expected = cells_by_network(rates_of(frame))
    for row in rows_of(table(results, networks=True, to="csv")):
        source, others = row["source"], []
        for target in ("net", "vgg", "vit", "another training"):
            if not row[target]:
                assert source == "vit" and target == "another training"
                continue
            cell = expected.loc[(source, target)]
            assert float(row[target]) == pytest.approx(cell["mean"])
            if cell["size"] > 1 and target != source:
                ends = [float(row[f"{target} {end}"]) for end in ("low", "high")]
                assert ends == pytest.approx(cell[["min", "max"]].tolist())
            others += [cell["mean"]] * (target not in (source, "another training"))
        assert float(row["average"]) == pytest.approx(np.mean(others))
    rows = results.frame.query("source != 'mean' and target != 'mean' and eps_255 == 8")
    kinds = rows.set_index(["source", "target"])["relation"]
    for (source, target), kind in kinds.items():
        same = NETWORKS[source] == NETWORKS[target]
        others = "another training" if same else "transfer"
        assert kind == ("white box" if source == target else others)


def test_no_ranking_has_another_training_as_a_target(frame, results):
    rates = rates_of(frame)
    differ = rates["source"].map(NETWORKS) != rates["target"].map(NETWORKS)
    mean = rates[differ].groupby("target")["rate"].mean().mean()
    assert results.rankings["mean"].iloc[0] == pytest.approx(mean)


def test_sources_are_of_these_trainings_and_networks_of_new_ones(results):
    ranking, _, networks = source_tables(choose_source([results]))
    assert "these trainings" in ranking.caption
    names, trainings, _, differences = zip(*networks.texts, strict=True)
    assert dict(zip(names, trainings, strict=True)) == {"net": "3", "vgg": "3", "vit": "1"}
    tested = {"net", "vgg"} if names[0] != "vit" else set()
    rows = zip(names[1:], differences[1:], strict=True)
    assert {name for name, text in rows if text} == tested - {names[0]}


def test_a_sweep_over_the_seed_of_trainings_is_one_ranking_of_networks(tmp_path):
    """Networks of one seed attack each other: two networks have three pairs of trainings."""
    frames, rates = [], []
    for seed in range(3):
        changed = {"overrides": (f"training.seed={seed}",), "seed": seed}
        made = partial(write_sweep, tmp_path / str(seed), full=False, **changed)
        frame = made_up(made, dict.fromkeys("abcd", "net"), "mi", seed=0)
        for job in frame.attrs[JOBS]:
            job["weights"] = {name: f"{name} {seed}" for name in "abcd"}
            job["config"]["training"] = {"seed": seed}
        frames.append(frame)
        rates.append(rates_of(frame))
    results = results_of(name_jobs([job for frame in frames for job in jobs_of_frame(frame)]))
    means = pd.concat(rates).groupby(["source", "target"])["rate"].agg(["mean", "min", "max"])
    for row in rows_of(table(results, networks=True, to="csv")):
        assert row["attack"] == "mi"
        for target in "abcd":
            found = [float(row[f"{target}{end}"]) for end in ("", " low", " high")]
            assert found == pytest.approx(means.loc[(row["source"], target)].tolist())
    networks = choose_source([results]).networks
    assert sorted(networks["source"]) == [*"abcd"] and networks["trainings"].eq(3).all()
    assert networks["p"].notna().tolist() == [False, True, True, True]
