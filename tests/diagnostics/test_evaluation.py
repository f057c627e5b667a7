"""Diagnostics inside the pass: they change no prediction, and work wherever an attack does."""

from functools import partial

import numpy as np
import pytest
import torch

from src.attacks import fgsm, pgd
from src.config.settings import DiagnosticSettings, TrainerSettings
from src.diagnostics import make_diagnostics
from src.evaluation import Attacker, CleanImages, Transfer, Variants, evaluate

TABLES = ["flips", "spectra", "filtered", "low_passed", "similarity"]
TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)
GRID = (0.5, 2.0, 8.0)
FULL = DiagnosticSettings(bisection=1, spectra=True, filters=True, similarity=True)


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
    assert (plain.gradients, plain.diagnostics) == (full.gradients, {})
    assert plain.zero_gradients == full.zero_gradients
    assert list(full.diagnostics) == TABLES
    assert len(full.diagnostics["flips"]) > 0  # attacks were run in between


def test_batches_do_not_matter(images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    arguments = (dataset, networks["a"], networks, partial(pgd, steps=2), GRID)
    runs = [diagnosed(*arguments, trainer={"batch_size": size}) for size in (2, 11)]
    for name in TABLES:
        first, second = (getattr(run, name) for run in runs)
        for column in first.columns.difference(["top5_classes", "top5_confidences"]):
            if first[column].dtype.kind == "f":
                np.testing.assert_allclose(first[column], second[column], atol=1e-4, err_msg=name)
            else:
                assert first[column].tolist() == second[column].tolist()


def test_a_second_pass_forgets_the_first(images, linear):
    networks, dataset = {"a": linear(0)}, images()
    source = Attacker(networks["a"], fgsm, GRID, num_classes=3)
    module = Transfer(networks, source, diagnostics=make_diagnostics(FULL, ["a"], 8.0))
    first, second = (evaluate(dataset, module, TRAINER, "test") for _ in range(2))
    assert second.gradients == first.gradients
    for name, table in (first.tables | first.diagnostics).items():
        assert (second.tables | second.diagnostics)[name].equals(table)


def test_diagnostics_need_an_attack_and_its_unrounded_images(images, linear):
    model = linear(0)
    diagnostics = make_diagnostics(FULL, ["a"], 8.0)
    attacker = Attacker(model, fgsm, GRID, num_classes=3)
    for source, variants in ((CleanImages(), Variants()), (attacker, Variants(primary="uint8"))):
        with pytest.raises(ValueError, match="diagnostics"):
            Transfer({"a": model}, source, variants, diagnostics=diagnostics)
