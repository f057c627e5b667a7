"""Rounding with a slope, which gives adaptive attacks a gradient."""

import torch
from torch import Tensor


def soft_round(values: Tensor, temperature: float) -> Tensor:
    """Compute a smooth staircase through the whole numbers, of the values' shape.

    Each stair is a sigmoid, scaled to reach the whole numbers at either end: the limit is rounding
    for a temperature of 0 and the identity for a large one.

    Reference:
        Shin, Song: JPEG-resistant Adversarial Images (2017), NIPS workshop on machine learning and
        computer security, for quantisation that is approximated.
    """
    stair = values.detach().floor()
    rise = torch.tanh((values - stair - 0.5) / (2 * temperature))
    return stair + 0.5 + rise / (2 * torch.tanh(torch.tensor(0.25 / temperature)).item())
