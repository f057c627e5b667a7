from typing import Literal

from torch import Tensor
from torch.nn import functional

from src.utils.checked_dataclass import checked


@checked
class Median:
    """Median of `size` x `size` pixels around each pixel, per channel, mirrored at the border.

    Windows of 2 x 2 pixels end at the pixel, and their median is the third value in order.

    Reference: Xu, Evans, Qi (2018), arXiv 1704.01155, section III-B.
    """

    size: Literal[2, 3] = 2

    def __call__(self, images: Tensor) -> Tensor:
        after = self.size - 2
        padded = functional.pad(images, (1, after, 1, after), mode="replicate")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(-2)
        # Ties are common. A stable sort gives the gradient to the same pixel on every device.
        return windows.sort(dim=-1, stable=True).values[..., self.size**2 // 2]
