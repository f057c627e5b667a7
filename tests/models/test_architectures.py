import hashlib
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torchvision.models._api import WeightsEnum

from src.models import PixelClassifier, architectures
from src.models.architectures import (
    CIFAR10,
    IMAGENET,
    densenet121,
    inception_v3,
    mobilenet_v2,
    resnet18,
    resnet50,
    timm_model,
    torchvision_model,
    vgg16,
)

BUILDERS = {
    "vgg16": vgg16,
    "resnet18": resnet18,
    "inception_v3": inception_v3,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
}


def layout(network):
    """Return a digest of a state dict's names and shapes."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# Names and shapes of the public CIFAR-10 checkpoints of huyvnphan/PyTorch_CIFAR10.
@pytest.mark.parametrize(
    ("builder", "entries", "parameters", "digest", "last"),
    [
        (vgg16, 97, 33_646_666, "90bb4205b79319de", "classifier.6.weight"),
        (resnet50, 320, 23_520_842, "82e907f13c51e2ca", "fc.weight"),
        (inception_v3, 542, 21_638_954, "651e7c3705d83fe4", "fc.weight"),
    ],
)
def test_cifar_stems_take_the_public_checkpoints(builder, entries, parameters, digest, last):
    network = builder(10, 32)
    state = network.state_dict()
    assert len(state) == entries
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert len(state[last]) == 10
    assert layout(network) == digest


@pytest.mark.parametrize("name", BUILDERS)
def test_cifar_stem_trains_and_states_its_normalisation(name):
    torch.manual_seed(0)
    network = BUILDERS[name](7, 32).train()
    assert network.pretrained_cfg == CIFAR10
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(value.grad is not None for value in network.parameters())
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("builder", "name"),
    [(resnet50, "resnet50"), (densenet121, "densenet121"), (mobilenet_v2, "mobilenet_v2")],
)
def test_imagenet_stem_is_torchvisions_network(builder, name):
    network = builder(10, 224)
    reference = torchvision.models.get_model(name, weights=None, num_classes=10)
    assert layout(network) == layout(reference)
    assert str(network) == str(reference)
    assert network.pretrained_cfg == IMAGENET


def test_meta_built_vgg_is_torchvisions_network():
    network = vgg16(10, 32)
    with torch.device("meta"):
        reference = torchvision.models.vgg16_bn(num_classes=10, init_weights=False)
    assert str(network.features) == str(reference.features)
    assert str(network.classifier[1:]) == str(reference.classifier[1:])
    # He initialisation by the outputs of 3x3x512 weights, as torchvision has it.
    assert network.features[40].weight.std().item() == pytest.approx((2 / 4608) ** 0.5, rel=0.01)
    assert network.classifier[3].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert network.features[41].running_var.eq(1).all()
    assert network.classifier[0].bias.eq(0).all()


def test_image_size_decides_the_stem_unless_it_is_given():
    def first_kernel(size, stem=None):
        return resnet18(10, size, stem=stem).conv1.kernel_size

    assert first_kernel(64) == (3, 3)
    assert first_kernel(65) == (7, 7)
    assert first_kernel(224, "cifar") == (3, 3)
    assert first_kernel(32, "imagenet") == (7, 7)
    with pytest.raises(ValueError, match="small"):
        resnet18(10, 32, stem="small")


@pytest.mark.parametrize(
    "network",
    [inception_v3(10, 80), torchvision_model("inception_v3", 10)],
    ids=["ours", "generic"],
)
def test_imagenet_inception_sees_pixels_scaled_to_plus_minus_one(network):
    # torchvision's inception weights were trained on 2 x - 1. The stated normalisation and the
    # network's transform_input must compose to exactly that, or contrast is halved.
    model = PixelClassifier(network, **network.pretrained_cfg).eval()
    seen = []
    network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        model(images)
    torch.testing.assert_close(seen[0], 2 * images - 1)


def test_pretrained_fills_whatever_fits(monkeypatch):
    source = torchvision.models.resnet18()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: source.state_dict())
    small = resnet18(10, 32, pretrained=True)
    assert torch.equal(small.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert small.fc.weight.shape == (10, 512)
    whole = resnet18(1000, 224, pretrained=True)
    assert all(torch.equal(whole.state_dict()[k], v) for k, v in source.state_dict().items())


def test_no_network_is_one_sentence(monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(architectures, "_try_hub", lambda: None)
    for build in (
        lambda: resnet18(10, 32, pretrained=True),
        lambda: torchvision_model("alexnet", 10, pretrained=True),
        lambda: timm_model("resnet18.a1_in1k", 10, pretrained=True),
    ):
        with pytest.raises(ValueError, match="weights=PATH"):
            build()


def test_any_model_of_the_libraries_by_its_name():
    theirs = torchvision_model("squeezenet1_1", 5)
    timms = timm_model("convnext_atto.d2_in1k", 5, drop_path_rate=0.1)
    for network in (theirs, timms):
        assert network.pretrained_cfg["mean"] == IMAGENET["mean"]
        assert network.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 5)
    with pytest.raises(ValueError, match="resnet51"):
        torchvision_model("resnet51", 10)
    for name, says in (("convnext_ato", "convnext_ato"), ("resnet50.nope", "nope")):
        with pytest.raises(RuntimeError, match=says):
            timm_model(name, 5)
