"""Narrow networks for 32-pixel images: the families of large networks at a fraction of the cost.

Their blocks are torchvision's and timm's. An image of 32 pixels costs 14 to 47 million
multiply-adds.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.googlenet import Inception
from torchvision.models.inception import BasicConv2d
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation


def _classifier(stages: dict[str, nn.Module], channels: int, num_classes: int) -> nn.Module:
    """Return a network: the stages, average pooling of the last feature map, a linear layer."""
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(stages | head | {"fc": nn.Linear(channels, num_classes)}))


def vgg_small(num_classes: int) -> nn.Module:
    """Build VGG-16 with batch normalisation, about a quarter as wide, and one linear layer."""
    widths: list[str | int] = [16, 16, "M", 32, 32, "M"]
    widths += [80, 80, 80, "M", 160, 160, 160, "M", 160, 160, 160]
    return _classifier({"features": make_layers(widths, batch_norm=True)}, 160, num_classes)


def resnet_small(
    num_classes: int, widths: Sequence[int] = (32, 64, 128), blocks: int = 2
) -> nn.Module:
    """Build a residual network: a convolution, then stages of two blocks at 16, 8 and 4 pixels.

    Args:
        num_classes: Number of classes.
        widths: Channels of the three stages; the first convolution has as many as the first stage.
        blocks: Blocks per stage.
    """
    channels = widths[0]
    convolution = nn.Conv2d(3, channels, 3, padding=1, bias=False)
    stem = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    stages: dict[str, nn.Module] = {"stem": stem}
    for width in widths:
        shortcut = nn.Conv2d(channels, width, 1, stride=2, bias=False)
        across = nn.Sequential(shortcut, nn.BatchNorm2d(width))
        others = [BasicBlock(width, width) for _ in range(blocks - 1)]
        stage = nn.Sequential(BasicBlock(channels, width, 2, across), *others)
        stages[f"stage{len(stages)}"] = stage
        channels = width
    return _classifier(stages, channels, num_classes)


def inception_small(num_classes: int) -> nn.Module:
    """Build an Inception network of four blocks, at 16, 8, 8 and 4 pixels."""
    stem = nn.Sequential(BasicConv2d(3, 32, kernel_size=3, padding=1), nn.MaxPool2d(2))
    stages: dict[str, nn.Module] = {"stem": stem}
    channels = 32
    for width, repeats in ((16, 1), (32, 2), (32, 1)):
        blocks: list[nn.Module] = [] if channels == 32 else [nn.MaxPool2d(2)]
        for _ in range(repeats):
            branches = 2 * width, 2 * width, 4 * width, width, width, width
            blocks.append(Inception(channels, *branches))
            channels = 8 * width
        stages[f"stage{len(stages)}"] = nn.Sequential(*blocks)
    return _classifier(stages, channels, num_classes)


def mobilenet_small(num_classes: int) -> nn.Module:
    """Build MobileNet (Howard et al. 2017, arXiv 1704.04861), at 32, 16, 8 and 4 pixels."""
    layer = partial(Conv2dNormActivation, activation_layer=nn.ReLU)
    layers: list[nn.Module] = [layer(3, 32, 3)]
    channels = 32
    for width, stride in ((64, 2), (128, 1), (192, 2), (192, 1), (192, 1), (384, 2), (384, 1)):
        layers.append(layer(channels, channels, 3, stride, groups=channels))
        layers.append(layer(channels, width, 1))
        channels = width
    return _classifier({"features": nn.Sequential(*layers)}, channels, num_classes)


def vit_small(num_classes: int) -> nn.Module:
    """Build timm's vision transformer: patches of 4 pixels, six blocks, 96 channels, 3 heads.

    Its linear layer takes the average over the patches, without a class token.
    """
    return VisionTransformer(
        img_size=32,
        patch_size=4,
        num_classes=num_classes,
        global_pool="avg",
        class_token=False,
        embed_dim=96,
        depth=6,
        num_heads=3,
    )
