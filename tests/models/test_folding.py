import copy

import pytest
import timm
import torch
from torch import nn

from src.models import fold_batch_norms
from src.models.architectures import densenet121, resnet18


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


def same_padding():
    return timm.create_model("mobilenetv2_100", num_classes=10, pad_type="same")


@pytest.mark.parametrize(
    ("build", "before", "after"),
    [
        (lambda: resnet18(10, 32), 20, 0),
        (lambda: densenet121(10, 32), 121, 62),  # the others come before their convolutions
        (same_padding, 52, 0),  # BatchNormAct2d
    ],
)
def test_logits_and_input_gradients_stay(build, before, after):
    torch.manual_seed(0)
    # In double precision, where rounding moves no value across the kink of a ReLU.
    network = lively(build()).double()
    folded = fold_batch_norms(network)
    assert (count(network), count(folded)) == (before, after)
    outputs = []
    for model in (network, folded):
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(1, 3, 32, 32, generator=generator, dtype=torch.float64)
        logits = model(images.requires_grad_())
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
        outputs.append((logits.detach(), gradient))
    for mine, theirs in zip(*outputs, strict=True):
        assert theirs.std() > 0
        assert (mine - theirs).abs().max() <= 1e-9 * mine.abs().max()


def test_the_copy_is_in_evaluation_mode_and_the_network_as_it_was():
    network = lively(sequence()).train()
    folded = fold_batch_norms(network)
    assert count(folded) == 0 and not folded.training
    assert count(network) > 0 and network.training


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


def sequence(convolution=None, norm=None):
    return nn.Sequential(convolution or nn.Conv2d(3, 3, 1), norm or nn.BatchNorm2d(3))


def hooked():
    convolution = nn.Conv2d(3, 3, 1)
    convolution.register_forward_hook(lambda module, args, output: output.relu())
    return convolution


@pytest.mark.parametrize(
    "build",
    [
        DependsOnData,
        ConvUsedTwice,
        WeightReadElsewhere,
        lambda: sequence(OwnConvolution(3, 3, 1)),
        lambda: sequence(hooked()),
        lambda: sequence(norm=OwnNorm(3)),
    ],
)
def test_what_cannot_be_folded_stays(build):
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    folded = fold_batch_norms(network)
    assert count(folded) == 1
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(folded(images), copy.deepcopy(network).eval()(images))
