from collections.abc import Iterator

from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Problem
from src.attacks.zoo.feature.weighted_features import Score, WeightedFeatures
from src.utils.checked_dataclass import Share, checked


@checked
class FeatureImportance(WeightedFeatures):
    """Lower the features of a layer that raise the logit of the true class.

    Maximises -sum(w * f(x_t)), w = s / ||s||_2, s = sum over i of grad_f z_y(x * B_i). z_y is the
    logit of the true class, and B_i ~ Bernoulli(1 - probability) for every value; masked values are
    black. The weights serve all steps and budgets.

    Args:
        masks: Number of masked images x * B_i.
        probability: Share of the values that are masked.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Wang et al. (2021), arXiv 2107.14185.

    Deviation: with target labels, which the paper does not define, features that raise their logits
    are raised. Each member of an ensemble has its own weights; the members' values are averaged.
    """

    masks: PositiveInt = 30
    probability: Share = 0.3
    score: Score = "logit"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        for _ in range(self.masks):
            mask = problem.random.uniform(*problem.images.shape[1:]) >= self.probability
            yield problem.images * mask


@attack(
    objective=FeatureImportance,
    decay=1.0,
    gradients=lambda n: n.masks + 1 + n.budgets * (n.steps - 1),
)
def fia() -> None:
    """Lower important features of a layer: feature importance (FIA), with momentum."""
