"""Layers of a source: found by name, read and changed by hooks that never stay."""

import pytest
import torch
from torch import nn

from src.attacks import Source, fia, ilpd
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Pair(nn.Module):
    """A layer that returns a tuple."""

    def forward(self, x):
        return x, x


class Twice(nn.Module):
    """A network with an activation that works in place, twice, and a layer that never works."""

    def __init__(self):
        super().__init__()
        self.body, self.act = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
        self.pair, self.idle, self.head = Pair(), nn.Identity(), nn.Linear(4 * 36, 5)
        self.inner = nn.Sequential()
        self.inner.add_module("body", nn.Identity())

    def forward(self, x):
        x, _ = self.pair(self.act(self.inner(self.body(x))))
        return self.act(self.head(x.flatten(1)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelClassifier(Twice(), [0.5] * 3, [0.25] * 3).eval()


def hooks(model):
    return [hook for each in model.modules() for hook in each._forward_hooks.values()]


def body(model, images):
    return model.network.body((images - model.mean) / model.std)


def test_the_end_of_a_name_is_enough_and_the_highest_layer_wins(model):
    for name in ("body", "network.body", "model.network.body"):
        (found,) = Source(CountedModel(model), name).features(IMAGES)
        assert torch.equal(found, body(model, IMAGES))  # although what follows works in place
        assert not torch.equal(found, found.relu())
    assert not hooks(model)
    with pytest.raises(ValueError, match="layer=ody: the source has no such layer"):
        Source(model, "ody").features(IMAGES)


def test_a_classifier_states_its_feature_layer(model):
    with pytest.raises(ValueError, match=r"attack.layer=null: .*body, act.*feature_layer"):
        Source(model).features(IMAGES)
    model.feature_layer = "body"
    assert torch.equal(Source(CountedModel(model)).features(IMAGES)[0], body(model, IMAGES))
    (head,) = Source(model, "head").features(IMAGES)  # what is named comes first
    assert head.shape == (2, 5)


def test_an_ensemble_has_a_layer_a_member(model):
    other = PixelClassifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), [0.5] * 3, [1.0] * 3)
    ensemble = CountedModel(Ensemble([model, other], "logits"))
    found = Source(ensemble, ("body", "0")).features(IMAGES)
    assert [each.shape[1:] for each in found] == [(4, 6, 6), (192,)]
    model.feature_layer, other.feature_layer = "head", "1"
    heads = Source(ensemble).features(IMAGES)
    torch.testing.assert_close(heads[1], other(IMAGES))
    with pytest.raises(ValueError, match=r"attack\.layer names 3 layers for 2 ensemble members"):
        Source(ensemble, ["0", "1", "0"]).features(IMAGES)


def test_a_changed_layer_is_what_the_network_goes_on_with(model):
    source = Source(CountedModel(model), "body")
    assert torch.equal(source.logits_with(IMAGES, lambda output, _: output), model(IMAGES))
    moved = source.logits_with(IMAGES, lambda output, _: output.flip(0))
    assert torch.equal(moved, model(IMAGES.flip(0))) and not hooks(model)


REFUSED = {
    "layr": "layer=layr: the source has no such layer; it has body, act, pair",
    "pair": "Pair returns no tensor",
    "act": "ReLU is used twice",
    "idle": "Identity is never used",
}


@pytest.mark.parametrize("layer", REFUSED)
def test_refuses_layers_that_cannot_be_used(layer, model):
    labels = torch.tensor([0, 1])
    for attack in (fia, ilpd):
        with pytest.raises(ValueError, match=REFUSED[layer]):
            attack(CountedModel(model), IMAGES, labels, 0.1, layer=layer)
        assert not hooks(model)


def test_refuses_functions_that_are_no_modules(model):
    with pytest.raises(ValueError, match="layer needs a torch module"):
        ilpd(lambda images: model(images), IMAGES, torch.tensor([0, 1]), 0.1, layer="body")


def test_hooks_go_whatever_happens(model):
    def interrupted(output, member):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Source(model, "body").logits_with(IMAGES, interrupted)
    assert not hooks(model)
