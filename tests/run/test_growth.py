"""Jobs that grow: what earlier jobs computed is taken over, whatever their images and budgets."""

from functools import partial

import numpy as np
import pytest
import torch

from src.attacks import fgsm, mi, pgd, torchattacks
from src.config.attack_settings import AttackSettings
from src.data import ImageDataset
from tests.job_context import TRAINER, run_modules

BUDGETS = (2.0, 5.0, 16.0)
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


def chosen(dataset, n_images):
    """Return the first images of a data set in the dealt order, as `n_images` chooses them."""
    return ImageDataset(dataset._data, n_images=n_images)


STEPS = {
    "images": {"n_images": 11},
    "budgets": {"budgets": BUDGETS},
    "targets": {"targets": "ab"},
    "variants": {"variants": ["uint8"]},
    "controls": {"controls": True},
    "defences": {"defences": {"noisy": noisy}},
    "diagnostics": {"diagnostics": FULL},
}


@pytest.mark.parametrize(
    ("attack", "stated", "first", "early"),  # `stated`: gradients by number of budgets
    [
        (fgsm, [0, 1, 1, 1], 6, ()),
        (fgsm, [0, 1, 1, 1], 7, ("controls", "diagnostics")),
        pytest.param(partial(mi, steps=3), [0, 3, 5, 7], 7, (), marks=pytest.mark.slow),
        pytest.param(partial(pgd, steps=2), [0, 2, 4, 6], 6, (), marks=pytest.mark.slow),
    ],
)
def test_what_is_added_one_by_one_gives_the_tables_of_all_at_once(
    dataset, networks, tmp_path, monkeypatch, attack, stated, first, early
):
    """Images, budgets, targets, variants, controls, defences and diagnostics."""
    trainer = TRAINER.model_copy(update={"batch_size": 4})
    monkeypatch.setattr(AttackSettings, "gradients", lambda self, budgets, _: stated[budgets])

    def run(n_images, budgets, targets, cache=tmp_path, **words):
        images, models = chosen(dataset, n_images), {name: networks[name] for name in targets}
        words |= {"about": {"mixes": False}, "reference": 16.0, "trainer": trainer}
        return run_modules(images, models, attack, budgets, cache=cache, **words)

    words = {"n_images": first, "budgets": BUDGETS[::2], "targets": "a"}
    words |= {key: value for name in early for key, value in STEPS[name].items()}
    computed = [run(**words).results.gradients]
    for step in STEPS.values():
        words |= step
        grown = run(**words)
        computed.append(grown.results.gradients)
        whole = run(**words, cache=None)
        same(grown, whole)
    new = [first * stated[2], (11 - first) * stated[2], 11 * stated[1]]
    assert computed == [*new, 0, 0, 0, 0, 0]
    smaller = {**words, "n_images": 4, "budgets": BUDGETS[2:]}
    grown = run(**smaller)
    same(grown, run(**smaller, cache=None))


def of_its_batch(model, images, labels, eps):
    """An attack that does not keep images apart, and has no keyword `seeds`."""
    shift = (images.mean() - images.mean(dim=(1, 2, 3), keepdim=True)).sign()
    return (images + shift * eps.view(-1, 1, 1, 1, 1)).clamp(0, 1)


def drawing(model, images, labels, eps):
    return fgsm(model, (images + torch.rand_like(images) / 99).clamp(0, 1), labels, eps)


def of_another_library(*arguments):
    pytest.importorskip("torchattacks")
    return partial(torchattacks.PGD, steps=2)(*arguments)


@pytest.mark.parametrize("attack", [of_its_batch, drawing, of_another_library])
def test_an_attack_that_depends_on_its_batch_attacks_all_again(dataset, networks, tmp_path, attack):
    def run(n_images=11, budgets=BUDGETS[:2], cache=tmp_path, **trainer):
        settings = TRAINER.model_copy(update=trainer)
        images = chosen(dataset, n_images)
        return run_modules(
            images, networks, attack, budgets, trainer=settings, cache=cache, controls=True
        )

    run(n_images=6)
    sizes = [{"gradients_per_batch": 3}, {"batch_size": 2}, {"gradient_batch": 2}]
    for changed in ({}, {"budgets": BUDGETS}, *sizes):
        same(run(**changed), run(**changed, cache=None))
    assert run().results.gradients == 0


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
