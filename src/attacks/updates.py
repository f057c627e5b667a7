"""Updates: steps made of the momentum."""

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from src.attacks.checked import checked, odd
from src.attacks.interfaces import State
from src.attacks.projection import direction

_ROUNDING = 1e-4  # share of the budget; excesses are sums and differences of a few equal numbers


def steepest_ascent(momentum: Tensor, state: State) -> Tensor:
    """Return a step of full length: along the signs or, for L2, along the momentum."""
    return state.step_size * direction(momentum, state.norm)


@checked
class PatchWise:
    """Take long steps, and let the neighbours of pixels move that have gone too far.

    With W the mean over a pixel's neighbours and v = amplification * a * sign(m_t)::

        s = s + v,  c = max(|s| - eps, 0) * sign(s)
        p = spread * amplification * a * sign(W * c),  s = s + p

    and the step is v + p. s starts at 0 and is never projected.

    Args:
        amplification: Factor of the step size.
        spread: Length of p, as a share of the amplified step.
        patch_size: Side of the square of neighbours, odd.

    Reference:
        Gao et al.: Patch-wise Attack for Fooling Deep Neural Network (2020), arXiv 2007.06765
        (beta = 10, gamma = 1; against defended models 2.5 and 0.5).

    Deviation: excesses that cancel one another but for rounding move nothing.
    """

    images_kept = 1
    amplification: PositiveFloat = 10.0
    spread: NonNegativeFloat = 1.0
    patch_size: Annotated[int, Ge(3), AfterValidator(odd)] = 3

    def __call__(self, momentum: Tensor, state: State) -> Tensor:
        """Return the step, and keep the sum of all."""
        size = self.amplification * state.step_size
        step = self.amplification * steepest_ascent(momentum, state)
        total = state.kept.get("unprojected", 0.0) + step
        excess = (total.abs() - state.eps).clamp_min(0) * total.sign()
        around = self._neighbours(excess)
        shared = self.spread * size * around.sign() * (around.abs() > _ROUNDING * state.eps)
        state.kept["unprojected"] = total + shared
        return step + shared

    def _neighbours(self, values: Tensor) -> Tensor:
        """Return the mean of each pixel's neighbours, which are 0 beyond the border."""
        side = self.patch_size
        summed = functional.avg_pool2d(
            values.flatten(0, 1), side, stride=1, padding=side // 2, divisor_override=1
        )
        return (summed.unflatten(0, values.shape[:2]) - values) / (side**2 - 1)


@checked
class ShrinkingSteps:
    """Shorten the step of a pixel's value each time that its momentum turns.

    It is multiplied by `shrink` wherever sign(m_t) is not sign(m_{t-1}), and never grows again. The
    first turn, which is that from m_0 = 0, does not count.

    Args:
        shrink: Factor of the length (eta).

    Reference:
        Zhu et al.: Boosting Adversarial Transferability via Gradient Relevance Attack (2023),
        ICCV 2023.
    """

    images_kept = 2
    shrink: Annotated[float, Gt(0), Le(1)] = 0.94

    def __call__(self, momentum: Tensor, state: State) -> Tensor:
        """Return the step, and keep the lengths and signs."""
        sign = momentum.sign()
        turned = (sign != state.kept.get("signs", 0.0)).to(sign)
        length = state.kept.get("lengths", 1 / self.shrink) * self.shrink**turned
        state.kept["signs"], state.kept["lengths"] = sign, length
        return length * steepest_ascent(momentum, state)
