from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.utils.checked_dataclass import checked


@checked
class VarianceTuning:
    """Correct each gradient by how the gradients around the last iterate differed from its own.

    The estimate is g_t + v_{t-1}, with v_t = mean over i of grad L(f(x_t + r_i), y) - g_t and
    r_i ~ U(-radius * eps, radius * eps), also with `norm=l2`. The last v is not computed. If g_t is
    taken ahead of x_t, the neighbours are still around x_t, as in the authors' code
    (TransferAttack: around the point ahead).

    Args:
        neighbours: Number of points x_t + r_i.
        radius: Half the side of the cube of points, as a share of the budget (beta).

    Reference: Wang, He (2021), arXiv 2103.15571.
    """

    neighbours: PositiveInt = 20
    radius: NonNegativeFloat = 1.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        current = gradient(state.at)
        tuned = current + state.memory.get("variance", 0.0)
        if not state.is_last_step:
            total = torch.zeros_like(current)
            for _ in range(self.neighbours):
                noise = state.random.uniform(*current.shape[2:], low=-self.radius, high=self.radius)
                total = total + gradient(state.iterate + state.eps * noise)
            state.memory["variance"] = total / self.neighbours - current
        return tuned


def _gradients(n: Any) -> int:
    return 1 + n.budgets * (n.steps - 1) * (1 + n.neighbours)


@attack(estimator=VarianceTuning, decay=1.0, gradients=_gradients)
def vmi() -> None:
    """Tune gradients by the variance nearby: VMI-FGSM, with momentum."""


@attack(estimator=VarianceTuning, decay=1.0, lookahead="momentum", gradients=_gradients)
def vni() -> None:
    """Tune gradients by the variance nearby, with the look-ahead of `ni`: VNI-FGSM."""
