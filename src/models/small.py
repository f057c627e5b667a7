"""Narrow networks for 32-pixel images: the families of large networks at a fraction of the cost.

An image of 32 pixels costs 14 to 47 million multiply-adds. The blocks are torchvision's, written
again because its import takes seconds. Attacks recognise blocks by the names of their classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Residual block of two convolutions; `downsample` projects its input."""

    def __init__(
        self, channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, z: Tensor) -> Tensor:
        """Return feature maps (N, width, H / stride, W / stride)."""
        f = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(z)))))
        f += z if self.downsample is None else self.downsample(z)
        return self.relu(f)


class BasicConv2d(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, channels: int, width: int, size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, z: Tensor) -> Tensor:
        """Return feature maps (N, width, H, W)."""
        return functional.relu(self.bn(self.conv(z)), inplace=True)


class Inception(nn.Module):
    """GoogLeNet's block: four branches side by side, of 8 * width channels together."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        two, four, pool = 2 * width, 4 * width, nn.MaxPool2d(3, 1, padding=1, ceil_mode=True)
        self.branch1 = BasicConv2d(channels, two)
        self.branch2 = nn.Sequential(BasicConv2d(channels, two), BasicConv2d(two, four, 3))
        self.branch3 = nn.Sequential(BasicConv2d(channels, width), BasicConv2d(width, width, 3))
        self.branch4 = nn.Sequential(pool, BasicConv2d(channels, width))

    def forward(self, z: Tensor) -> Tensor:
        """Return feature maps (N, 8 * width, H, W)."""
        return torch.cat([branch(z) for branch in self.children()], 1)


class Conv2dNormActivation(nn.Sequential):
    """Convolution, batch norm and ReLU, as MobileNets have them."""

    def __init__(
        self, channels: int, width: int, size: int, stride: int = 1, groups: int = 1
    ) -> None:
        convolution = nn.Conv2d(channels, width, size, stride, size // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _classifier(stages: dict[str, nn.Module], channels: int, num_classes: int) -> nn.Module:
    """Return a network: the stages, average pooling of the last feature map, a linear layer."""
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(stages | head | {"fc": nn.Linear(channels, num_classes)}))


def vgg_small(num_classes: int) -> nn.Module:
    """Build VGG-16 with batch normalisation, about a quarter as wide, and one linear layer."""
    layers, channels = list[nn.Module](), 3
    for stage in ((16, 16), (32, 32), (80, 80, 80), (160, 160, 160), (160, 160, 160)):
        layers += [nn.MaxPool2d(2)] * bool(layers)
        for width in stage:
            convolution = nn.Conv2d(channels, width, 3, padding=1)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return _classifier({"features": nn.Sequential(*layers)}, channels, num_classes)


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
    stem = nn.Sequential(BasicConv2d(3, 32, 3), nn.MaxPool2d(2))
    stages: dict[str, nn.Module] = {"stem": stem}
    channels = 32
    for width, repeats in ((16, 1), (32, 2), (32, 1)):
        blocks: list[nn.Module] = [] if channels == 32 else [nn.MaxPool2d(2)]
        for _ in range(repeats):
            blocks.append(Inception(channels, width))
            channels = 8 * width
        stages[f"stage{len(stages)}"] = nn.Sequential(*blocks)
    return _classifier(stages, channels, num_classes)


def mobilenet_small(num_classes: int) -> nn.Module:
    """Build MobileNet (Howard et al. 2017, arXiv 1704.04861), at 32, 16, 8 and 4 pixels."""
    layers: list[nn.Module] = [Conv2dNormActivation(3, 32, 3)]
    channels = 32
    for width, stride in ((64, 2), (128, 1), (192, 2), (192, 1), (192, 1), (384, 2), (384, 1)):
        layers.append(Conv2dNormActivation(channels, channels, 3, stride, groups=channels))
        layers.append(Conv2dNormActivation(channels, width, 1))
        channels = width
    return _classifier({"features": nn.Sequential(*layers)}, channels, num_classes)


def vit_small(num_classes: int) -> nn.Module:
    """Build timm's vision transformer: patches of 4 pixels, six blocks, 96 channels, 3 heads.

    Its linear layer takes the average over the patches, without a class token.
    """
    from timm.models.vision_transformer import VisionTransformer  # slow to import

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
