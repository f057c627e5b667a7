"""On photographs and two ImageNet models, transfer is as the papers' tables have it."""

import pytest
import torch

from src.attacks import bim, di_fgsm, mi_fgsm
from src.data import ImageDataset, to_unit
from src.data.image_csv import image_csv
from src.models import build_classifier

SOURCE = ("mobilenetv2_100", {"_target_": "timm.create_model", "model_name": "mobilenetv2_100"})
TARGET = ("squeezenet1_0", {"_target_": "torchvision.models.squeezenet1_0"})
NORMALISED = {
    "mobilenetv2_100": ([0.5] * 3, [0.5] * 3, {"pad_type": "same"}),
    "squeezenet1_0": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], {}),
}


@pytest.fixture
def models(real_data):
    built = []
    for name, network in (SOURCE, TARGET):
        mean, std, more = NORMALISED[name]
        settings = {
            "network": {**network, **more},
            "mean": mean,
            "std": std,
            "input_size": 224,
            "weights": str(real_data / f"imagenet-{name}.pt"),
        }
        model = build_classifier(name, **settings, num_classes=1000, image_size=299)
        built.append(model.eval().requires_grad_(False))
    return built


@pytest.mark.slow
@pytest.mark.realdata
def test_momentum_and_input_diversity_transfer_better_than_bim(real_data, models, tmp_path):
    source, target = models
    root = str(real_data / "imagenet-nips2017-250.tar")
    dataset = ImageDataset(image_csv("test", root=root, cache_dir=str(tmp_path)))
    batch = dataset.__getitems__(list(range(60)))
    images = to_unit(batch.images)
    right = torch.stack([model(images).argmax(1) == batch.labels for model in models]).all(0)
    images, labels = images[right], batch.labels[right]
    assert len(images) > 20
    wrong = {}
    for attack in (bim, mi_fgsm, di_fgsm):
        adversarial = attack(source, images, labels, 16 / 255, max_batch=20)
        assert (source(adversarial).argmax(1) != labels).all()
        wrong[attack.__name__] = int((target(adversarial).argmax(1) != labels).sum())
    assert wrong["bim"] + len(images) / 5 < wrong["mi_fgsm"] < wrong["di_fgsm"] + len(images) / 5
    assert wrong["bim"] + len(images) / 5 < wrong["di_fgsm"]
