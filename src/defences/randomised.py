"""Randomised defences: resizing and padding, and votes over noisy copies."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from pydantic import PositiveInt
from scipy.special import bdtrc
from torch import Tensor, nn
from torch.nn import functional

from ..attacks import Philox
from ..attacks.cosine_transform import along_axes
from ..utils.checked_dataclass import checked

_GREY = 0.5


@checked
class RandomResizePad:
    """Random shrinking to a height from ceil(lowest * H), ..., H, and padding with grey.

    Reference: Xie et al. (2018), arXiv 1711.01991 (there 299, ..., 330 pixels on grey of 331).

    Deviation: images keep their size, to suit networks with a fixed input size (paper: enlarged);
    bilinear and antialiased (authors: nearest pixel), drawn image by image.
    """

    lowest: Annotated[float, Ge(0.1), Le(1)] = 0.9033  # 299 / 331

    def __call__(self, images: Tensor, random: Philox) -> Tensor:
        height, width = images.shape[-2:]
        least = math.ceil(height * self.lowest - 1e-6)  # tolerates rounding
        heights = random.integers(least, height + 1)[:, None]
        widths = (width * heights.double() / height).round()
        places = random.uniform(2).double().split(1, dim=1)
        (rows, inner_rows), (columns, inner_columns) = (
            _shrinking(length, sizes, (place * (length - sizes + 1)).floor(), images.dtype)
            for length, sizes, place in zip((height, width), (heights, widths), places, strict=True)
        )
        border = ~(inner_rows[..., None] & inner_columns[..., None, :])
        return along_axes(rows, images, columns) + _GREY * border


def _shrinking(
    length: int, sizes: Tensor, offsets: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return matrices (N, 1, L, L) that shrink L pixels as `interpolate` does and move them.

    `sizes` and `offsets` have shape (N, 1). The second result, (N, 1, L), is true for the pixels
    that the shrunk lines cover.
    """
    places = torch.arange(length, device=sizes.device) - offsets
    inside = (places >= 0) & (places < sizes)
    pixels = torch.arange(length, device=sizes.device)
    share = sizes.double()[..., None] / length
    distances = pixels + 0.5 - (places[..., None] + 0.5) / share
    weights = (1 - share * distances.abs()).clamp_min(0) * inside[..., None]
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
    return weights.to(dtype)[:, None], inside[:, None]


@checked
class Smoothing:
    """Majority vote over noisy copies, which may leave [0, 1] as in the paper.

    It abstains if a two-sided binomial test cannot separate the two most frequent classes.

    Args:
        sigma: Standard deviation of the Gaussian noise, in [0, 1] units.
        copies: Number of votes.
        alpha: Significance level of the test; 1: no abstentions.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, PREDICT.
    """

    sigma: Annotated[float, Gt(0), Le(2)] = 0.25
    copies: PositiveInt = 100
    alpha: Annotated[float, Gt(0), Le(1)] = 0.001

    def __call__(self, images: Tensor, random: Philox) -> Tensor:
        return images + (self.sigma * random.normal(*images.shape[1:])).to(images.dtype)

    def classify(self, classifier: nn.Module, images: Tensor, random: Philox) -> Tensor:
        """Return the logarithms of vote shares, (N, C), at least -87.4; abstentions are NaN."""
        votes = torch.tensor(0, device=images.device)
        for _ in range(self.copies):
            logits = classifier(self(images, random))
            if not bool(logits.isfinite().all()):
                raise ValueError("the network returns NaN or infinity for a noisy copy")
            votes = votes + functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        first, second = votes.topk(2).values.T.cpu().numpy()
        p_value = (2 * torch.from_numpy(bdtrc(first - 1, first + second, 0.5))).clamp_max(1)
        shares = (votes / self.copies).clamp_min(torch.finfo(torch.float32).tiny).log()
        return shares.masked_fill((p_value > self.alpha).to(images.device)[:, None], torch.nan)
