"""Sources: their layers, found by name and changed by hooks that never stay, members, defences."""

from functools import partial

import pytest
import torch
from torch import nn

from src import attacks
from src.attacks import PerImageRandom, Problem, Source
from src.defences import AttackedDefence
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1])


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


def test_a_layer_is_found_by_the_end_of_its_name_or_stated_by_the_classifier(model):
    body = model.network.body((IMAGES - model.mean) / model.std)
    for name in ("body", "network.body", "model.network.body", None):
        model.feature_layer = None if name else "body"
        (found,) = Source(CountedModel(model), name).features(IMAGES)
        assert torch.equal(found, body)  # although what follows works in place
        assert not torch.equal(found, found.relu())
    (head,) = Source(model, "head").features(IMAGES)  # what is named comes first
    assert head.shape == (2, 5) and not hooks(model)


def test_an_ensemble_has_a_layer_a_member(model):
    other = PixelClassifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), [0.5] * 3, [1.0] * 3)
    ensemble = CountedModel(Ensemble([model, other], "logits"))
    found = Source(ensemble, ("body", "0")).features(IMAGES)
    assert [each.shape[1:] for each in found] == [(4, 6, 6), (192,)]
    model.feature_layer, other.feature_layer = "head", "1"
    torch.testing.assert_close(Source(ensemble).features(IMAGES)[1], other(IMAGES))
    with pytest.raises(ValueError, match=r"attack\.layer names 3 layers for 2 "):
        Source(ensemble, ["0", "1", "0"]).features(IMAGES)


def test_a_changed_layer_is_what_the_network_goes_on_with_and_hooks_go(model):
    def interrupted(output, member):
        raise KeyboardInterrupt

    source = Source(CountedModel(model), "body")
    assert torch.equal(source.logits_with(IMAGES, lambda output, _: output), model(IMAGES))
    moved = source.logits_with(IMAGES, lambda output, _: output.flip(0))
    assert torch.equal(moved, model(IMAGES.flip(0)))
    with pytest.raises(KeyboardInterrupt):
        source.logits_with(IMAGES, interrupted)
    assert not hooks(model)


REFUSED = {
    "ody": "layer=ody: .*body, act, pair",
    None: "layer=null: .*body, act.*feature_layer",
    "pair": "Pair returns no tensor",
    "act": "ReLU is used twice",
    "idle": "Identity is never used",
}


@pytest.mark.parametrize("layer", REFUSED)
def test_refuses_layers_that_cannot_be_used(layer, model):
    for attack in (attacks.fia, attacks.ilpd):
        with pytest.raises(ValueError, match=REFUSED[layer]):
            attack(CountedModel(model), IMAGES, LABELS, 0.1, layer=layer)
        assert not hooks(model)
        with pytest.raises(ValueError, match="layer needs a torch module"):
            attack(model.forward, IMAGES, LABELS, 0.1, layer="body")


def problem_of(source: Source, images: torch.Tensor, labels: torch.Tensor) -> Problem:
    random = PerImageRandom(torch.arange(len(images)), images, labels, (images, labels))
    eps = torch.tensor([4, 8]).reshape(2, 1, 1, 1, 1) / 255
    return Problem(source, images, labels, False, random, eps, "linf")


OBJECTIVES = [
    attacks.FeatureImportance(masks=2),
    attacks.PerturbationDecay(),
    attacks.IntermediateLevel(),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: type(each).__name__)
def test_losses_are_float32_whatever_the_network_computes_in(objective, network, batch):
    images, labels = batch()
    source = Source(CountedModel(network(), bf16=True), "0")  # a convolution
    assert source.features(images)[0].dtype == torch.bfloat16
    problem = problem_of(source, images, labels)
    versions = torch.stack([images, 1 - images])
    losses = objective.losses(problem, versions, objective.prepare(problem))
    assert losses.shape == (2, 4) and losses.dtype == torch.float32 and losses.isfinite().all()


def test_neurons_are_attributed_on_a_noisy_way_to_black(network, batch):
    """The stored reference of `naa` has no noise."""
    problem, same = (problem_of(Source(network()), *batch()) for _ in range(2))
    versions = attacks.NeuronAttribution(points=3, sigma_255=51).versions(problem)
    for share, version in zip((1, 2 / 3, 1 / 3), versions, strict=True):
        noisy = same.images + 0.2 * same.random.normal(*same.images.shape[1:])
        torch.testing.assert_close(version, share * noisy)


def test_layers_that_mix_are_narrow_beside_the_image_and_read_before_a_relu(network, batch):
    """The image is what the network resizes it to."""
    first, *_, last = network()
    parts = [nn.Upsample(scale_factor=4), nn.Conv2d(3, first.out_channels, 4, stride=4)]
    made = []
    for width in (0.25, 1.0, 0.2):
        model = nn.Sequential(*parts, nn.ReLU(True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last)
        words = {"max_width": width, "mix_probability": 1.0, "steps": 3}
        made.append(attacks.cfm(model, *batch(), 8 / 255, **words))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_images_of_a_run_draw_the_same_members(network, batch):
    images, labels = batch()
    ensemble = CountedModel(Ensemble([network(0), network(1)], "logits").double())
    attack = partial(attacks.svre, ensemble, images.double(), labels, 8 / 255, steps=2)
    seeds = [attacks.image_seeds(run, torch.arange(4)) for run in (0, 7)]
    both = attack(seeds=torch.cat([seeds[0][:2], seeds[1][:2]]))
    one, other = (attack(seeds=its) for its in seeds)
    assert not torch.equal(one, other)
    torch.testing.assert_close(both, torch.cat([one[:2], other[2:]]), atol=1e-12, rtol=0)


def test_layers_and_weights_are_the_networks_although_the_defence_has_some(network, batch):
    network, blur = network(), nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(3)).eval()
    as_module, as_function = (
        attacks.fia(AttackedDefence(network, defence), *batch(), 8 / 255, layer="0", steps=2)
        for defence in (blur, lambda images: blur(images))
    )
    assert torch.equal(as_module, as_function)
    words = {"epochs": 1, "weights_per_epoch": 1, "fit_batch": 3}  # the last batch is one image
    (state,) = attacks.lgv.fit(AttackedDefence(network, blur), *batch(), 0.1, **words).values()
    assert torch.equal(state["0/defence.1.weight"], blur[1].weight)
    assert not torch.equal(state["0/classifier.6.weight"], network[6].weight)
