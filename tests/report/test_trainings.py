"""Trainings of one network in tables, rankings and beside published ones, by plain pandas."""

import csv
import io
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from src.artifacts.jobs import find_jobs, name_jobs
from src.report.named_tables import table
from src.report.results import results_of
from src.report.source_choice import choose_source, source_tables
from tests.conftest import REPOSITORY
from tests.records import JOBS, jobs_of_frame, predictions_of, results_of_frame
from tests.report.conftest import make_sweep

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


@pytest.fixture
def frame(make_sweep):
    """Random predictions of seven models, of which three and three are trainings of one network."""
    return made_up(make_sweep, NETWORKS, "mi")


def rates_of(frame):
    """Return the success rate of each pair on the images that both classify correctly."""
    frame = frame[frame["defence"].eq("none") & frame["variant"].eq("float32")]
    rows = []
    for (source, target), its in frame.groupby(["source", "target"], observed=True):
        clean = frame[(frame["source"] == source) & (frame["eps_255"] == 0)]
        right = clean[clean["predicted"] == clean["label"]]
        images = [{*right.loc[right["target"] == name, "index"]} for name in (source, target)]
        attacked = its[(its["eps_255"] == 8) & its["index"].isin(set.intersection(*images))]
        if len(attacked):
            rows.append((source, target, (attacked["predicted"] != attacked["label"]).mean()))
    return pd.DataFrame(rows, columns=["source", "target", "rate"])


def cells_of(rows):
    """Return mean, least and most by source network and target network."""
    one, other = rows["source"].map(NETWORKS), rows["target"].map(NETWORKS)
    another = (one == other) & (rows["source"] != rows["target"])
    rows = rows.assign(one=one, other=other.mask(another, "another training"))
    by_training = rows.groupby(["one", "other", "source"])["rate"].mean()
    ends = rows.groupby(["one", "other"])["rate"].agg(["min", "max", "size"])
    mean = by_training.groupby(["one", "other"]).mean().rename("mean")
    return ends.join(mean).drop(("net", "net"), errors="ignore"), mean


@pytest.mark.parametrize("missing", [False, True])
def test_rows_and_columns_are_networks_with_the_range_of_their_trainings(frame, missing):
    if missing:
        lacking = (frame["source"] == "net") & (frame["target"] == "vgg_seed1")
        frame = frame[~lacking].copy()
    expected, mean = cells_of(rates_of(frame))
    results = results_of_frame(frame)
    text = table(results, networks=True, to="csv")
    for row in csv.DictReader(io.StringIO(text)):
        source, others = row["source"], []
        for target in ("net", "vgg", "vit", "another training"):
            if not row[target]:
                assert source == "vit" and target == "another training"
                continue
            least, most, count = expected.reindex([(source, target)])[["min", "max", "size"]].iloc[
                0
            ]
            assert float(row[target]) == pytest.approx(mean[source, target])
            ends = [row[f"{target} low"], row[f"{target} high"]]
            if count > 1:
                assert [*map(float, ends)] == pytest.approx([least, most])
            others += [mean[source, target]] * (target not in (source, "another training"))
        assert float(row["average"]) == pytest.approx(np.mean(others))
    rows = results.frame.query("source != 'mean' and target != 'mean' and eps_255 == 8")
    kinds = rows.set_index(["source", "target"])["relation"]
    for (source, target), kind in kinds.items():
        same = NETWORKS[source] == NETWORKS[target]
        others = "another training" if same else "transfer"
        assert kind == ("white box" if source == target else others)


def test_no_ranking_has_another_training_as_a_target(frame):
    results = results_of_frame(frame)
    rates = rates_of(frame)
    differ = rates["source"].map(NETWORKS) != rates["target"].map(NETWORKS)
    mean = rates[differ].groupby("target")["rate"].mean().mean()
    assert results.rankings["mean"].iloc[0] == pytest.approx(mean)


def test_sources_are_of_these_trainings_and_networks_of_new_ones(frame):
    ranking, _, networks = source_tables(choose_source([results_of_frame(frame)]))
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
        made = partial(make_sweep, tmp_path / str(seed), full=False, **changed)
        frame = made_up(made, dict.fromkeys("abcd", "net"), "mi", seed=0)
        for job in frame.attrs[JOBS]:
            job["weights"] = {name: f"{name} {seed}" for name in "abcd"}
            job["config"]["training"] = {"seed": seed}
        frames.append(frame)
        rates.append(rates_of(frame))
    results = results_of(name_jobs([job for frame in frames for job in jobs_of_frame(frame)]))
    means = pd.concat(rates).groupby(["source", "target"])["rate"].agg(["mean", "min", "max"])
    text = table(results, networks=True, to="csv")
    for row in csv.DictReader(io.StringIO(text)):
        assert row["attack"] == "mi"
        for target in "abcd":
            found = [float(row[f"{target}{end}"]) for end in ("", " low", " high")]
            assert found == pytest.approx(means.loc[(row["source"], target)].tolist())
    networks = choose_source([results]).networks
    assert sorted(networks["source"]) == [*"abcd"] and networks["trainings"].eq(3).all()
    assert networks["p"].notna().tolist() == [False, True, True, True]


def test_the_verdict_on_a_published_study_is_its_prediction_interval(make_sweep):
    networks = {"resnet18": "resnet18", "resnet18_seed1": "resnet18", "vgg16": "vgg16"}
    facts = {"values": 3 * 32 * 32, "dataset": "cifar10"}
    frame = made_up(make_sweep, networks, "fgsm", **facts)
    counts = pd.read_csv(REPOSITORY / "src" / "assets" / "transferlab.csv")
    counts = counts.query("eps_255 == 8 and attack == 'fgsm'")
    counts = counts.assign(rate=counts["fooled"] / counts["joint"])
    for folds in (True, False):
        text = table(results_of_frame(frame), networks=folds, published=True, to="csv")
        rows = [*csv.DictReader(io.StringIO(text))]
        for ours, theirs in pairwise(rows):
            if "transferlab" not in theirs["attack"] or "transferlab" in ours["attack"]:
                continue
            source = ours["source"]
            target = "vgg16" if networks[source] == "resnet18" else "resnet18"
            its = counts[counts["source"].eq(networks[source]) & counts["target"].eq(target)][
                "rate"
            ]
            trainings = 2 if folds and source == "resnet18" else 1
            half = student.ppf(0.975, 2) * its.std() * np.sqrt(1 / 3 + 1 / trainings)
            place = "inside" if abs(float(ours[target]) - its.mean()) <= half else "outside"
            ends = [100 * (its.mean() + sign * half) for sign in (-1, 1)]
            text = f"{place} {ends[0]:.1f} to {ends[1]:.1f}, {200 * half:.1f} wide"
            assert theirs[f"{target} verdict"] == text
            assert float(theirs[target]) == pytest.approx(its.mean())
        assert sum("transferlab" in row["attack"] for row in rows) == 2 + (not folds)
