"""Copies of networks: with batch norms folded, and of networks that keep tensors of a pass."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from src import transfer
from src.models import PixelClassifier, fold_batch_norms, try_classifier
from src.models.architectures import densenet121


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


def hooked():
    convolution = nn.Conv2d(3, 3, 1)
    convolution.register_forward_hook(lambda module, args, output: output.relu())
    return nn.Sequential(convolution, nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    "build",
    [
        DependsOnData,
        ConvUsedTwice,
        WeightReadElsewhere,
        lambda: nn.Sequential(OwnConvolution(3, 3, 1), nn.BatchNorm2d(3)),
        hooked,
    ],
)
def test_what_cannot_be_folded_stays(build):
    network = lively(build())
    folded = fold_batch_norms(network)
    assert count(folded) == 1
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(folded(images), network(images))


IMAGES = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0))
IMAGES, LABELS = IMAGES.to(torch.uint8), torch.tensor([0, 1, 2, 3, 4, 0])


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
    "weight norm": partial(Net, nn.utils.parametrizations.weight_norm),
    "old weight norm": partial(Net, nn.utils.weight_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", KEEPING)
def test_a_used_network_is_copied(kind):
    unused, images = KEEPING[kind]().eval(), IMAGES / 255
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
    for kind in (torch.float16, torch.float64):
        network = {"s": Net().eval().to(kind)}
        with pytest.raises(ValueError, match=rf"^model s: .*{kind}: .*\.float\(\)"):
            transfer(network, network, IMAGES, LABELS)
    network, other = (nn.Sequential(nn.Flatten(), nn.Linear(768, count)) for count in (5, 6))
    with pytest.raises(ValueError, match=r"\[5, 6\].*logits\[:, 1:\]"):
        transfer({"s": network}, {"s": network, "t": other}, IMAGES, LABELS)
