import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional

from src.attacks import Philox
from src.utils.checked_dataclass import checked


@checked
class RandomResizePad:
    """Random shrinking to a height from ceil(lowest * H), ..., H, and padding with grey.

    Reference: Xie et al. (2018), arXiv 1711.01991 (there 299, ..., 330 pixels on grey of 331).

    Deviation: images keep their size, to suit networks with a fixed input size (paper: enlarged);
    bilinear and antialiased (authors: nearest pixel), drawn image by image.
    """

    lowest: Annotated[float, Ge(0.1), Le(1)] = 0.9033  # 299 / 331

    def __call__(self, images: Tensor, random: Philox) -> Tensor:
        height = images.shape[-2]
        least = math.ceil(height * self.lowest - 1e-6)  # tolerates rounding
        heights = random.integers(least, height + 1).tolist()
        places = random.uniform(2).tolist()
        triples = zip(images, heights, places, strict=True)
        return torch.stack([_put_on_grey(image, small, *place) for image, small, place in triples])


def _put_on_grey(image: Tensor, small: int, top: float, left: float) -> Tensor:
    """Shrink an image (3, H, W) to a height; `top` and `left` are shares of the free space."""
    height, width = image.shape[-2:]
    size = (small, round(width * small / height))
    resized = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    rows, columns = height - size[0], width - size[1]
    above, before = math.floor(top * (rows + 1)), math.floor(left * (columns + 1))
    return functional.pad(resized, (before, columns - before, above, rows - above), value=0.5)
