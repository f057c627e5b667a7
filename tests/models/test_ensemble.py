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


def test_averages_of_three_against_hand_computed_ones():
    logits = torch.tensor([[0.0, 2.0, 4.0], [3.0, 0.0, 0.0], [0.0, 4.0, 2.0]])
    members, p = [Fixed(*row) for row in logits.tolist()], logits.softmax(1)
    geometric = p.prod(0) ** (1 / 3)
    expected = {
        "logits": torch.tensor([1.0, 2.0, 2.0]).softmax(0),
        "probabilities": p.mean(0),
        "loss": geometric / geometric.sum(),
    }
    for average, probabilities in expected.items():
        ensemble = Ensemble(members, average)
        found = ensemble(IMAGES)
        torch.testing.assert_close(found.softmax(1), probabilities.expand(2, 3))
        attacked = logits[:, None].expand(3, 2, 3) if average == "loss" else found
        assert torch.equal(ensemble.attacked(IMAGES), attacked)
