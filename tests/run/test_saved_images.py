"""Saved images as a source of adversarial images, and by how much they change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from src.config.attack_settings import AttackSettings
from src.data import Batch, LabelledImages
from src.images.saved import Breach, SavedImages, SavedImagesSource

INDEX, LABELS, TARGETS = np.array([3, 5, 8, 17, 40]), np.array([1, 2, 0, 0, 1]), np.arange(5) % 3
BUDGETS = (0.5, 2.0, 8.0)


def images():
    """Clean images, and for each budget adversarial ones that use all of it, (5, K, 3, 5, 5)."""
    random = np.random.default_rng(0)
    clean = random.integers(20, 236, (5, 3, 5, 5), dtype=np.uint8)
    signs = random.choice([-1, 1], clean.shape)
    adversarial = [(clean + int(eps) * signs).astype(np.uint8) for eps in BUDGETS]
    return torch.from_numpy(clean), torch.from_numpy(np.stack(adversarial, axis=1))


def saved(norm="linf", **changes):
    clean, adversarial = images()
    own = {
        "source": "a",
        "attack": AttackSettings(name="bim", label="bim", norm=norm),
        "budgets_255": BUDGETS,
        "dataset": "x",
        "index": INDEX,
        "clean": LabelledImages(clean, LABELS, None, TARGETS),
        "read": adversarial.__getitem__,
    }
    return SavedImages(**own | changes)


def test_a_set_is_a_source_of_adversarial_images():
    clean, adversarial = images()
    source = SavedImagesSource(saved())
    rows = [3, 0]
    batch = Batch(clean[rows], torch.from_numpy(LABELS[rows]), torch.from_numpy(INDEX[rows]))
    found = source(batch.images / 255, batch, BUDGETS)
    assert found.budgets == BUDGETS and found.target_labels.tolist() == TARGETS[rows].tolist()
    assert torch.equal(found.images, adversarial[rows].swapaxes(0, 1) / 255)
    (one,) = source(batch.images / 255, batch, BUDGETS[1:2]).images
    assert torch.equal(one, found.images[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budgets_that_images_exceed_are_measured(norm):
    assert saved(norm).breaches == ()
    assert saved(norm, budgets_255=(0.5, 1.0, 8.0)).breaches == (Breach(1.0, 2.0, 5),)


def test_the_digest_is_of_all_that_decides_numbers():
    first, (_, adversarial) = saved(), images()
    others = [
        saved(read=adversarial.flip(0).__getitem__),
        saved(source="b"),
        saved(index=INDEX + 1),
        saved(clean=replace(first.clean, target_labels=None)),
    ]
    assert saved().digest == first.digest
    assert len({each.digest for each in [first, *others]}) == 5
