from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat
from torch import Tensor

from src.attacks.cosine_transform import along_axes
from src.attacks.define import attack
from src.attacks.parts import State
from src.attacks.settings import steepest_ascent
from src.utils.checked_dataclass import checked, odd

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
    patch_size: Annotated[int, Ge(3), AfterValidator(odd)] = 3

    def __call__(self, momentum: Tensor, state: State) -> Tensor:
        size = self.amplification * state.step_size
        step = self.amplification * steepest_ascent(momentum, state)
        total = state.memory.get("unprojected", 0.0) + step
        excess = (total.abs() - state.eps).clamp_min(0) * total.sign()
        around = self._neighbours(excess)
        shared = self.spread * size * around.sign() * (around.abs() > _ROUNDING * state.eps)
        state.memory["unprojected"] = total + shared
        return step + shared

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
    """Move neighbours by the excess of long steps: PI-FGSM of Gao et al., without momentum."""
