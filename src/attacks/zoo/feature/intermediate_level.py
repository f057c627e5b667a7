from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.landscape import Landscape
from src.attacks.loop import trajectory
from src.attacks.parts import Problem
from src.attacks.settings import Settings
from src.attacks.zoo.feature.weighted_features import unit, weighted
from src.utils.checked_dataclass import checked


@checked
class IntermediateLevel:
    """Move a layer's output further in the direction in which a first attack moves it.

    Maximises sum(v * f(x_t)) / ||v||_2, v = f(x') - f(x). x' is the result of `first_steps` steps
    of `bim` from x in the same ball. The iterates start at x again.

    Args:
        loss: Name of the first attack's loss, see `LOSSES`.
        first_steps: Number of steps of the first attack.

    Reference: Huang et al. (2019), arXiv 1907.10823: ILAP, for which the constant f(x) may be left
    out.

    Deviation: each member of an ensemble has its own v; the members' values are averaged. The first
    attack has no momentum, as in the paper (TransferAttack: MI-FGSM).
    """

    per_budget = True
    loss: Literal["cross_entropy", "logit", "margin"] = "cross_entropy"
    first_steps: PositiveInt = 10

    def prepare(self, problem: Problem) -> list[Tensor]:
        """Return v / ||v||_2 for each budget and image, one tensor (K, N, ...) per member."""
        first = Settings(loss=self.loss, steps=self.first_steps, norm=problem.norm)
        (moved,) = trajectory(Landscape(problem, first), [first.steps])
        problem.source.draw(problem.random, 1)  # all images go through the same network
        with torch.no_grad():
            passes = [problem.source.features(batch) for batch in (problem.images, *moved)]
        return [
            torch.stack([unit((new - old).to(problem.images)) for new in others])
            for old, *others in zip(*passes, strict=True)
        ]

    def losses(self, problem: Problem, images: Tensor, prepared: list[Tensor]) -> Tensor:
        return weighted(problem, images, prepared)


@attack(
    objective=IntermediateLevel,
    gradients=lambda n: 1 + n.budgets * (n.first_steps - 1 + n.steps),
    forwards=lambda n: 1 + n.budgets,
)
def ila() -> None:
    """Enlarge a first attack's change at a layer: ILA, 10 steps after its 10, without momentum.

    `step_size_255` and `relative_step_size` apply to the second attack. The first takes steps of
    eps / `first_steps`.
    """
