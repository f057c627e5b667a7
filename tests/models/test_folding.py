"""Copies of networks: with batch norms folded, and of networks that keep tensors of a pass."""

import copy
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


def same_padding():
    return timm.create_model("mobilenetv2_100", num_classes=10, pad_type="same")


@pytest.mark.parametrize(
    ("build", "before", "after"),
    [
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
    assert not fold_batch_norms(network.train()).training and network.eval()
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


IMAGES = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0))
IMAGES, LABELS = IMAGES.to(torch.uint8), torch.tensor([0, 1, 2, 3, 4, 0])


class Net(nn.Module):
    """A network that keeps something of its last pass."""

    def __init__(self, keep=lambda net, features: None):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), None
        self.relu, self.head, self.maps = nn.ReLU(), nn.Linear(4, 5), {}
        self.keep = keep

    def forward(self, images):
        features = self.relu(self.norm(self.convolution(images))).mean((2, 3))
        self.keep(self, features)
        return self.head(features)


def as_array(net, features):
    net.last = features.detach().numpy()


def with_a_hook():
    net = Net()
    net.norm.register_forward_hook(partial(remember, net.maps))
    return net


def remember(store, module, inputs, output):
    store["output"] = output


def normed(norm):
    net = Net()
    norm(net.convolution)
    return net


KEEPING = {
    "array": partial(Net, as_array),
    "hook": with_a_hook,
    "weight norm": partial(normed, nn.utils.parametrizations.weight_norm),
    "old weight norm": partial(normed, nn.utils.weight_norm),
    "old spectral norm": partial(normed, nn.utils.spectral_norm),
}
USES = {
    "gradient": lambda net, images: net(images.requires_grad_()).sum(),
    "no_grad": torch.no_grad()(lambda net, images: net(images)),
    "inference_mode": torch.inference_mode()(lambda net, images: net(images)),
}
of_old_norms = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def classifier(network):
    made = PixelClassifier(fold_batch_norms(network), [0] * 3, [1] * 3).eval()
    try_classifier(made, None, 16)
    return made


@of_old_norms
@pytest.mark.parametrize("kind", KEEPING)
def test_a_used_network_is_copied(kind):
    unused, images = KEEPING[kind]().eval(), IMAGES / 255
    for use in USES.values():
        used = KEEPING[kind]().eval()
        use(used, images.clone())
        attributes = {name: dict(vars(part)) for name, part in used.named_modules()}
        made = classifier(used)
        torch.testing.assert_close(made.network(images), unused(images))
        for name, part in used.named_modules():
            assert all(vars(part)[key] is value for key, value in attributes[name].items())


def transferred(network, *others):
    targets = {"s": network, **{f"t{number}": its for number, its in enumerate(others)}}
    transfer({"s": network}, targets, IMAGES, LABELS, progress_bar=False)


def test_other_types_of_numbers_are_named_with_the_way_on():
    for kind in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match=rf"^model s: .*{kind}: .*\.float\(\)") as caught:
            transferred(Net().eval().to(kind))
        assert "input_size" not in str(caught.value)
    network, other = (nn.Sequential(nn.Flatten(), nn.Linear(768, count)) for count in (5, 6))
    with pytest.raises(ValueError, match=r"\[5, 6\].*logits\[:, 1:\]"):
        transferred(network, other)
