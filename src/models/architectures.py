"""Networks of the catalogue with a choice of stem, built from torchvision's networks.

A stem is the network's first layers. ``imagenet`` is the original stem; ``cifar`` keeps more
resolution for 32-pixel images, and loads the public CIFAR-10 checkpoints of
https://github.com/huyvnphan/PyTorch_CIFAR10 unchanged.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from ..utils.refusals import choose
from .pixel_classifier import NORMALISATION

LARGEST_CIFAR_STEM = 64  # pixels; larger images keep enough resolution in the original stems


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """Average to a fixed size; return inputs of this size as they are.

    On a GPU, the gradient of PyTorch's layer differs between runs. The class has its name, so that
    keys stay the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return feature maps (N, C, *output_size)."""
        same = input.shape[-2:] == self.output_size
        return input if same else super().forward(input)


def _vgg(num_classes: int, stem: str) -> nn.Module:
    """Build VGG-16 with batch normalisation; ``cifar`` averages the last feature map to one pixel.

    The first fully connected layer then has 512 inputs rather than 25,088.
    """
    # The meta device neither allocates nor draws, so each weight is initialised only once.
    with torch.device("meta"):
        network = torchvision.models.vgg16_bn(num_classes=num_classes, init_weights=False)
        if stem == "cifar":
            network.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            network.classifier[0] = nn.Linear(512, 4096)
        else:
            network.avgpool = AdaptiveAvgPool2d(network.avgpool.output_size)
    network = network.to_empty(device="cpu")
    for module in network.modules():  # as torchvision does it
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def _inception(num_classes: int, stem: str) -> nn.Module:
    """Build Inception v3 without its auxiliary head; ``cifar`` is one 3x3 convolution to 192.

    The inception blocks then run at full resolution, about 4 GMACs for a 32-pixel image.
    """
    network = torchvision.models.inception_v3(
        num_classes=num_classes,
        aux_logits=False,
        # torchvision's weights expect 0.5/0.5 normalisation: this converts from ImageNet's.
        transform_input=stem == "imagenet",
        init_weights=False,  # PyTorch's default initialisation; torchvision's is slow
    )
    if stem == "cifar":
        network.Conv2d_1a_3x3 = BasicConv2d(3, 192, kernel_size=3, stride=1, padding=1)
        later = "Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2"
        for name in later.split():
            network.set_submodule(name, nn.Identity())
    return network


def _mobilenet(num_classes: int, stem: str) -> nn.Module:
    """Build MobileNet v2; in the ``cifar`` stem the first two strides of 2 become 1."""
    network: nn.Module = torchvision.models.mobilenet_v2(weights=None, num_classes=num_classes)
    if stem == "cifar":
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        for convolution in [part for part in convolutions if part.stride == (2, 2)][:2]:
            convolution.stride = (1, 1)
    return network


def _first_convolution(name: str, place: str, num_classes: int, stem: str) -> nn.Module:
    """Build a network; its ``cifar`` stem is a 3x3 convolution of stride 1 and the max-pool."""
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    if stem == "cifar":
        convolution = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(place, convolution)
    return network


_BUILDERS: dict[str, Callable[[int, str], nn.Module]] = {
    "vgg16_bn": _vgg,
    "resnet18": partial(_first_convolution, "resnet18", "conv1"),
    "resnet50": partial(_first_convolution, "resnet50", "conv1"),
    "inception_v3": _inception,
    "densenet121": partial(_first_convolution, "densenet121", "features.conv0"),
    "mobilenet_v2": _mobilenet,
}


def model_with_stem(
    name: str, num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build one of the networks that have a ``cifar`` stem, such as `resnet50`.

    Args:
        name: torchvision's name, in `_BUILDERS`.
        num_classes: Number of logits.
        image_size: Side of the images in pixels.
        stem: ``cifar``, ``imagenet`` or None: ``cifar`` up to 64 pixels.
        pretrained: Start from torchvision's ImageNet weights wherever name and shape fit.

    Returns:
        The network, with its normalisation in ``pretrained_cfg``: CIFAR-10's for the ``cifar``
        stem, ImageNet's for the other. It does not depend on the weights, so a file always means
        the same.
    """
    if stem is None:
        stem = "cifar" if image_size <= LARGEST_CIFAR_STEM else "imagenet"
    choose("stem", stem, NORMALISATION)
    network: Any = _BUILDERS[name](num_classes, stem)
    network.pretrained_cfg = dict(NORMALISATION[stem])
    if pretrained:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        state = weights.get_state_dict(progress=False, check_hash=True)
        built = network.state_dict()
        common = built.keys() & state.keys()
        fitting = [key for key in common if built[key].shape == state[key].shape]
        network.load_state_dict({key: state[key] for key in fitting}, strict=False)
    return network


vgg16 = partial(model_with_stem, "vgg16_bn")
resnet18 = partial(model_with_stem, "resnet18")
resnet50 = partial(model_with_stem, "resnet50")
inception_v3 = partial(model_with_stem, "inception_v3")
densenet121 = partial(model_with_stem, "densenet121")
mobilenet_v2 = partial(model_with_stem, "mobilenet_v2")
