"""From a file of the catalogue to a classifier."""

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from src import transfer
from src.attacks import Source
from src.config.compose import compose_words
from src.config.resolvers import CONF
from src.models import build_classifier, check_gradient
from src.models.architectures import NORMALISATION

FILES = sorted({path.stem for path in (CONF / "model").glob("[!_]*.yaml")} - {"answers"})
QUICK = ("inception_small", "resnet50", "vgg16", "vit_small")


def build(file, *words, classes=10):
    """Build the network of a model file, with other values for some keys."""
    words = [f"model.{file}.{word}" for word in words]
    config = compose_words(CONF, ["attack=none", f"targets=[{file}]", *words])
    settings = OmegaConf.to_container(config.model[file], resolve=True)
    settings.pop("expected_accuracy")
    return build_classifier(file, **settings, num_classes=classes, image_size=32)


def own(network, classes=10, **words):
    words = {"mean": [0.5] * 3, "std": [0.5] * 3} | words
    return build_classifier("mine", network, num_classes=classes, image_size=32, **words)


@pytest.mark.parametrize(
    "file",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FILES],
)
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
REFUSED = [
    ({"_target_": "nopackage.net"}, {}, "nopackage.net"),
    ({"_target_": "builtins.dict"}, {}, "dict"),
    ({"_target_": f"{__name__}.Large"}, {}, "memory"),
    (IDENTITY, {"mean": None}, "mean"),
    (FLATTEN, {"classes": 3071}, r"logits\[:, 1:\]"),
    (FLATTEN, {"std": [0.0] * 3, "classes": 3072}, "not finite"),
    (FLATTEN, {"feature_layer": "none", "classes": 3072}, "feature_layer=none"),
    (IDENTITY, {}, "logits"),
    (LINEAR, {"input_size": 1}, "at 1 x 1 pixels; set another input_size"),
]


def test_what_cannot_work_is_refused_in_a_sentence():
    for network, words, says in REFUSED:
        with pytest.raises(ValueError, match=f"^model mine: .*{says}") as caught:
            own(network, **words)
        assert "\n" not in str(caught.value)


ONE_LOGIT = nn.Sequential(nn.Flatten(), nn.Linear(3072, 1))
GREY = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1024, 2))


@pytest.mark.parametrize(("network", "says"), [(ONE_LOGIT, r"cat\(\[0, z\]\)"), (GREY, "in_chans")])
def test_one_logit_or_one_channel_is_refused_with_the_way_on(monkeypatch, network, says):
    images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    monkeypatch.setattr("torch.nn.mine", lambda: network, raising=False)
    with pytest.raises(ValueError, match=rf"^model mine: .*{says}"):
        own({"_target_": "torch.nn.mine"}, classes=2)
    with pytest.raises(ValueError, match=rf"^model a: .*{says}"):
        transfer({"a": network}, {"a": network}, images, labels)


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
