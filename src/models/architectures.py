"""The catalogue's networks, made from torchvision's and timm's own.

A stem decides how a network meets the image. ``imagenet`` is the original one. ``cifar`` keeps more
resolution in the first layers, so that 32-pixel images do not shrink to one pixel at once; these
variants have the state-dict names and shapes of the public CIFAR-10 checkpoints of
https://github.com/huyvnphan/PyTorch_CIFAR10, which therefore load as they are.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.inception import BasicConv2d

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
LARGEST_CIFAR_STEM = 64  # pixels; above it the original stems leave enough resolution
SMALLEST_INCEPTION = 75  # pixels; below it the original Inception v3 runs out of them
STEMS = ("cifar", "imagenet")


def vgg16(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build VGG-16 with batch normalisation.

    The ``cifar`` stem averages the last feature map to one pixel, so that the first fully connected
    layer has 512 inputs rather than 25,088.

    Args:
        num_classes: Number of logits.
        image_size: Side in pixels of the images that the network gets; decides a stem of None.
        stem: ``cifar``, ``imagenet`` or None.
        pretrained: Start from torchvision's ImageNet weights wherever name and shape fit.

    Returns:
        The network, its normalisation in ``pretrained_cfg``.
    """
    stem = _stem(stem, image_size)
    # On the meta device nothing is allocated or drawn, so each weight is initialised once.
    with torch.device("meta"):
        network = torchvision.models.vgg16_bn(num_classes=num_classes, init_weights=False)
        if stem == "cifar":
            network.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            network.classifier[0] = nn.Linear(512, 4096)
    network = network.to_empty(device="cpu")
    _initialise(network)
    return _finish(network, "vgg16_bn", stem, pretrained)


def resnet50(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build ResNet-50; the ``cifar`` stem is a 3x3 convolution of stride 1, the max-pool kept.

    Args: see `vgg16`.
    """
    own = (num_classes, image_size, stem, pretrained)
    return _with_stem("resnet50", *own, lambda net: net.set_submodule("conv1", _convolution()))


def resnet18(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build ResNet-18; the ``cifar`` stem is that of `resnet50`.

    Args: see `vgg16`.
    """
    own = (num_classes, image_size, stem, pretrained)
    return _with_stem("resnet18", *own, lambda net: net.set_submodule("conv1", _convolution()))


def inception_v3(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build Inception v3 without its auxiliary head.

    The ``cifar`` stem is one 3x3 convolution to 192 channels: the inception blocks then run at full
    resolution, about 4 GMACs for a 32-pixel image.

    Args: see `vgg16`.

    Raises:
        ValueError: If the ``imagenet`` stem is asked for on images below 75 pixels.
    """
    stem = _stem(stem, image_size)
    if stem == "imagenet" and image_size < SMALLEST_INCEPTION:
        raise ValueError(
            f"Inception v3 with the imagenet stem needs images of at least {SMALLEST_INCEPTION} "
            f"pixels, not {image_size}: give it an input_size, or stem=cifar."
        )
    # torchvision's weights expect images normalised by 0.5/0.5, and `transform_input` makes those
    # of images normalised by the ImageNet constants, which is what `pretrained_cfg` states. It
    # is on for every imagenet stem, so that a weight file means the same however it is loaded.
    # PyTorch's default initialisation: torchvision's own one of this network is slow.
    network = torchvision.models.inception_v3(
        weights=None,
        num_classes=num_classes,
        aux_logits=False,
        init_weights=False,
        transform_input=stem == "imagenet",
    )
    if stem == "cifar":
        network.Conv2d_1a_3x3 = BasicConv2d(3, 192, kernel_size=3, stride=1, padding=1)
        for name in (
            *("Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
            *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
        ):
            network.set_submodule(name, nn.Identity())
    return _finish(network, "inception_v3", stem, pretrained)


def densenet121(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build DenseNet-121; the ``cifar`` stem is a 3x3 convolution of stride 1, the max-pool kept.

    Args: see `vgg16`.
    """
    own = (num_classes, image_size, stem, pretrained)
    place = "features.conv0"
    return _with_stem("densenet121", *own, lambda net: net.set_submodule(place, _convolution()))


def mobilenet_v2(
    num_classes: int, image_size: int, stem: str | None = None, pretrained: bool = False
) -> nn.Module:
    """Build MobileNet v2; in the ``cifar`` stem the first two strides of 2 become 1.

    Args: see `vgg16`.
    """

    def keep_resolution(network: nn.Module) -> None:
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        for convolution in [part for part in convolutions if part.stride == (2, 2)][:2]:
            convolution.stride = (1, 1)

    own = (num_classes, image_size, stem, pretrained)
    return _with_stem("mobilenet_v2", *own, keep_resolution)


def torchvision_model(
    name: str, num_classes: int, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Build any torchvision classifier by its name, as torchvision builds it.

    Args:
        name: A name that ``torchvision.models.list_models(torchvision.models)`` lists.
        num_classes: Number of logits.
        pretrained: Start from torchvision's ImageNet weights wherever name and shape fit.
        options: Further keyword arguments of the torchvision builder.

    Raises:
        ValueError: If torchvision has no such model, or its weights cannot be downloaded.
    """
    if name in ("inception_v3", "googlenet"):
        # One output in training, and the normalisation that `pretrained_cfg` states.
        options = {"aux_logits": False, "transform_input": True, "init_weights": False} | options
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return _finish(network, name, "imagenet", pretrained)


def timm_model(name: str, num_classes: int, pretrained: bool = False, **options: Any) -> nn.Module:
    """Build any timm model by its name; pin a recipe as ``architecture.tag``.

    Args:
        name: A name that timm knows, such as ``convnext_atto.d2_in1k``.
        num_classes: Number of logits.
        pretrained: Start from the weights of that tag.
        options: Further keyword arguments of ``timm.create_model``.

    Returns:
        The network; timm sets ``pretrained_cfg`` (mean, std, input_size) from the tag.

    Raises:
        ValueError: If the weights cannot be downloaded.
        RuntimeError: If timm has no such model or tag.
    """
    import timm  # here, since its import takes a second that other models need not wait for

    if pretrained:
        _try_hub()
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, **options
        )
    except OSError as error:
        raise ValueError(_no_download(name)) from error
    return network


@lru_cache(maxsize=1)
def _try_hub() -> None:
    """Ask once whether timm's weights can be downloaded; else only those kept from before are used.

    The hub's own client asks for each of several files, six times in half a minute.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of whatever library it asks with
        constants.HF_HUB_OFFLINE = True


def _with_stem(
    name: str,
    num_classes: int,
    image_size: int,
    stem: str | None,
    pretrained: bool,
    make_cifar: Callable[[nn.Module], None],
) -> nn.Module:
    """Build a network by its torchvision name, its stem changed in place for the ``cifar`` one."""
    stem = _stem(stem, image_size)
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    if stem == "cifar":
        make_cifar(network)
    return _finish(network, name, stem, pretrained)


def _stem(stem: str | None, image_size: int) -> str:
    """Return the stem asked for, or the one that suits the image size."""
    if stem is None:
        return "cifar" if image_size <= LARGEST_CIFAR_STEM else "imagenet"
    if stem not in STEMS:
        raise ValueError(f"stem must be null, {' or '.join(STEMS)}, not {stem!r}.")
    return stem


def _convolution() -> nn.Conv2d:
    """Return the 3x3, stride-1 replacement of a 7x7, stride-2 first convolution."""
    convolution = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _initialise(network: nn.Module) -> None:
    """Initialise a VGG in place, as torchvision does: He-normal convolutions, small linears."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _finish(network: nn.Module, torchvision_name: str, stem: str, pretrained: bool) -> nn.Module:
    """State the normalisation and, if asked, load the ImageNet weights that fit."""
    # By the stem alone, so that a file of weights does not depend on what training started from.
    stated: Any = network
    stated.pretrained_cfg = dict(CIFAR10 if stem == "cifar" else IMAGENET)
    if pretrained:
        _load_imagenet(network, torchvision_name)
    return network


def _load_imagenet(network: nn.Module, name: str) -> None:
    """Copy torchvision's ImageNet weights into every tensor of the same name and shape."""
    try:
        entry = torchvision.models.get_model_weights(name).DEFAULT
        state = entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a cut-off download
        raise ValueError(_no_download(name)) from error
    own = network.state_dict()
    fitting = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    network.load_state_dict(fitting, strict=False)


def _no_download(name: str) -> str:
    """Return the sentence for weights that could not be fetched."""
    return (
        f"The pretrained weights of {name} could not be downloaded: without a network give a file, "
        "model.NAME.weights=PATH, or start untrained, model.NAME.network.pretrained=false."
    )
