from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Problem
from src.attacks.zoo.feature.weighted_features import Score, WeightedFeatures
from src.utils.checked_dataclass import checked


@checked
class NeuronAttribution(WeightedFeatures):
    """Lower a layer's attributions w * (f(x_t) - f(0)) to the true class's probability p_y.

    w = s / ||s||_2, s = sum of grad_f p_y(z_l), z_l = (1 - l / points) * (x + sigma * N(0, I)) for
    l = 0, ..., points - 1: a noisy path from the image to black. Positive and negative attributions
    count alike (the paper's gamma is 1), so the constant f(0) can be left out.

    Args:
        points: Number of points on the path.
        sigma_255: Standard deviation of the noise, in units of 1/255.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Zhang et al. (2022), arXiv 2204.00008.

    Deviation: every network gets the noise of the authors' Inception (authors: noise of one size
    after any normalisation; TransferAttack: no noise, and a path with black but without the image).
    Target labels and members are as in `fia`.
    """

    points: PositiveInt = 30
    sigma_255: Annotated[float, Ge(0), Le(255)] = 25.5
    score: Score = "probability"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        for number in range(self.points):
            noise = problem.random.normal(*problem.images.shape[1:]) * (self.sigma_255 / 255)
            yield (1 - number / self.points) * (problem.images + noise)


@attack(
    objective=NeuronAttribution,
    decay=1.0,
    gradients=lambda n: n.points + 1 + n.budgets * (n.steps - 1),
)
def naa() -> None:
    """Lower neuron attributions at a layer: NAA, with momentum."""
