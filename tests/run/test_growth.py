"""Jobs that grow: what earlier jobs computed is taken over, whatever their images and budgets."""

from functools import partial

import pandas as pd

from src.attacks import pgd
from src.config.attack_settings import AttackSettings
from src.data import ImageDataset
from tests.job_context import TRAINER, run_modules
from tests.own_measurement import OWN

BUDGETS = (2.0, 5.0, 16.0)
KEYS = ["target", "defence", "eps_255", "band", "kind", "cutoff", "index"]


def noisy(images, random):
    """A defence that draws."""
    return (images + random.uniform(*images.shape[1:], low=-0.2, high=0.2).to(images)).clamp(0, 1)


def same(grown, whole):
    """Compare all tables: classes are equal, other numbers up to rounding."""
    assert grown.tables.keys() == whole.tables.keys()
    for name in whole.tables:
        frames = [run.tables[name].to_pandas() for run in (grown, whole)]
        keys = [key for key in KEYS if key in frames[1]]
        one, two = (frame.sort_values(keys, ignore_index=True) for frame in frames)
        pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6, obj=name)


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
    "diagnostics": {"diagnostics": {"tables": ["all"]}, "measurements": OWN},
}


def test_what_is_added_one_by_one_gives_the_tables_of_all_at_once(
    dataset, networks, tmp_path, monkeypatch
):
    """Images, budgets, targets, variants, controls, defences and diagnostics, in other batches."""
    stated = [0, 2, 4, 6]  # gradients by number of budgets
    monkeypatch.setattr(AttackSettings, "gradients", lambda self, budgets, _: stated[budgets])

    def run(n_images, budgets, targets, cache=tmp_path, **words):
        images, models = chosen(dataset, n_images), {name: networks[name] for name in targets}
        words |= {"about": {"mixes": False}, "reference": 16.0}
        return run_modules(images, models, partial(pgd, steps=2), budgets, cache=cache, **words)

    words = {"n_images": 7, "budgets": BUDGETS[::2], "targets": "a"}
    words |= STEPS["controls"] | STEPS["diagnostics"]
    computed = [run(**words).results.gradients]
    for step in STEPS.values():
        words |= step
        grown = run(**words)
        computed.append(grown.results.gradients)
        same(grown, run(**words, cache=None))
    assert computed == [7 * 4, (11 - 7) * 4, 11 * 2, 0, 0, 0, 0, 0]
    smaller = {**words, "n_images": 4, "budgets": BUDGETS[2:]}
    trainer = TRAINER.model_copy(update={"batch_size": 3})
    same(run(**smaller), run(**smaller, cache=None, trainer=trainer))


def of_its_batch(model, images, labels, eps):
    """An attack that does not keep images apart, and has no keyword `seeds`."""
    shift = (images.mean() - images.mean(dim=(1, 2, 3), keepdim=True)).sign()
    return (images + shift * eps.view(-1, 1, 1, 1, 1)).clamp(0, 1)


def test_an_attack_that_depends_on_its_batch_attacks_all_again(dataset, networks, tmp_path):
    def run(n_images=11, budgets=BUDGETS[:2], cache=tmp_path, **trainer):
        words = {"trainer": TRAINER.model_copy(update=trainer), "cache": cache, "controls": True}
        return run_modules(chosen(dataset, n_images), networks, of_its_batch, budgets, **words)

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
