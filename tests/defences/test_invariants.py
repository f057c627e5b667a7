"""Rules of each defence, so that a new one is tested by being listed in `DEFENCES`."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from src.attacks import PerImageRandom, Philox, image_seeds
from src.defences import (
    AttackedDefence,
    BitDepth,
    Defended,
    Jpeg,
    Median,
    RandomResizePad,
    Smoothing,
)
from src.utils.call_target import call_target
from src.utils.hydra_versions import VERSION_BASE

CONF = Path(__file__).resolve().parents[2] / "conf"
DEFENCES = {
    "bit_depth": BitDepth(bits=3),
    "jpeg": Jpeg(quality=75),
    "median": Median(size=2),
    "random_resize_pad": RandomResizePad(lowest=0.9033),
    "smoothing": Smoothing(sigma=0.25, copies=100, alpha=0.001),
}
RANDOM = {"random_resize_pad", "smoothing"}
INDEX = torch.tensor([5, 2, 9, 4, 11])
IMAGES = torch.rand(5, 3, 24, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DEFENCES)
def test_files_have_the_defaults(name):
    assert {file.stem for file in (CONF / "defence").glob("*.yaml")} == set(DEFENCES)
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        section = dict(compose(f"defence/{name}").defence[name])
    assert section.pop("repeats", None) == (1 if name in RANDOM else None)
    assert call_target(section) == DEFENCES[name] == type(DEFENCES[name])()


@pytest.mark.parametrize("name", DEFENCES)
def test_logits_depend_on_seed_image_and_repetition_alone(name):
    before, defence = IMAGES.clone(), DEFENCES[name]
    target = Defended(nn.Flatten(), defence, repeats=2, seed=7)
    logits = target(IMAGES, INDEX)
    assert logits.shape == (2 if name in RANDOM else 1, 5, 1440)
    assert target.randomised == (name in RANDOM) and torch.equal(IMAGES, before)
    assert torch.equal(target(IMAGES, INDEX).nan_to_num(), logits.nan_to_num())
    parts = [target(IMAGES[rows], INDEX[rows]) for rows in ([3], [1, 0], [4, 2])]
    whole = logits[:, [3, 1, 0, 4, 2]]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-7, equal_nan=True)
    if target.classify is None:
        for number, found in enumerate(logits):
            words = {}
            if name in RANDOM:
                words["random"] = Philox(image_seeds(7, INDEX), IMAGES, 16 + number)
            assert torch.equal(found, defence(IMAGES.clone(), **words).flatten(1))


@pytest.mark.parametrize("name", DEFENCES)
def test_sources_have_finite_gradients_that_differ_only_by_draws(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(1584, 4))
    model, gradients = AttackedDefence(network, DEFENCES[name]), []
    random = PerImageRandom(INDEX, IMAGES, INDEX, (IMAGES, INDEX))
    model.draw(random, 1)
    assert random.count == (name in RANDOM)
    for again in (False, False, True):
        if again:
            model.draw(random, 1)
        images = IMAGES.clone().requires_grad_()
        gradients += torch.autograd.grad(model(images).square().sum(), images)
    assert gradients[0].isfinite().all() and gradients[0].flatten(1).any(dim=1).all()
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2]) == (name not in RANDOM)
