from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from src.defences.staircase import soft_round
from src.utils.checked_dataclass import checked


@checked
class BitDepth:
    """Rounding to the nearest of 2**bits values from 0 to 1, with the gradient of a staircase.

    Reference: Xu, Evans, Qi (2018), arXiv 1704.01155, section III-A.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 3

    def __call__(self, images: Tensor) -> Tensor:
        steps = 2**self.bits - 1
        soft = soft_round(images * steps)
        return ((images.detach() * steps).round() + (soft - soft.detach())) / steps
