"""Rules of each defence, and sources and targets behind one.

A new defence is tested by being listed in `DEFENCES`.
"""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from src import defences
from src.attacks import PerImageRandom, Philox, Source, bim, fgsm, image_seeds
from src.defences import AttackedDefence, BitDepth, Defended, Jpeg, RandomResizePad, Smoothing
from src.models import Ensemble
from src.utils.call_target import call_target
from src.utils.hydra_versions import VERSION_BASE

CONF = Path(__file__).resolve().parents[2] / "conf"
DEFENCES = {
    "bit_depth": BitDepth(bits=3),
    "jpeg": Jpeg(quality=75),
    "median": defences.Median(size=2),
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


SEEDS = torch.tensor([31, 4, 15, 9, 26])
LABELS = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 8, 10, generator=generator, dtype=torch.float64)


@pytest.fixture
def network() -> nn.Module:
    return small(0)


def small(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4)
        return nn.Sequential(*layers).double().requires_grad_(False)


def gradient_of(function, at: Tensor) -> Tensor:
    variable = at.clone().requires_grad_()
    loss = nn.functional.cross_entropy(function(variable), LABELS, reduction="sum")
    return torch.autograd.grad(loss, variable)[0]


def test_gradient_goes_straight_through_what_has_none(network, images):
    def squared(images: Tensor) -> Tensor:
        return images.detach() ** 2

    at = images.clone().requires_grad_()
    for defence, way in ((squared, lambda each: each), (Jpeg(), Jpeg().approximate)):
        model, behind = AttackedDefence(network, defence), defence(images)
        assert torch.equal(model(images), network(behind))
        (expected,) = torch.autograd.grad(way(at), at, gradient_of(network, behind))
        assert torch.equal(gradient_of(model, images), expected)


@pytest.mark.parametrize("defence", [RandomResizePad(0.6), Smoothing()])
def test_the_mean_loss_or_of_a_vote_the_mean_probability_is_attacked(network, images, defence):
    """-log(mean over draws of p_y), equation 6 of SmoothAdv, and not the mean of -log(p_y)."""
    found = fgsm(AttackedDefence(network, defence, draws=3), images, LABELS, 0.01, seeds=SEEDS)
    seeds, at = Philox(SEEDS, images).integers(0, 2**31), images.clone().requires_grad_()
    shown = [defence(at, Philox(seeds, images, number)) for number in range(3)]
    chance = torch.stack([network(each).softmax(dim=1) for each in shown])[:, range(5), LABELS]
    is_vote = isinstance(defence, Smoothing)
    loss = -chance.mean(dim=0).log() if is_vote else -chance.log().mean(dim=0)
    (gradient,) = torch.autograd.grad(loss.sum(), at)
    torch.testing.assert_close(found, (images + 0.01 * gradient.sign()).clamp(0, 1))


def test_budgets_and_batches_share_an_images_draws(network, images):
    model, budgets = AttackedDefence(network, RandomResizePad(0.6), 2), [0.01, 0.05]
    both = bim(model, images, LABELS, budgets, seeds=SEEDS, steps=3)
    for number, eps in enumerate(budgets):
        alone = bim(model, images[3:], LABELS[3:], eps, seeds=SEEDS[3:], steps=3)
        torch.testing.assert_close(both[number, 3:], alone)
    others = bim(model, images, LABELS, budgets, seeds=SEEDS + 1, steps=3)
    assert not torch.allclose(others, both)


def test_a_call_without_draws_and_an_error_name_the_defence(network, images):
    with pytest.raises(ValueError, match=r"^defence=mine is randomised"):
        AttackedDefence(network, Smoothing(), name="mine")(images)
    with pytest.raises(ValueError, match=r"^defence=mine: IndexError: "):
        AttackedDefence(network, lambda images: images[:, 7], name="mine")(images)


def test_members_and_layers_are_those_behind_the_defence(images):
    ensemble = Ensemble([small(0), small(1)], "loss")
    source = Source(AttackedDefence(ensemble, BitDepth()), "0")
    features, shown = source.features(images), BitDepth()(images)
    for member in (0, 1):
        assert torch.equal(source.logits(images, member), small(member)(shown))
        assert torch.equal(features[member], small(member)[0](shown))


def test_a_defence_changes_copies_alone_and_may_round(images):
    before = images.clone()
    assert Defended(nn.Flatten(), lambda images: images.mul_(0))(images, INDEX).max() == 0
    assert torch.equal(images, before)
    Defended(nn.Flatten(), with_value(1 + 5e-7))(images, INDEX)


def with_value(value: float):
    def defence(images: Tensor) -> Tensor:
        images[2, 1, 3, 4] = value
        return images

    return defence


def votes(found: object):
    def defence(images: Tensor) -> Tensor:
        return images

    defence.classify = lambda classifier, images: found
    return defence


REFUSED = [
    (lambda images: {}["no palette"], "KeyError: 'no palette'$"),
    (lambda images: images[:, :1], r"\(5, 3, 8, 10\), not \(5, 1, 8, 10\)"),
    (lambda images: images.numpy(), "not ndarray"),
    *[(with_value(value), "image 9") for value in (torch.nan, 1.00001, -0.00001)],
    *[(votes(found), "logits") for found in (None, torch.zeros(4, 10))],
]


def test_what_is_no_image_and_no_vote_is_refused(images):
    for defence, refusal in REFUSED:
        with pytest.raises(ValueError, match=f"^defence=mine.*{refusal}"):
            Defended(nn.Flatten(), defence, name="mine")(images, INDEX)


class Lost(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).where(torch.arange(len(images))[:, None] != 3, float("nan"))


def test_targets_without_finite_logits_do_not_abstain(images):
    with pytest.raises(ValueError, match=r"BitDepth.* NaN or infinity for image 4"):
        Defended(Lost(), BitDepth())(images, INDEX)
    with pytest.raises(ValueError, match=r"^defence=rs: .* NaN or infinity"):
        Defended(Lost(), Smoothing(), name="rs")(images, INDEX)
