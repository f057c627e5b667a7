from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.landscape import Landscape
from src.attacks.parts import Problem
from src.attacks.projection import direction
from src.attacks.settings import Settings
from src.attacks.zoo.feature.weighted_features import Score, WeightedFeatures
from src.utils.checked_dataclass import checked


@checked
class BlackBoxFeatures(WeightedFeatures):
    """Lower features that raise the true class's logit in images moved along gradients; see `fia`.

    The weights come from z_i = x + distance * q_i / rms(q_i), i = 1, ..., points, unclipped. q_i is
    the gradient of the cross-entropy at z_{i-1}, and z_0 = x.

    Args:
        points: Number of moved images z_i.
        distance_255: Distance of z_i from x: root mean square in units of 1/255.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Wang et al.: Improving the Transferability of Adversarial Examples through Black-Box
    Feature Attacks (2024), https://www.sciencedirect.com/science/article/abs/pii/S0925231224006349

    Deviation: at every image size, the distance is the RMS of the authors' vectors of length 28
    over 3 x 299 x 299 values. q_i is the gradient with respect to pixels (authors: to normalised
    inputs). With target labels, q_i lowers their cross-entropy; otherwise target labels and members
    are as in `fia`.
    """

    points: PositiveInt = 30
    distance_255: Annotated[float, Ge(0), Le(255)] = 13.787
    score: Score = "logit"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        moved, landscape = problem.images, Landscape(problem, Settings())
        for _ in range(self.points):
            way = direction(landscape.gradient(moved[None])[0], "l2")
            moved = problem.images + self.distance_255 / 255 * way
            yield moved


@attack(
    objective=BlackBoxFeatures,
    decay=1.0,
    gradients=lambda n: 2 * n.points + 1 + n.budgets * (n.steps - 1),
)
def bfa() -> None:
    """Lower features that matter in moved images: black-box features (BFA), with momentum."""
