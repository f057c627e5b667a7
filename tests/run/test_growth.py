"""Jobs that grow: what earlier jobs computed is taken over, whatever their images and budgets."""

from functools import partial

import numpy as np
import pytest
import torch

from src.attacks import fgsm, mi, pgd
from tests.job_context import TRAINER, run_modules

SMALL, LARGE = (2.0, 16.0), (2.0, 5.0, 16.0)
FULL = {"tables": ["all"], "bisection": 2}


def noisy(images, random):
    """A defence that draws."""
    return (images + random.uniform(*images.shape[1:], low=-0.2, high=0.2).to(images)).clamp(0, 1)


def table_of(result, name):
    frame = result.tables[name].to_pandas()
    keys = ["target", "defence", "eps_255", "band", "kind", "cutoff", "index"]
    return frame.sort_values([key for key in keys if key in frame], ignore_index=True)


def same(grown, whole):
    """Compare all tables: classes are equal, other numbers up to rounding."""
    assert grown.tables.keys() == whole.tables.keys()
    for name in whole.tables:
        one, two = table_of(grown, name), table_of(whole, name)
        assert list(one) == list(two) and len(one) == len(two), name
        for column, wanted in two.items():
            if isinstance(wanted.iloc[0], str):
                assert (one[column] == wanted).all(), (name, column)
                continue
            values = [
                np.stack(part) if part.dtype == object else part for part in (one[column], wanted)
            ]
            np.testing.assert_allclose(*values, rtol=0, atol=1e-6, err_msg=f"{name} {column}")


@pytest.mark.parametrize(
    ("attack", "taken"),  # gradients by number of budgets
    [
        (fgsm, {1: 1, 2: 1, 3: 1}),
        pytest.param(partial(mi, steps=3), {1: 3, 2: 5, 3: 7}, marks=pytest.mark.slow),
        pytest.param(partial(pgd, steps=2), {1: 2, 2: 4, 3: 6}, marks=pytest.mark.slow),
    ],
)
def test_more_images_and_budgets_attack_only_what_is_new(
    dataset, networks, tmp_path, attack, taken
):
    words = {"reference": 16.0}
    words |= {"diagnostics": FULL, "variants": ["uint8"], "defences": {"noisy": noisy}}
    words["trainer"] = TRAINER.model_copy(update={"batch_size": 3})

    def run(images, budgets, cache=tmp_path):
        about = {"gradients": taken[len(budgets)], "mixes": False}
        return run_modules(images, networks, attack, budgets, cache=cache, about=about, **words)

    assert run(dataset.subset(6), SMALL).results.gradients == 6 * taken[2]
    grown, whole = run(dataset, LARGE), run(dataset, LARGE, None)
    assert grown.results.gradients == 6 * taken[1] + 5 * taken[3]
    assert whole.results.gradients == 11 * taken[3]
    assert set(grown.tables["float32"]["gradients"].to_pylist()) == {float(taken[3])}
    same(grown, whole)
    assert run(dataset.subset(4), SMALL[1:]).results.gradients == 0
    same(run(dataset.subset(4), SMALL), run(dataset.subset(4), SMALL, None))


def of_its_batch(model, images, labels, eps):
    """An attack that does not keep images apart, and has no keyword `seeds`."""
    shift = (images.mean() - images.mean(dim=(1, 2, 3), keepdim=True)).sign()
    return (images + shift * eps.view(-1, 1, 1, 1, 1)).clamp(0, 1)


def test_an_attack_that_mixes_a_batch_is_run_again_for_other_batches(dataset, networks, tmp_path):
    words = {"about": {"gradients": 1, "mixes": False}}

    def run(cache, **trainer):
        settings = TRAINER.model_copy(update=trainer)
        return run_modules(dataset, networks, of_its_batch, trainer=settings, cache=cache, **words)

    run(tmp_path)
    for trainer in ({"gradients_per_batch": 3}, {"batch_size": 3}, {"gradient_batch": 2}):
        same(run(tmp_path, **trainer), run(None, **trainer))


def test_images_are_told_by_pixels_and_labels(dataset, networks, tmp_path):
    """Another set has other images under the same numbers, or other labels of the same ones."""
    changed = dataset[:]
    pixels, labels = changed.images.permute(0, 2, 3, 1).numpy().copy(), dataset.labels.copy()
    pixels[3] = 255 - pixels[3]
    labels[7] = (labels[7] + 1) % 3
    other = type(dataset)(type(dataset._data)(pixels, labels, ("x", "y", "z")))
    words = {"about": {"mixes": False}}
    run_modules(dataset, networks, cache=tmp_path, **words)
    found = run_modules(other, networks, cache=tmp_path, **words)
    assert found.results.gradients == 2
    same(found, run_modules(other, networks, **words))


@pytest.mark.parametrize("controls", [False, True])
def test_what_depends_on_the_set_is_computed_anew_and_no_more(
    dataset, networks, tmp_path, controls
):
    words = {"about": {"mixes": False}, "controls": controls}
    run_modules(dataset.subset(6), networks, cache=tmp_path, **words)
    grown = run_modules(dataset, networks, cache=tmp_path, **words)
    assert grown.results.gradients == 5  # the others' images are stored
    same(grown, run_modules(dataset, networks, **words))


def test_attacks_that_draw_by_the_batch_attack_all_again(dataset, networks, tmp_path):
    def drawing(model, images, labels, eps):
        return fgsm(model, (images + torch.rand_like(images) / 99).clamp(0, 1), labels, eps)

    def run(images, budgets=SMALL, cache=tmp_path):
        return run_modules(images, networks, drawing, budgets, cache=cache)

    assert run(dataset.subset(6)).results.gradients == 6
    assert run(dataset).results.gradients == 11
    assert run(dataset).results.gradients == 0
    grown = run(dataset, LARGE)
    assert grown.results.gradients == 11
    same(grown, run(dataset, LARGE, None))
