"""From pixels to logits: alone, in an ensemble, with batch norms folded, and after a use."""

from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from src import transfer
from src.models import Ensemble, PixelClassifier, fold_batch_norms, try_classifier
from src.models.architectures import densenet121


def test_each_channel_is_normalised_and_the_gradient_reaches_pixels_through_the_resize():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    images = torch.rand(2, 3, 4, 5)
    seen = PixelClassifier(nn.Identity(), mean, std).prepare(images)
    for channel in range(3):
        expected = (images[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(seen[:, channel], expected)
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    model = PixelClassifier(nn.Flatten(), mean, std, input_size=4).double()
    assert torch.autograd.gradcheck(model, images)


@pytest.mark.parametrize(("shape", "side"), [((32, 32), 75), ((20, 31), 24)])
def test_resizing_is_that_of_interpolate(shape, side):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    expected = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    model = PixelClassifier(nn.Identity(), [0] * 3, [1] * 3, input_size=side)
    torch.testing.assert_close(model.double().prepare(images), expected)
    assert torch.equal(model.prepare(expected), expected)
    with torch.autocast("cpu", torch.bfloat16):  # half a grey level would be lost
        torch.testing.assert_close(model.float().prepare(images.float()), expected.float())


class Returns(nn.Module):
    """A network that returns what a function makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(12, 3), change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


def test_logits_may_be_in_a_dictionary_or_an_object():
    images = torch.rand(5, 3, 2, 2)
    for change in (dict, SimpleNamespace):
        network = Returns(lambda logits, change=change: change(logits=logits))
        for each in (network, fold_batch_norms(network)):
            logits = PixelClassifier(each, [0] * 3, [1] * 3)(images)
            assert torch.equal(logits, network.linear(images.flatten(1)))
    for change in (lambda logits: {"scores": logits}, lambda logits: logits[1:]):
        with pytest.raises(ValueError, match="N = 5"):
            PixelClassifier(Returns(change), [0] * 3, [1] * 3)(images)


def test_averages_of_three_members_against_hand_computed_ones():
    images = torch.zeros(2, 3, 4, 4)
    logits = torch.tensor([[0.0, 2.0, 4.0], [3.0, 0.0, 0.0], [0.0, 4.0, 2.0]])
    members, p = [nn.Sequential(nn.Flatten(), nn.Linear(48, 3)) for _ in logits], logits.softmax(1)
    for member, row in zip(members, logits, strict=True):
        member[1].weight.data.zero_()
        member[1].bias.data.copy_(row)
    geometric = p.prod(0) ** (1 / 3)
    expected = {
        "logits": torch.tensor([1.0, 2.0, 2.0]).softmax(0),
        "probabilities": p.mean(0),
        "loss": geometric / geometric.sum(),
    }
    for average, probabilities in expected.items():
        ensemble = Ensemble(members, average)
        found = ensemble(images)
        torch.testing.assert_close(found.softmax(1), probabilities.expand(2, 3))
        attacked = logits[:, None].expand(3, 2, 3) if average == "loss" else found
        assert torch.equal(ensemble.attacked(images), attacked)


def lively(network):
    """Give batch norms statistics and weights that matter, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            for value in (module.running_var, module.weight.data):
                value.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def count(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("build", "before", "after"),
    [
        (lambda: densenet121(10, 32), 121, 62),  # the others come before their convolutions
        (lambda: timm.create_model("mobilenetv2_100", pad_type="same"), 52, 0),  # BatchNormAct2d
    ],
)
def test_logits_and_input_gradients_stay(build, before, after):
    torch.manual_seed(0)
    # In double precision, where rounding moves no value across the kink of a ReLU.
    network = lively(build()).double()
    folded = fold_batch_norms(network)
    assert (count(network), count(folded)) == (before, after)
    assert not fold_batch_norms(network.train()).training and network.eval()
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    logits = [model(images) for model in (network, folded)]
    gradients = [torch.autograd.grad(each[:, 0].sum(), images)[0] for each in logits]
    for mine, theirs in (logits, gradients):
        assert theirs.std() > 0
        assert (mine - theirs).abs().max() <= 1e-9 * mine.abs().max()


class DependsOnData(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.mean() > 0 else x


class ConvUsedTwice(DependsOnData):
    def forward(self, x):
        hidden = self.conv(x)
        return self.norm(hidden) + hidden


class WeightReadElsewhere(DependsOnData):
    def forward(self, x):
        return self.norm(self.conv(x)) + x * self.conv.weight.mean()


class OwnConvolution(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, torch.tanh(self.weight), self.bias)


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).square()


def hooked(place):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network[place].register_forward_hook(lambda module, args, output: output.relu())
    return network


@pytest.mark.parametrize(
    "build",
    [
        DependsOnData,
        ConvUsedTwice,
        WeightReadElsewhere,
        lambda: nn.Sequential(OwnConvolution(3, 3, 1), nn.BatchNorm2d(3)),
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), OwnNorm(3)),
        partial(hooked, 0),
        partial(hooked, 1),
    ],
)
def test_what_cannot_be_folded_stays(build):
    network = lively(build())
    folded = fold_batch_norms(network)
    assert count(folded) == 1
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(folded(images), network(images))


class Net(nn.Module):
    """A network that keeps an array of its last pass."""

    def __init__(self, change=lambda convolution: None):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), None
        self.head = nn.Linear(4, 5)
        change(self.convolution)

    def forward(self, images):
        features = self.norm(self.convolution(images)).relu().mean((2, 3))
        self.last = features.detach().numpy()
        return self.head(features)


KEEPING = {
    "array": Net,
    "old weight norm": partial(Net, nn.utils.weight_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", KEEPING)
def test_a_used_network_is_copied(kind):
    unused, images = KEEPING[kind]().eval(), torch.rand(6, 3, 16, 16)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        used = KEEPING[kind]().eval()
        with context():
            used(images)
        attributes = {name: dict(vars(part)) for name, part in used.named_modules()}
        made = PixelClassifier(fold_batch_norms(used), [0] * 3, [1] * 3).eval()
        try_classifier(made, None, 16)
        torch.testing.assert_close(made.network(images), unused(images))
        for name, part in used.named_modules():
            assert all(vars(part)[key] is value for key, value in attributes[name].items())


def test_other_types_of_numbers_are_named_with_the_way_on():
    given = torch.zeros(6, 3, 16, 16, dtype=torch.uint8), torch.arange(6) % 5
    for kind in (torch.float16, torch.float64):
        network = {"s": Net().eval().to(kind)}
        with pytest.raises(ValueError, match=rf"^model s: .*{kind}: .*\.float\(\)"):
            transfer(network, network, *given)
    network, other = (nn.Sequential(nn.Flatten(), nn.Linear(768, count)) for count in (5, 6))
    with pytest.raises(ValueError, match=r"\[5, 6\].*logits\[:, 1:\]"):
        transfer({"s": network}, {"s": network, "t": other}, *given)
