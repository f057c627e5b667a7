"""The narrow networks and their weights in the package."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from src.data import ImageDataset
from src.data.cifar10_mini import ARCHIVE, cifar10_mini
from src.models import build_classifier

NAMES = [path.stem for path in sorted(ARCHIVE.parent.glob("*.safetensors"))]


@pytest.mark.parametrize("name", NAMES)
def test_stored_weights_reach_their_accuracy_at_few_multiply_adds(name):
    model = build_classifier(
        name,
        {"_target_": f"src.models.small.{name}", "num_classes": None},
        mean=None,
        std=None,
        input_size=None,
        weights=str(ARCHIVE.with_name(f"{name}.safetensors")),
        num_classes=10,
        image_size=32,
    )
    data = ImageDataset(cifar10_mini("test"))
    batch = data.__getitems__(range(len(data)))
    with torch.no_grad():
        correct = (model(batch.images / 255).argmax(1) == batch.labels).float().mean()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 32, 32))
    assert correct > 0.85
    assert counter.get_total_flops() / 2 < 30e6
