"""Sources: layers found by name and changed by hooks that never stay, and backward rules."""

from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from src import attacks
from src.attacks import BackwardPropagation, GhostNetwork, PerImageRandom, Problem, Source
from src.attacks.source import apply_backward_rule
from src.defences import AttackedDefence
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier, architectures, small
from tests.attacks.conftest import KINDS, random_for

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
    eps = torch.tensor([4, 8]).reshape(2, 1, 1, 1, 1) / 255
    return Problem(source, images, labels, False, random_for(images), eps, "linf")


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
    losses = attacks.Landscape(problem, attacks.Settings(objective=objective)).losses(versions)
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
    (images, labels), ensemble = batch(), Ensemble([network(0), network(1)], "logits").double()
    attack = partial(attacks.svre, ensemble, images.double(), labels, 8 / 255, steps=2)
    seeds = [attacks.image_seeds(run, torch.arange(4)) for run in (0, 7)]
    both = attack(seeds=torch.cat([seeds[0][:2], seeds[1][2:]]))
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
    state, data = {}, attacks.TrainingImages.of(*batch())
    words["training_images"] = replace(data, fitted=lambda _, fit: state.update(fit()) or state)
    attacks.lgv(AttackedDefence(network, blur), *batch(), 0.1, steps=1, **words)
    assert torch.equal(state["0/defence.1.weight"], blur[1].weight)
    assert not torch.equal(state["0/classifier.6.weight"], network[6].weight)


RULES = {
    **{"sgm": attacks.SkipGradient(), "bpa": BackwardPropagation()},
    **{"tgr": attacks.TokenGradient(), "linbp": attacks.LinearPropagation()},
}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(model: nn.Module, images: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of the weighted sum of a model's outputs."""
    x = images.detach().requires_grad_()
    return torch.autograd.grad((model(x) * weights).sum(), x)[0]


def built(name: str) -> nn.Module:
    """Return a network of the catalogue or of timm for 32 pixels, without weights."""
    torch.manual_seed(0)
    place = next(one for one in (small, architectures, timm.models) if hasattr(one, name))
    words = {"image_size": 32} if place is architectures else {}
    return getattr(place, name)(num_classes=10, **words).eval().double()


def softly_pooled(z: Tensor, pool: nn.MaxPool2d, temperature: float) -> Tensor:
    """Average each window of a max-pool, with weights that a gradient does not reach."""
    sizes = {key: getattr(pool, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    images = z.flatten(0, 1)[:, None]
    windows, inside = (functional.unfold(x, **sizes) for x in (images, torch.ones_like(images)))
    weights = (temperature * windows.masked_fill(inside == 0, -torch.inf)).softmax(1).detach()
    return (weights * windows).sum(1).reshape(len(z), -1)


def test_smooth_gradients_of_three_layers_by_hand():
    torch.manual_seed(0)
    pool = nn.MaxPool2d((2, 3), (1, 2), (0, 1), dilation=(2, 1))
    z, g = randn(2, 3, 7, 7).requires_grad_(), randn(2, 4, seed=1)
    layers = nn.Linear(60, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)
    model = nn.Sequential(pool, nn.Flatten(), *layers).double()
    changed = apply_backward_rule(model, BackwardPropagation(10.0, relus=("3",)))
    assert torch.equal(changed(z), model(z)) and model[3].inplace
    soft = layers[0](softly_pooled(z, pool, 10.0))
    inner = soft + (layers[0](pool(z).flatten(1)) - soft).detach()  # the values of a max-pool
    (expected,) = torch.autograd.grad((layers[2](functional.silu(inner)) * g).sum(), z)
    torch.testing.assert_close(gradient(changed, z, g), expected, atol=1e-12, rtol=0)


FITTING = {
    **{key: {"sgm"} for key in ("mobilenet_v2", "mobilenetv2_100")},  # torchvision's and timm's
    "densenet121": {"sgm", "bpa", "linbp"},
    "resnet_small": {"sgm", "bpa", "linbp"},
    "vgg_small": {"bpa", "linbp"},
    "vit_small": {"sgm", "tgr"},
}
"""Backward rules that can change a model of the catalogue."""


@pytest.mark.parametrize("name", FITTING)
def test_a_backward_rule_changes_the_gradients_of_models_that_have_its_layers_alone(name):
    network, images, weights = built(name), randn(1, 3, 32, 32).sigmoid(), randn(1, 10)
    logits, own = network(images), gradient(network, images, weights)
    for key, rule in RULES.items():
        if key in FITTING[name]:
            changed = apply_backward_rule(CountedModel(network), rule)
            torch.testing.assert_close(changed(images), logits, atol=1e-9, rtol=1e-9)
            other = gradient(changed, images, weights)
            assert other.isfinite().all() and (own - other).norm() > 0.05 * own.norm()
        else:
            with pytest.raises(ValueError, match="the source must have"):
                apply_backward_rule(network, rule)


def ghost_of_vit(model: nn.Module, z: Tensor, random: PerImageRandom) -> Tensor:
    z = model.patch_embed(z[None]) + model.pos_embed
    for block in model.blocks:
        z = random.uniform(1, 96, low=0.78, high=1.22) * z + block.attn(block.norm1(z))
        z = random.uniform(1, 96, low=0.78, high=1.22) * z + block.mlp(block.norm2(z))
    return model.head(model.fc_norm(model.norm(z).mean(1)))[0]


def ghost_of_vgg(model: nn.Module, z: Tensor, random: PerImageRandom) -> Tensor:
    z = z[None]
    for layer in model.features:
        z = layer(z)
        if isinstance(layer, nn.ReLU):
            z = torch.where(random.uniform(*z.shape[1:]) < 0.994, z / 0.994, 0)
    return model.fc(z.mean((2, 3)))[0]


GHOSTS = {"vit_small": ghost_of_vit, "vgg_small": ghost_of_vgg}


@pytest.mark.parametrize("name", GHOSTS)
def test_ghosts_by_hand_image_by_image_and_anew_with_each_draw(name):
    model = built(name).requires_grad_(False)
    images, weights = randn(2, 3, 32, 32).sigmoid(), randn(4, 10)
    changed, random = apply_backward_rule(model, GhostNetwork()), random_for(images, [5, 17])
    alone = [random_for(images, [seed]) for seed in (5, 17)]
    for _ in range(2):
        Source(changed).draw(random, 2)
        found = gradient(changed, images.repeat(2, 1, 1, 1), weights)
        assert torch.equal(changed(images), changed(images))
        both = weights[:2] + weights[2:]
        for n, image in enumerate(images):
            expected = gradient(lambda x, n=n: GHOSTS[name](model, x, alone[n]), image, both[n])
            torch.testing.assert_close(found[n] + found[n + 2], expected, atol=1e-15, rtol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_every_member_of_an_ensemble_is_changed_and_none_of_the_source(name, network, batch):
    kind = {"sgm": "skip connections", "tgr": "attention"}.get(name, "ReLUs")
    members = [
        PixelClassifier(network(seed, KINDS[kind]), [0.5] * 3, [0.5] * 3).double()
        for seed in (0, 1)
    ]
    source, change = CountedModel(Ensemble([*members, members[0]], "logits")), RULES[name]
    images, weights = batch()[0].double(), randn(4, 5)
    before = gradient(source, images, weights)
    changed = apply_backward_rule(source, change)
    alone = [gradient(apply_backward_rule(each, change), images, weights) for each in members]
    found = gradient(changed, images, weights)
    torch.testing.assert_close(found, (2 * alone[0] + alone[1]) / 3, atol=1e-12, rtol=0)
    assert not torch.equal(found, before)
    assert torch.equal(gradient(source, images, weights), before)
    assert {id(each) for each in changed.parameters()} == {id(each) for each in source.parameters()}
    with pytest.raises(ValueError, match="the source must have"):
        apply_backward_rule(Ensemble([members[0], network()], "logits"), change)


def test_refuses_layers_that_are_missing_and_rules_that_change_weights(network, batch):
    def doubled(model: nn.Module) -> nn.Module:
        model[0].weight.data.mul_(2)
        return model

    for rule, said in (
        (doubled, r"attack\.backward_rule"),
        (GhostNetwork(), "must have residual blocks"),
        (BackwardPropagation(relus=["layer7"]), r"relus=\['layer7'\]"),
    ):
        with pytest.raises(ValueError, match=said):
            attacks.mi(network(), *batch(), 8 / 255, backward_rule=rule)
