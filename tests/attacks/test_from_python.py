"""What holds for whoever calls an attack with a network and images of their own."""

from functools import partial

import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm, pgd, ssa_fgsm, vni_fgsm
from src.evaluation.attacker import CountedModel
from src.models import Ensemble

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [-1e-3, 1.001, 255.0, NAN, INF, -INF])
@pytest.mark.parametrize("attack", [fgsm, bim, pgd])
def test_refuses_what_is_no_image(attack, value, network, batch):
    images, labels = batch()
    images[2, 1, 3, 4] = value
    with pytest.raises(ValueError, match=r"^images must hold numbers in \[0, 1\], .* from ") as no:
        attack(network(), images, labels, 8 / 255)
    assert "\n" not in str(no.value)


def test_takes_black_and_white(network):
    images = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8)
    result = bim(network(), images, torch.tensor([0, 1]), 8 / 255)
    assert result.min() >= 0 and result.max() <= 1


WRAPPED = {
    "network": lambda network: network,
    "counted": CountedModel,
    "ensemble": lambda network: CountedModel(Ensemble([network], "loss")),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize(
    "attack",
    [
        fgsm,
        partial(pgd, steps=2, restarts=2),
        partial(vni_fgsm, steps=2, neighbours=2),
        partial(ssa_fgsm, steps=2, copies=2),
    ],
    ids=["fgsm", "pgd", "vni", "ssa"],
)
def test_a_network_in_training_mode_is_attacked_in_evaluation_mode(attack, wrapped, network, batch):
    images, labels = batch()
    expected = attack(network(), images, labels, 8 / 255)
    model = network().train()
    model[4].eval()  # an odd mixture
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert torch.equal(attack(WRAPPED[wrapped](model), images, labels, 8 / 255), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_mode_comes_back_when_an_attack_fails(network, batch):
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("broken")

    model = nn.Sequential(network(), Broken()).train()
    with pytest.raises(RuntimeError, match="broken"):
        bim(model, *batch(), 8 / 255)
    assert all(module.training for module in model.modules())
