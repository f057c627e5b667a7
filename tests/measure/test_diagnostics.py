"""Diagnostics inside the pass: they change no prediction, and work wherever an attack does."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.attacks import fgsm, pgd
from src.cache.rows import Rows
from src.config.settings import DiagnosticSettings, TrainerSettings
from src.images.variants import Variants
from src.run.stages import Job
from src.run.unattacked import unattacked_tables
from src.utils.defended_names import PLAIN, Evaluated

TABLES = ["flips", "spectra", "filtered", "stealth", "low_passed", "similarity"]
TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)
GRID = (0.5, 2.0, 8.0)
FULL = DiagnosticSettings(bisection=1, spectra=True, filters=True, similarity=True, stealth=True)


@pytest.mark.parametrize("primary", ["float32", "uint8"])
def test_predictions_stay_the_same_to_the_last_bit(primary, images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    variants = Variants(primary=primary, others=("float32",), controls=True)
    results = []
    for only in ({}, None):
        torch.manual_seed(5)
        np.random.seed(5)
        arguments = (dataset, networks["a"], networks, partial(pgd, steps=2), GRID)
        results.append(diagnosed(*arguments, only=only, variants=variants).result)
    plain, full = results
    for name, table in plain.tables.items():
        assert full.tables[name].equals(table)
    assert list(plain.tables) == [*variants.names, "crafting"]
    assert set(full.tables) - set(plain.tables) == set(TABLES[:4])
    assert len(full.tables["flips"]) > 0  # attacks were run in between


def assert_close(first, second, name):
    for column in first.columns.difference(["top5_classes", "top5_confidences"]):
        if first[column].dtype.kind == "f":
            np.testing.assert_allclose(first[column], second[column], atol=1e-4, err_msg=name)
        else:
            assert first[column].tolist() == second[column].tolist()


@pytest.mark.parametrize("attack", [fgsm, partial(pgd, steps=2)])
def test_batches_do_not_matter(attack, images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    arguments = (dataset, networks["a"], networks, attack, GRID)
    runs = [diagnosed(*arguments, batch_size=size) for size in (2, 11)]
    for name in TABLES:
        first, second = (getattr(run, name) for run in runs)
        assert_close(first, second, name)


def test_a_part_of_the_images_has_the_rows_that_it_has_among_all(images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    arguments = (dataset, networks["a"], networks, partial(pgd, steps=2), GRID)
    words = {"variants": Variants(controls=True), "batch_size": 2}
    every = FULL.model_dump()
    whole, part = (diagnosed(*arguments, only=every | {"n_images": n}, **words) for n in (99, 3))
    chosen = dataset.subset(3).indices.tolist()  # of six batches: some have none
    assert len(chosen) == 3
    for name in whole.result.tables.keys() - set(TABLES):
        assert part.result.tables[name].equals(whole.result.tables[name])
    assert (part.spectra["n"] == 3).all() and (whole.spectra["n"] == 11).all()
    for name in set(TABLES) - {"spectra"}:
        first, second = (getattr(run, name) for run in (whole, part))
        first = first[first["index"].isin(chosen)].reset_index(drop=True)
        assert len(second) > 0 and set(second["index"]) <= set(chosen), name
        assert_close(first, second, name)


class Watched(torch.nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, images):
        self.seen += len(images)
        return self.network(images)


def test_what_needs_no_attack_is_computed_once(images, curved, tmp_path):
    networks = {name: Watched(curved(seed)) for seed, name in enumerate("abc")}
    models = {n: SimpleNamespace(classifier=one, key=n) for n, one in networks.items()}

    def tables(source):
        settings = SimpleNamespace(
            **{"diagnostics": FULL, "trainer": TRAINER, "seed": 0, "reference": 8.0},
            **{
                "source": (source,),
                "source_name": source,
                "targets": tuple(networks),
                "cache_dir": str(tmp_path),
            },
            **{
                "evaluated": tuple(map(Evaluated, networks)),
                "source_defence": PLAIN,
                "rerun": False,
            },
        )
        return unattacked_tables(
            Job(
                settings=settings,
                images=images(),
                diagnosed=images(),
                models=models,
                device="cpu",
                rows=Rows(tmp_path / "rows"),
                defences={},
            )
        )

    first, other = tables("a"), tables("b")
    bands, cutoffs, gradients = 4, 5, 1
    assert [one.seen for one in networks.values()] == [11 * (bands + cutoffs + gradients)] * 3
    assert all(first[name].equals(other[name]) for name in ("filtered", "low_passed"))
    of_a, of_b = (each["similarity"].to_pandas() for each in (first, other))
    pair = of_a[of_a["target"] == "b"], of_b[of_b["target"] == "a"]
    assert pair[0]["cosine"].tolist() == pair[1]["cosine"].tolist()
