"""Stated numbers of gradients under other settings, and attacks through defences with layers."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src import attacks
from src.attacks.zoo.gradient_sampling import PenalisedGradientNorm
from src.config.attack_settings import computed_count
from src.defences import AttackedDefence, RandomResizePad
from src.images.attacker import CountedModel

EPS = torch.tensor([2.0, 4.0, 8.0]) / 255


class Network(nn.Module):
    """A network with a layer `body`, as the module `Blur` has."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.body(images)).relu().flatten(1))


class Blur(nn.Module):
    """A defence that is a module, with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.AvgPool2d(3, 1, 1)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * self.body(images)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval().requires_grad_(False)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("name", "words", "known"),
    [
        ("pgd", {"restarts": 3}, True),
        ("gi", {"warm_up_steps": 0}, False),
        ("gi", {"warm_up_steps": 2}, True),
        ("rap", {"steps": 5, "late_start": 9}, True),
        ("rap", {"steps": 5, "late_start": 2}, True),
        ("bim", {"random_start": "uniform", "restarts": 3}, False),
        ("bim", {"warm_up_steps": 4}, False),
        ("pgd", {"random_start": None}, False),
        ("vmi", {"random_start": "uniform"}, False),
        ("mi", {"estimator": PenalisedGradientNorm(samples=2)}, False),
    ],
)
def test_a_stated_number_of_gradients_is_that_taken_or_unknown(
    network: nn.Module, batch: tuple[Tensor, Tensor], name: str, words: dict[str, Any], known: bool
):
    counted, stated = CountedModel(network), None
    getattr(attacks, name)(counted, *batch, EPS, **words)
    try:
        settings = {"_target_": f"src.attacks.{name}", **words}
        stated = computed_count(settings, "gradients", {"budgets": len(EPS), "members": 1})
    except ValueError as error:
        assert "may change the count" in str(error)
    assert stated == (counted.counts.gradients / len(batch[0]) if known else None)


@pytest.mark.parametrize(("name", "words"), [("ilpd", {"layer": "body"}), ("cfm", {})])
def test_features_pass_a_randomised_defence_at_several_budgets(network, batch, name, words):
    source = AttackedDefence(network, RandomResizePad())
    call = partial(getattr(attacks, name), source, *batch, steps=2, **words)
    together = call(EPS)
    for place, eps in enumerate(EPS):
        assert torch.equal(together[place], call(eps))


def test_a_layer_is_the_networks_although_the_defence_has_one_of_the_name(network, batch):
    blur = Blur().eval()
    words = {"layer": "body", "steps": 2}
    as_module = attacks.fia(AttackedDefence(network, blur), *batch, EPS, **words)
    as_function = attacks.fia(AttackedDefence(network, lambda its: blur(its)), *batch, EPS, **words)
    assert torch.equal(as_module, as_function)


def test_a_fit_trains_the_network_and_not_its_defence(network, batch):
    source = AttackedDefence(network, Blur())
    words = {"epochs": 1, "weights_per_epoch": 1, "fit_batch": 3}  # the last batch is one image
    (state,) = attacks.lgv.fit(source, *batch, 8 / 255, **words).values()
    assert state["0/defence.weight"] == 1
    assert not torch.equal(state["0/classifier.head.weight"], network.head.weight)


def test_fits_refuse_other_numbers_of_labels(network, batch):
    images, labels = batch
    for others in (labels[:-1], labels.repeat(2)):
        with pytest.raises(ValueError, match="one number per image"):
            attacks.lgv.fit(network, images, others, 8 / 255)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2"])
def test_skips_of_both_kinds_of_mobilenet_are_damped(batch, name):
    from torchvision import models

    torch.manual_seed(0)
    network = getattr(models, name)(num_classes=3).eval()
    images = torch.rand(1, 3, 32, 32)
    assert attacks.sgm(network, images, torch.tensor([0]), 8 / 255, steps=1).shape == images.shape
