"""The narrow networks and their weights in the package."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from src import load_classifier
from src.data import ImageDataset
from src.data.cifar10_mini import ARCHIVE, CLASSES, cifar10_mini
from src.models import weight_facts

LEAST = {
    "vgg_small": 0.85,
    "resnet_small": 0.85,
    "inception_small": 0.85,
    "resnet_small_seed1": 0.85,
    "resnet_small_robust": 0.75,
    "mobilenet_small": 0.85,
    "vit_small": 0.65,
}
"""The accuracy that each should have learned."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST)
def test_stored_weights_have_their_stated_accuracy_at_few_multiply_adds(name):
    stated = weight_facts(ARCHIVE.with_name(f"{name}.safetensors"))
    assert stated.class_names == CLASSES and stated.expected_accuracy >= LEAST[name]
    model = load_classifier(name, "dataset=cifar10_mini")
    data = ImageDataset(cifar10_mini("test"))
    batch = data[:]
    with torch.no_grad():
        accuracy = (model(batch.images / 255).argmax(1) == batch.labels).float().mean()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 32, 32))
    operations = counter.get_total_flops() / 2
    assert abs(accuracy - stated.expected_accuracy) < 0.03  # of 1,000 images instead of 10,000
    assert operations < (45e6 if name != "vit_small" else 50e6)
