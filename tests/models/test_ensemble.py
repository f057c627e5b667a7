"""Several classifiers as one source."""

import torch
from torch import nn

from src.models import Ensemble


class Fixed(nn.Module):
    """Predicts the same logits for all images."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images):
        return self.logits.expand(len(images), -1)


IMAGES = torch.zeros(2, 3, 4, 4)


def test_averages_against_hand_computed_ones():
    one, two = Fixed(0.0, 2.0, 4.0), Fixed(3.0, 0.0, 0.0)
    p, q = one.logits.softmax(1), two.logits.softmax(1)
    expected = {
        "logits": torch.tensor([[1.5, 1.0, 2.0]]).softmax(1),
        "probabilities": (p + q) / 2,
        "loss": (p * q).sqrt() / (p * q).sqrt().sum(),
    }
    for average, probabilities in expected.items():
        logits = Ensemble([one, two], average)(IMAGES)
        torch.testing.assert_close(logits.softmax(1), probabilities.expand(2, 3))


def test_an_attack_on_the_mean_loss_sees_every_member():
    ensemble = Ensemble([Fixed(0.0, 2.0), Fixed(3.0, 0.0)], "loss")
    assert ensemble.attacked(IMAGES).shape == (2, 2, 2)
    for average in ("logits", "probabilities"):
        ensemble = Ensemble([Fixed(0.0, 2.0), Fixed(3.0, 0.0)], average)
        assert torch.equal(ensemble.attacked(IMAGES), ensemble(IMAGES))
