from typing import Annotated

import torch
from annotated_types import Gt, Le
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction
from src.attacks.settings import steepest_ascent
from src.utils.checked_dataclass import checked


@checked
class GradientRelevance:
    """Weigh the gradient g by its cosine s with the mean gradient h around it.

    g_t = s * g + (1 - s) * h, h being the mean over i of grad L(f(x_t + r_i), y) with
    r_i ~ U(-radius * eps, radius * eps). s may be negative; it is 0 where a gradient is 0.

    Args:
        samples: Number of points x_t + r_i.
        radius: Half the side of the cube of points, as a share of the budget.

    Reference: Zhu et al.: Boosting Adversarial Transferability via Gradient Relevance Attack
    (2023), https://openaccess.thecvf.com/content/ICCV2023/html/Zhu_Boosting_Adversarial_Transferability_via_Gradient_Relevance_Attack_ICCV_2023_paper.html
    """

    samples: PositiveInt = 20
    radius: NonNegativeFloat = 3.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        here = gradient(state.at)
        total = torch.zeros_like(here)
        for _ in range(self.samples):
            noise = state.random.uniform(*here.shape[2:], low=-self.radius, high=self.radius)
            total = total + gradient(state.at + state.eps * noise)
        around = total / self.samples
        agreement = direction(here, "l2") * direction(around, "l2")  # its mean is the cosine
        return around + agreement.mean(dim=(-3, -2, -1), keepdim=True) * (here - around)


@checked
class ShrinkingSteps:
    """Shorten the step of a pixel's value each time its momentum changes sign.

    The step is multiplied by `shrink` where sign(m_t) differs from sign(m_{t-1}), and never grows
    again. The first change, from m_0 = 0, does not count.

    Args:
        shrink: Factor for a value's step each time its momentum changes sign (eta).

    Reference: Zhu et al.: Boosting Adversarial Transferability via Gradient Relevance Attack
    (2023), ICCV 2023.
    """

    shrink: Annotated[float, Gt(0), Le(1)] = 0.94

    def __call__(self, momentum: Tensor, state: State) -> Tensor:
        sign = momentum.sign()
        turned = (sign != state.memory.get("signs", 0.0)).to(sign)
        length = state.memory.get("lengths", 1 / self.shrink) * self.shrink**turned
        state.memory["signs"], state.memory["lengths"] = sign, length
        return length * steepest_ascent(momentum, state)


@attack(
    estimator=GradientRelevance,
    update=ShrinkingSteps,
    decay=1.0,
    gradients=lambda n: 1 + n.budgets * (n.steps - 1 + n.samples * n.steps),
)
def gra() -> None:
    """Mix in the mean gradient nearby, weighted by its cosine: gradient relevance, with momentum.

    Steps shrink where the momentum changes sign.
    """
