from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from src.data import ImageDataset, to_unit
from src.data.image_csv import image_csv
from src.models import build_classifier, fold_batch_norms, save_weights
from src.models.architectures import CIFAR10, IMAGENET, resnet18

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(path.stem for path in CONF.glob("*.yaml"))


def entry(file, image_size=32, **changes):
    """Resolve one model file against a data set of ten classes, as the program does."""
    name = "inception" if file == "inception_resized" else file
    content = {
        "model": {name: OmegaConf.load(CONF / f"{file}.yaml")},
        "dataset": {"num_classes": 10, "image_size": image_size},
    }
    changed = OmegaConf.create(content)
    for key, value in changes.items():
        OmegaConf.update(changed.model[name], key.replace("__", "."), value)
    return OmegaConf.to_container(changed, resolve=True)["model"][name]


@pytest.mark.parametrize("file", FILES)
def test_every_file_builds_on_small_images(file):
    first, *_ = (CONF / f"{file}.yaml").read_text().splitlines()
    assert first == f"# @package model.{'inception' if file == 'inception_resized' else file}"
    changes = {"network__pretrained": False}
    if file in ("vit", "convnext", "torchvision", "timm"):
        changes["input_size"] = 64  # 224 is slow here
    if file in ("timm", "torchvision"):
        changes["network__name"] = "resnet18"
    model = build_classifier(file, entry(file, **changes), 10, image_size=32)
    assert not model.training
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_only_the_models_with_pinned_tags_download_by_default():
    downloads = {file for file in FILES if entry(file)["network"].get("pretrained")}
    assert downloads == {"vit", "convnext", "timm", "torchvision"}
    assert all("." in entry(file)["network"]["name"] for file in ("vit", "convnext"))


def test_a_missing_name_is_asked_for():
    with pytest.raises(ValueError, match=r"model timm: network\.name must be given"):
        build_classifier("timm", entry("timm"), 10)


def test_normalisation_is_the_networks_unless_given():
    model = build_classifier("resnet18", entry("resnet18"), 10)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(CIFAR10["mean"]))
    model = build_classifier("resnet18", entry("resnet18", image_size=96), 10, image_size=96)
    torch.testing.assert_close(model.std.flatten(), torch.tensor(IMAGENET["std"]))
    model = build_classifier("resnet18", entry("resnet18", mean=[0.1, 0.2, 0.3]), 10)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(model.std.flatten(), torch.tensor(CIFAR10["std"]))


def test_input_size_decides_the_stem():
    model = build_classifier("resnet18", entry("resnet18", input_size=96), 10, image_size=32)
    assert model.network.conv1.kernel_size == (7, 7)


def test_nulls_come_from_the_data_set():
    config = entry("resnet18", network__num_classes=None, network__image_size=None)
    model = build_classifier("resnet18", config, 7, image_size=32)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 7)


def test_a_weight_file_replaces_the_download(tmp_path):
    path = tmp_path / "w.safetensors"
    source = resnet18(10, 32)
    save_weights(source, path)
    # With pretrained=true the build would need the internet.
    config = entry("resnet18", weights=str(path), network__pretrained=True)
    model = build_classifier("resnet18", config, 10)
    assert torch.equal(model.network.fc.weight, source.fc.weight)


def test_included_weights_stay_as_built():
    model = build_classifier("resnet18", entry("resnet18", weights="included"), 10)
    assert model.network.fc.out_features == 10


def test_wrong_class_counts_are_refused(tmp_path):
    says = "model resnet18: the network has 10 classes, the data set 12"
    with pytest.raises(ValueError, match=says):
        build_classifier("resnet18", entry("resnet18"), 12)
    save_weights(resnet18(100, 32), tmp_path / "w.safetensors")
    config = entry("resnet18", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="is for 100 classes, the data set has 10"):
        build_classifier("resnet18", config, 10)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"network": None}, "network must name a callable"),
        ({"network": {"_target_": "src.models.nothing"}}, "src.models.nothing cannot be found"),
        ({"network": {"_target_": "nopackage.net"}}, "nopackage.net cannot be found"),
        (
            {"network": {"_target_": "torch.nn.Linear", "depth": 3}},
            "torch.nn.Linear failed with Ty",
        ),
        ({"network": {"_target_": "builtins.dict"}}, "must return a torch.nn.Module, not dict"),
        ({"network": {"_target_": "torch.nn.Identity"}}, "mean is null"),
        (
            {"network": {"_target_": "torch.nn.Flatten"}, "mean": [0, 0, 0], "std": [1, 1, 1]},
            "has 3072 classes",
        ),
        (
            {"network": {"_target_": "torch.nn.Identity"}, "mean": [0, 0, 0], "std": [1, 1, 1]},
            "must return logits",
        ),
        ({"network": {"_target_": "torch.nn.Identity"}, "input": 3}, "unknown key 'input'"),
    ],
)
def test_wrong_entries_are_one_sentence(config, says):
    with pytest.raises(ValueError, match=f"^model mine: .*{says}") as caught:
        build_classifier("mine", config, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "/nowhere/w.pt"}, "weights must be null, 'included' or an existing file"),
        ({"network__stem": "tiny"}, "^model resnet18: stem must be"),
        ({"std": [1, 1]}, "std must hold three"),
        ({"network__depth": 3}, "resnet18 failed with TypeError"),
    ],
)
def test_wrong_settings_are_one_sentence(changes, says):
    with pytest.raises(ValueError, match=says) as caught:
        build_classifier("resnet18", entry("resnet18", **changes), 10)
    assert "\n" not in str(caught.value)


class Odd(nn.Module):
    """A small classifier with an oddity."""

    def __init__(self, oddity):
        super().__init__()
        self.oddity = oddity
        self.conv, self.norm = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
        self.linear = nn.Linear(2 * 30 * 30, 10)

    def train(self, mode=True):
        return super().train(mode or self.oddity == "always in training mode")

    def forward(self, images):
        if self.oddity == "detach":
            images = images.detach()
        logits = self.linear(self.norm(self.conv(images)).flatten(1))
        if self.oddity == "argmax":
            return nn.functional.one_hot(logits.argmax(1), 10).float()
        if self.oddity == "numpy":
            return torch.from_numpy(logits.numpy())
        if self.oddity == "integers":
            return logits.long()
        return logits.round() if self.oddity == "round" else logits


@pytest.fixture
def odd(monkeypatch):
    """A function that builds a classifier with an oddity."""
    monkeypatch.setattr("src.models.architectures.odd", Odd, raising=False)

    def make(oddity, **words):
        network = {"_target_": "src.models.architectures.odd", "oddity": oddity}
        config = {"network": network, "mean": [0.5] * 3, "std": [0.5] * 3}
        return build_classifier("mine", config, 10, **words)

    return make


@pytest.mark.parametrize("oddity", ["detach", "argmax", "numpy"])
def test_a_source_without_a_gradient_is_refused_and_a_target_is_not(oddity, odd):
    message = "^model mine: it cannot be attacked, since its logits have no gradient"
    with pytest.raises(ValueError, match=message) as caught:
        odd(oddity, attacked=True)
    assert "\n" not in str(caught.value)
    with torch.no_grad():
        assert odd(oddity)(torch.rand(4, 3, 32, 32)).shape == (4, 10)


@pytest.mark.parametrize("oddity", ["none", "round"])
def test_a_gradient_may_be_zero(oddity, odd):
    assert not odd(oddity, attacked=True).training


def test_integers_are_no_logits(odd):
    with pytest.raises(ValueError, match=r"^model mine: the network must return logits, .* int64"):
        odd("integers")


def test_a_network_that_stays_in_training_mode_is_refused(odd):
    with pytest.raises(ValueError, match=r"^model mine: .* stays in training mode after eval\(\)"):
        odd("always in training mode")


def test_images_of_a_size_that_the_network_refuses():
    changes = {"network__pretrained": False, "input_size": None, "network__img_size": 64}
    with pytest.raises(
        ValueError, match=r"cannot take images of 32 pixels .*model\.vit\.input_size"
    ):
        build_classifier("vit", entry("vit", **changes), 10)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "network", "constants", "top1", "top5", "confidence"),
    [
        (
            "mobilenetv2_100",
            {"_target_": "src.models.architectures.timm_model", "pad_type": "same"},
            0.5,
            *(84.8, 97.2, 0.72),
        ),
        (
            "squeezenet1_0",
            {"_target_": "src.models.architectures.torchvision_model"},
            None,
            *(48.8, 79.6, 0.60),
        ),
    ],
)
def test_imagenet_models_reach_their_accuracy(
    real_data, name, network, constants, top1, top5, confidence
):
    config = {
        "network": network | {"name": name, "num_classes": 1000},
        "mean": constants and [constants] * 3,
        "std": constants and [constants] * 3,
        "input_size": 224,
        "weights": str(real_data / f"imagenet-{name}.pt"),
    }
    model = build_classifier(name, config, 1000, image_size=299)
    model = fold_batch_norms(model).to(memory_format=torch.channels_last)
    dataset = ImageDataset(image_csv("test", root=str(real_data / "imagenet-nips2017-250.tar")))
    labels = torch.as_tensor(dataset.labels)
    batches = [list(range(start, start + 50)) for start in range(0, 250, 50)]
    with torch.inference_mode():
        answers = [model(to_unit(dataset.__getitems__(batch).images)) for batch in batches]
    logits = torch.cat(answers)
    ranked = logits.argsort(dim=1, descending=True)
    hits = ranked[:, :5] == labels[:, None]
    assert 100 * hits[:, 0].float().mean().item() == pytest.approx(top1, abs=0.5)
    assert 100 * hits.any(dim=1).float().mean().item() == pytest.approx(top5, abs=0.5)
    mean_confidence = logits.softmax(1).amax(1).mean().item()
    assert mean_confidence == pytest.approx(confidence, abs=0.01)
