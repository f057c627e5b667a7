"""Backward rules beside gradients by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.func import vjp
from torchvision.models.densenet import _DenseLayer
from torchvision.models.resnet import BasicBlock, Bottleneck

from src.attacks import (
    BackwardPropagation,
    GhostNetwork,
    LinearPropagation,
    PerImageRandom,
    SkipGradient,
    TokenGradient,
    bim,
    linbp,
    pna_patchout,
)
from src.attacks.source import Source, apply_backward_rule
from tests.attacks.backward_rules import EPS, built, gradient, seeded


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_skip_gradients_of_torchvisions_blocks_are_those_of_the_exact_form(kind):
    torch.manual_seed(0)
    block = kind(8, 8 // kind.expansion).double().eval()
    model = nn.Sequential(nn.Identity(), block)
    z, g = torch.randn(2, 2, 8, 6, 6, dtype=torch.float64, generator=seeded())

    def branch(z: Tensor) -> Tensor:
        for number in range(1, 4 if kind is Bottleneck else 3):
            z = block.get_submodule(f"conv{number}")(z.relu() if number > 1 else z)
            z = block.get_submodule(f"bn{number}")(z)
        return z

    def exact(z: Tensor) -> Tensor:
        f = branch(z)
        return (z + 0.2 * f + 0.8 * f.detach()).relu()

    changed = apply_backward_rule(model, SkipGradient(0.2))
    assert torch.equal(changed(z), model(z))
    torch.testing.assert_close(gradient(changed, z, g), gradient(exact, z, g), atol=1e-12, rtol=0)


POOLS = {
    "of the ResNet": nn.MaxPool2d(3, 2, 1),
    "with a rest": nn.MaxPool2d(2, 2),
    "over the border": nn.MaxPool2d(3, 2, ceil_mode=True),
    "that overlaps and skips": nn.MaxPool2d((2, 3), 1, (0, 1), dilation=(2, 1)),
}


def pooled_back(z: Tensor, g: Tensor, pool: nn.MaxPool2d, temperature: float) -> Tensor:
    """Return the gradient at the input z (C, H, W) of a max-pool, window by window."""
    pairs = [each if isinstance(each, tuple) else (each, each) for each in (
        pool.kernel_size, pool.stride, pool.padding, pool.dilation)]  # fmt: skip
    kernel, stride, padding, dilation = pairs
    total = torch.zeros_like(z)
    for c, i, j in product(*map(range, g.shape)):
        top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
        rows = [top + dilation[0] * n for n in range(kernel[0])]
        columns = [left + dilation[1] * n for n in range(kernel[1])]
        inside = [(c, y, x) for y, x in product(rows, columns) if y >= 0 <= x]
        inside = [each for each in inside if each[1] < z.shape[1] and each[2] < z.shape[2]]
        weights = torch.stack([temperature * z[each] for each in inside]).softmax(0)
        for each, weight in zip(inside, weights, strict=True):
            total[each] += weight * g[c, i, j]
    return total


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_smooth_gradients_of_three_layers_by_hand(pool):
    torch.manual_seed(0)
    z = 9 * torch.rand(2, 3, 7, 7, dtype=torch.float64, generator=seeded())  # exp(90) is no float32
    shape = pool(z).shape
    layers = nn.Linear(shape[1:].numel(), 6), nn.ReLU(inplace=True), nn.Linear(6, 4)
    model = nn.Sequential(pool, nn.Flatten(), *layers).double()
    g = torch.randn(2, 4, dtype=torch.float64, generator=seeded())
    changed = apply_backward_rule(model, BackwardPropagation(10.0, relus=("3",)))
    assert torch.equal(changed(z), model(z)) and model[3].inplace
    inner = layers[0](pool(z).flatten(1)).detach()
    silu = inner.sigmoid() * (1 + inner * (1 - inner.sigmoid()))
    back = ((g @ layers[2].weight * silu) @ layers[0].weight).reshape(shape).detach()
    expected = torch.stack([pooled_back(*each, pool, 10.0) for each in zip(z, back, strict=True)])
    torch.testing.assert_close(gradient(changed, z, g), expected, atol=1e-12, rtol=0)
    single = gradient(changed.float(), z.float(), g.float())
    torch.testing.assert_close(single.double(), expected, atol=1e-4, rtol=1e-3)


def linear_back(block: nn.Module, z: Tensor, g: Tensor) -> Tensor:
    """Return the gradient at the input (1, C, H, W) of a block, with its branch linear."""
    dense = isinstance(block, _DenseLayer)
    exact, linear, f = [], [], z
    for n in (n for n in (1, 2, 3) if hasattr(block, f"conv{n}")):
        first, second = (f"norm{n}", f"conv{n}") if dense else (f"conv{n}", f"bn{n}")
        names = [first, "relu", second] if dense else ["relu", first, second][n == 1 :]
        for name in names:
            layer = nn.ReLU() if name == "relu" else block.get_submodule(name)
            f, back = vjp(layer, f)
            exact.insert(0, back)
            linear.insert(0, (lambda g: (g,)) if name == "relu" else back)
    shortcut, back = vjp(block.downsample, z) if getattr(block, "downsample", None) else (z, None)
    g = g if dense else g * (f + shortcut > 0)
    q_true = q_linear = g
    for back_exact, back_linear in zip(exact, linear, strict=True):
        (q_true,), (q_linear,) = back_exact(q_true), back_linear(q_linear)
    branch = q_linear * q_true.norm() / q_linear.norm()
    return branch if dense else branch + (back(g)[0] if back else g)


BLOCKS = {
    "basic": BasicBlock(8, 8),
    "bottleneck": Bottleneck(8, 2),
    "projecting": BasicBlock(8, 4, 2, nn.Conv2d(8, 4, 1, 2)),
    "dense": _DenseLayer(8, 4, 2, 0.0),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_linear_gradients_of_blocks_by_hand_image_by_image(block):
    block.double().eval().requires_grad_(False)
    z = torch.randn(3, 8, 6, 6, dtype=torch.float64, generator=seeded())
    g = torch.randn(block(z).shape, dtype=torch.float64, generator=seeded(1))
    changed = apply_backward_rule(nn.Sequential(block), LinearPropagation(relus=("relu",)))
    torch.testing.assert_close(changed(z), block(z), atol=1e-12, rtol=0)
    expected = [linear_back(block, z[n : n + 1], g[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(gradient(changed, z, g), torch.cat(expected), atol=1e-12, rtol=0)


def test_linear_gradients_without_blocks_are_those_without_relus():
    torch.manual_seed(0)
    layers = nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)
    model = nn.Sequential(*layers).double()
    z, g = torch.randn(2, 5, generator=seeded()).double(), torch.ones(2, 4).double()
    changed = apply_backward_rule(model, LinearPropagation(relus=("3",)))
    assert torch.equal(changed(z), model(z))
    early = layers[0](z) > 0
    expected = (g @ layers[4].weight @ layers[2].weight * early) @ layers[0].weight
    torch.testing.assert_close(gradient(changed, z, g), expected.detach(), atol=1e-12, rtol=0)


def test_linear_gradients_of_relus_that_are_all_on_are_bim(batch):
    """On, since no weight is negative; the logit's gradient does not fade with large logits."""
    model, images = built("resnet_small").double(), batch(2, 32)[0].double()
    given = (model, images, torch.tensor([3, 7]), EPS)
    words = {"steps": 2, "loss": "logit", "norm": "l2"}  # in which lengths count
    assert not torch.equal(linbp(*given, **words), bim(*given, **words))
    for weight in model.parameters():
        weight.data.abs_().add_(1e-3)
    expected = bim(*given, **words)
    torch.testing.assert_close(linbp(*given, **words), expected, atol=1e-12, rtol=0)
    assert not torch.equal(expected, images.expand_as(expected))


def test_patches_are_those_of_the_transformer_unless_a_number_is_given(transformer, network, batch):
    model = network(build=transformer)
    side, _ = model[0].patch_embed.grid_size
    found, stated, other = (
        pna_patchout(model, *batch(), EPS.float(), steps=3, patches=patches)
        for patches in (None, side, side + 1)
    )
    assert torch.equal(found, stated) and not torch.equal(found, other)


@pytest.mark.parametrize("name", ["downsample", "shortcut"])  # of torchvision, of CIFAR's ResNets
def test_ghost_scales_skip_connections_by_either_name(name):
    class BasicBlock(nn.ModuleDict):
        def forward(self, z: Tensor) -> Tensor:
            return self[name](z) + z.tanh()

    model = nn.Sequential(BasicBlock({name: nn.Sequential()}))
    changed, z = apply_backward_rule(model, GhostNetwork(spread=0.5)), torch.randn(2, 4, 3, 3)
    random = PerImageRandom(torch.arange(2), z, torch.zeros(2), (z, torch.zeros(2)))
    Source(changed).draw(random, 1)
    scales = (changed(z) - z.tanh()) / z
    assert ((scales - 1).abs() <= 0.5).all() and scales.std() > 0.1


def test_pna_is_the_gradient_of_constant_attention_maps(transformer, network, batch):
    model, images = network(build=transformer).double(), batch()[0].double()
    weights = torch.randn(4, 5, dtype=torch.float64, generator=seeded())
    changed = apply_backward_rule(model, TokenGradient(0.0, 1.0, 1.0, drop_extremes=False))
    found, own = (gradient(each, images, weights) for each in (changed, model))
    for block in model[0].blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda *given: given[-1].detach())
    expected = gradient(model, images, weights)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert (found - own).norm() > 1e-3 * own.norm()
