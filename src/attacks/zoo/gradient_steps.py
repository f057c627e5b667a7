"""Steps along the gradient: FGSM, BIM, PGD from a random start, and patch-wise steps."""

from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from .. import OddSize, Problem, State, attack, checked, steepest_ascent
from ..cosine_transform import along_axes

_STEPS = ["steps", "step_size_255", "relative_step_size", "warm_up_steps", "warm_up_scale"]
_STEPS += ["random_start", "start_radius", "restarts"]


@attack(fixed=_STEPS, steps=1, gradients=1)
def fgsm() -> None:
    """Take one sign step of eps: FGSM, x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1).

    One gradient serves every budget. With `targeted` and the least likely class as label, this is
    the one-step least-likely-class method of Kurakin et al. 2017 (arXiv 1611.01236).

    Name: Fast Gradient Sign Method.
    Reference: Goodfellow, Shlens, Szegedy (2015), arXiv 1412.6572. Clipping to the pixel range has
    been common practice since.
    """


@attack(fixed=_STEPS, steps=1, norm="l2", gradients=1)
def fgsm_l2() -> None:
    """Take one step along the gradient g in the L2 ball: x_adv = clip(x + eps * g / rms(g), 0, 1).

    Name: Fast Gradient Method in L2.
    Reference: Goodfellow, Shlens, Szegedy (2015), arXiv 1412.6572.
    """


@attack()
def bim() -> None:
    """Take projected sign steps: x_{t+1} = project(x_t + a * sign(grad_x L(f(x_t), y))).

    With `targeted` and the least likely class as label, this is the iterative least-likely-class
    method of the same paper.

    Name: Basic Iterative Method (I-FGSM).
    Reference: Kurakin, Goodfellow, Bengio (2017), arXiv 1611.01236.

    Deviation: 10 steps of eps / 10; the paper takes min(eps + 4, 1.25 eps) steps of 1/255.
    """


@attack(random_start="uniform", relative_step_size=0.25)
def pgd() -> None:
    """Run `bim` from a random start, with restarts: x + U(-eps, eps), and the best result counts.

    Name: Projected Gradient Descent.
    Reference: Madry et al. (2018), arXiv 1706.06083.

    Deviation: 10 steps of eps / 4, as the authors' code for CIFAR-10; for MNIST 40 of eps / 30.
    """


@attack(random_start="uniform", relative_step_size=0.25, norm="l2")
def pgd_l2() -> None:
    """Run `pgd` in the L2 ball: the start is uniform in the ball.

    Name: Projected Gradient Descent in L2.
    Reference: Madry et al. (2018), arXiv 1706.06083.

    Deviation: 10 steps of eps / 4; the authors' L2 code takes 100 of eps / 40.
    """


@attack(
    fixed=["steps", "restarts"],
    steps=1,
    random_start="sign",
    start_radius=0.5,
    relative_step_size=0.5,
    gradients=lambda n: n.budgets,
    norms="linf",
)
def rfgsm() -> None:
    """Take a random sign step of eps / 2, then a gradient step with the rest of eps: R+FGSM.

    x' = x + a * sign(N(0, I)); x_adv = x' + (eps - a) * sign(grad L(f(x'), y)), with a / eps the
    `start_radius` and 1 - a / eps the `relative_step_size`.

    Name: Random start FGSM (R+FGSM).
    Reference: Tramer et al. (2018), arXiv 1705.07204.

    Deviation: a is eps / 2 for every data set; the authors' code has 0.05 of 0.3 for MNIST.
    """


_ROUNDING = 1e-4  # share of the budget; excesses are sums and differences of a few equal numbers


@checked
class PatchWise:
    """Take long steps, and move the neighbours of pixels that exceed the budget.

    With W the mean over a pixel's neighbours and v = amplification * a * sign(m_t)::

        s = s + v,  c = max(|s| - eps, 0) * sign(s)
        p = spread * amplification * a * sign(W * c),  s = s + p

    The step is v + p. s starts at 0 and is never projected.

    Args:
        amplification: Factor of the step size.
        spread: Length of p, as a share of the amplified step.
        patch_size: Side of the square neighbourhood, odd.

    Reference: Gao et al. (2020), arXiv 2007.06765 (beta = 10, gamma = 1; against defended models
    2.5 and 0.5).

    Deviation: excesses that cancel one another up to rounding move nothing.
    """

    amplification: PositiveFloat = 10.0
    spread: NonNegativeFloat = 1.0
    patch_size: Annotated[OddSize, Ge(3)] = 3

    def init(self, problem: Problem) -> Tensor:
        """Return s before the first step."""
        return problem.images.new_zeros(())

    def step(self, momentum: Tensor, state: State, total: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step v + p, and s."""
        size = self.amplification * state.step_size
        step = self.amplification * steepest_ascent(momentum, state)
        total = total + step
        excess = (total.abs() - state.eps).clamp_min(0) * total.sign()
        around = self._neighbours(excess)
        shared = self.spread * size * around.sign() * (around.abs() > _ROUNDING * state.eps)
        return step + shared, total + shared

    def _neighbours(self, values: Tensor) -> Tensor:
        """Return the mean of each pixel's neighbours, which are 0 beyond the border."""
        rows, columns = (
            torch.ones(2 * (side,), dtype=values.dtype, device=values.device)
            .triu_(-(self.patch_size // 2))
            .tril_(self.patch_size // 2)
            for side in values.shape[-2:]
        )
        return (along_axes(rows, values, columns) - values) / (self.patch_size**2 - 1)


@attack(update=PatchWise, norms="linf")
def pi_patchwise() -> None:
    """Move neighbours by the excess of long steps: PI-FGSM of Gao et al., without momentum.

    Name: Patch-wise Iterative FGSM.
    """
