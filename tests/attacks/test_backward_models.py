"""Backward rules on models of the catalogue, of ensembles and of one's own."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from src.attacks import (
    BackwardPropagation,
    GhostNetwork,
    LinearPropagation,
    PerImageRandom,
    SkipGradient,
    bpa,
    ghost,
    mi,
    pna_patchout,
    sgm,
    tgr,
)
from src.attacks.source import apply_backward_rule
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier
from tests.attacks.backward_rules import EPS, RULES, built, gradient, seeded

from .conftest import KINDS

DEGENERATE = {
    "sgm of gamma 1": (partial(sgm, gamma=1.0), "skip connections"),
    "bpa of a hard maximum without ReLUs": (partial(bpa, temperature=1e12, relus=()), "ReLUs"),
    "ghost of spread 0": (partial(ghost, spread=0.0), "skip connections"),
    "pna_patchout with all patches and attention": (
        partial(pna_patchout, attention=1.0, kept=1.0, length_weight=0.0),
        "attention",
    ),
    "tgr of factors 1 with all tokens": (
        partial(tgr, attention=1.0, qkv=1.0, mlp=1.0, drop_extremes=False),
        "attention",
    ),
}


@pytest.mark.parametrize(("attack", "needs"), DEGENERATE.values(), ids=DEGENERATE)
def test_a_backward_rule_without_effect_is_mi(attack, needs, network, batch):
    """In float64, since the softmax of attention and of windows rounds."""
    model, (images, labels) = network(build=KINDS[needs]).double(), batch()
    given = (model, images.double(), labels, EPS)
    torch.testing.assert_close(attack(*given), mi(*given), atol=1e-12, rtol=0)
    other = attack.func(*given)
    assert not torch.equal(other, mi(*given))


FITTING = {
    "sgm": {"convnext", "densenet121", "mobilenet_v2", "resnet50", "resnet_small", "vit_small"},
    "bpa": {"densenet121", "inception", "mobilenet_small", "resnet50", "resnet_small", "vgg_small"},
    "tgr": {"vit_small"},
}
FITTING["linbp"] = FITTING["bpa"]
"""Models of the catalogue that a backward rule can change."""


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("_small") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(set.union(*FITTING.values()))
    ],
)
def test_a_backward_rule_changes_the_gradients_of_models_that_have_its_layers_alone(name):
    network = built(name)
    size = 224 if name == "convnext" else 32
    images = torch.rand(1, 3, size, size, generator=seeded())
    weights = torch.randn(1, 10, generator=seeded())
    for key, value in network.named_parameters():
        if key.endswith(".gamma"):  # ConvNeXt's branches start at a millionth
            nn.init.ones_(value)
    logits, own = network(images), gradient(network, images, weights)
    for key, rule in RULES.items():
        if name in FITTING[key]:
            changed = apply_backward_rule(CountedModel(network), rule)
            torch.testing.assert_close(changed(images), logits, atol=1e-5, rtol=1e-4)
            other = gradient(changed, images, weights)
            assert other.isfinite().all() and (own - other).norm() > 0.05 * own.norm()
        else:
            with pytest.raises(ValueError, match="the source must have"):
                apply_backward_rule(network, rule)


def names(model: nn.Module, rule) -> list[str]:
    """Return the names of the modules that a backward rule changes."""
    changed = apply_backward_rule(model, rule)
    return [
        name
        for name, module in changed.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


@pytest.mark.slow
def test_the_published_layers_are_changed():
    assert names(built("resnet18"), SkipGradient()) == [f"layer{n}.1.bn2" for n in (1, 2, 3, 4)]
    late = [f"layer3.{n}.relu" for n in range(1, 6)] + [f"layer4.{n}.relu" for n in range(3)]
    assert names(built("resnet50"), BackwardPropagation()) == ["maxpool", *late]
    pool, *dense = names(built("densenet121"), BackwardPropagation())
    assert pool == "features.pool0" and len(dense) == 2 * 16
    assert all(name.startswith("features.denseblock4") for name in dense)
    mixed = names(built("inception"), BackwardPropagation())
    assert {name.split(".")[0] for name in mixed} == {"Mixed_7a", "Mixed_7b", "Mixed_7c"}
    dense = names(built("densenet121"), LinearPropagation())
    assert dense == [f"features.denseblock4.denselayer{n}" for n in range(1, 17)]
    blocks = [f"layer3.{n}" for n in range(1, 6)] + [f"layer4.{n}" for n in range(3)]
    assert names(built("resnet50"), LinearPropagation()) == blocks
    plain = [f"features.{n}" for n in (6, 13, 23, 32, 33, 36, 39, 42)]  # four pools among them
    assert names(built("vgg_small"), BackwardPropagation()) == plain


def random_for(images: Tensor, seeds: list[int]) -> PerImageRandom:
    labels = torch.zeros(len(seeds), dtype=torch.int64)
    return PerImageRandom(torch.tensor(seeds), images, labels, (images, labels))


def drawn(model: nn.Module, random: PerImageRandom, budgets: int = 1) -> None:
    for module in model.modules():
        if hasattr(module, "draw"):
            module.draw(random, budgets)


def uniform(random: PerImageRandom, *shape: int) -> Tensor:
    return random.uniform(*shape, low=0.78, high=1.22)[0]


def ghost_of_resnet(model: nn.Module, z: Tensor, random: PerImageRandom) -> Tensor:
    """Blocks of `resnet_small` on one image, the first of a stage with a projection."""
    z = model.stem(z[None])
    for block in (each for n in (1, 2, 3) for each in model.get_submodule(f"stage{n}")):
        shortcut = block.downsample(z) if block.downsample else z
        f = block.bn2(block.conv2(block.bn1(block.conv1(z)).relu()))
        z = (f + uniform(random, shortcut.shape[1], 1, 1) * shortcut).relu()
    return model.fc(z.mean((2, 3)))[0]


def ghost_of_vit(model: nn.Module, z: Tensor, random: PerImageRandom) -> Tensor:
    z = model.patch_embed(z[None]) + model.pos_embed
    for block in model.blocks:
        z = uniform(random, 1, 96) * z + block.attn(block.norm1(z))
        z = uniform(random, 1, 96) * z + block.mlp(block.norm2(z))
    return model.head(model.fc_norm(model.norm(z).mean(1)))[0]


def ghost_of_vgg(model: nn.Module, z: Tensor, random: PerImageRandom) -> Tensor:
    z = z[None]
    for layer in model.features:
        z = layer(z)
        if isinstance(layer, nn.ReLU):
            z = torch.where(random.uniform(*z.shape[1:]) < 0.994, z / 0.994, 0)
    return model.fc(z.mean((2, 3)))[0]


GHOSTS = {"resnet_small": ghost_of_resnet, "vit_small": ghost_of_vit, "vgg_small": ghost_of_vgg}


@pytest.mark.parametrize("name", GHOSTS)
def test_ghosts_by_hand_image_by_image_and_anew_with_each_draw(name):
    model = built(name).double().requires_grad_(False)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=seeded())
    weights = torch.randn(4, 10, dtype=torch.float64, generator=seeded())
    changed, random = apply_backward_rule(model, GhostNetwork()), random_for(images, [5, 17])
    alone = [random_for(images, [seed]) for seed in (5, 17)]
    for _ in range(2):
        drawn(changed, random, budgets=2)
        found = gradient(changed, images.repeat(2, 1, 1, 1), weights)
        assert torch.equal(changed(images), changed(images))
        both = weights[:2] + weights[2:]
        for n, image in enumerate(images):
            expected = gradient(lambda x, n=n: GHOSTS[name](model, x, alone[n]), image, both[n])
            torch.testing.assert_close(found[n] + found[n + 2], expected, atol=1e-15, rtol=1e-9)


def test_ghosts_that_keep_every_value_are_mi(batch):
    given = (built("vgg_small").double(), batch(2, 32)[0].double(), torch.tensor([3, 7]), EPS)
    expected = mi(*given, steps=2)
    torch.testing.assert_close(ghost(*given, steps=2, keep=1.0), expected, atol=1e-12, rtol=0)
    assert not torch.equal(ghost(*given, steps=2), expected)


@pytest.mark.slow
def test_ghosts_of_the_catalogue():
    for name in ("convnext", "densenet121", "inception", "resnet50"):
        size = 224 if name == "convnext" else 32
        model, images = built(name), torch.rand(1, 3, size, size, generator=seeded())
        changed = apply_backward_rule(model, GhostNetwork())
        drawn(changed, random_for(images, [3]))
        assert changed(images).isfinite().all() and not torch.equal(changed(images), model(images))


def test_a_source_without_blocks_and_relus_has_no_ghosts():
    with pytest.raises(ValueError, match=r"must have residual blocks .* or ReLUs"):
        apply_backward_rule(built("mobilenet_v2"), GhostNetwork())


@pytest.mark.parametrize("name", RULES)
def test_every_member_of_an_ensemble_is_changed_and_none_of_the_source(name, network, batch):
    rule = RULES[name]
    kind = {"sgm": "skip connections", "tgr": "attention"}.get(name, "ReLUs")
    members = [
        PixelClassifier(network(seed, KINDS[kind]), [0.5] * 3, [0.5] * 3).double()
        for seed in (0, 1)
    ]
    source = CountedModel(Ensemble([*members, members[0]], "logits"))
    images = batch()[0].double()
    weights = torch.randn(4, 5, dtype=torch.float64, generator=seeded())
    before = source(images), gradient(source, images, weights)
    changed = apply_backward_rule(source, rule)
    alone = [gradient(apply_backward_rule(each, rule), images, weights) for each in members]
    found = gradient(changed, images, weights)
    torch.testing.assert_close(found, (2 * alone[0] + alone[1]) / 3, atol=1e-12, rtol=0)
    assert not torch.equal(found, before[1])
    assert torch.equal(source(images), before[0])
    assert torch.equal(gradient(source, images, weights), before[1])
    assert {id(each) for each in changed.parameters()} == {id(each) for each in source.parameters()}
    with pytest.raises(ValueError, match="the source must have"):
        apply_backward_rule(Ensemble([members[0], network()], "logits"), rule)


def test_bpa_refuses_names_that_no_relu_has(network, batch):
    with pytest.raises(ValueError, match=r"relus=\['layer7'\]"):
        bpa(network(build=KINDS["ReLUs"]), *batch(), 8 / 255, relus=["layer7"])


class Scaled(nn.Module):
    """A layer whose channels are scaled by random factors of each image."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.factors: Tensor | None = None

    def draw(self, random, k: int) -> None:
        self.factors = random.uniform(8, 1, 1, low=0.5, high=1.5).repeat(k, 1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images) * self.factors


def scaled(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            module[0] = Scaled(module[0])
    return model


@pytest.mark.parametrize("kind", ["single", "loss"])
def test_a_backward_rule_that_draws_does_so_for_each_image(kind, source, batch):
    model, (images, labels) = source(kind).double(), batch()

    def run(rows: slice = slice(None), eps: Tensor = EPS, seed: int = 5, **words) -> Tensor:
        seeds = torch.tensor([seed, 17, 3, 1000])[rows]
        given = (CountedModel(model), images[rows].double(), labels[rows], eps)
        return mi(*given, backward_rule=scaled, steps=3, seeds=seeds, **words)

    whole = run()
    for again in (
        torch.stack([run(eps=eps) for eps in EPS]),
        torch.cat([run(slice(0, 1)), run(slice(1, None))], dim=1),
        run(max_batch=7),
    ):
        torch.testing.assert_close(again, whole, atol=1e-12, rtol=0)
    changed = (run(seed=6) != whole).flatten(2).any(2).any(0)
    assert changed.tolist() == [True, False, False, False]


@pytest.mark.parametrize("through", [lambda weight: weight, lambda weight: weight.data])
def test_a_backward_rule_that_changes_weights_is_refused(through, network, batch):
    def doubled(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            through(model[0].weight).mul_(2)
        return model

    with pytest.raises(ValueError, match=r"attack\.backward_rule must not change"):
        mi(network(), *batch(), 8 / 255, backward_rule=doubled)
