"""The classifier every attack and every evaluation sees: pixels in [0, 1] -> logits."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class NotLogitsError(ValueError):
    """A network returned something else than logits."""


class PixelClassifier(nn.Module):
    """Wrap a network so that it takes images in [0, 1] and owns its own preprocessing.

    Resizing and normalisation are part of the model, hence part of the gradient, so budgets are
    always budgets on the data set's own pixels, whatever size or scale the network wants.

    Args:
        network: Module from normalised images (N, 3, H, W) to logits (N, num_classes).
        mean: Channel means of the normalisation that the network was trained with, in [0, 1] units.
        std: Channel standard deviations of the same normalisation, all positive.
        input_size: Side in pixels that images are resized to (antialiased, bilinear); None takes
            them as they come.
        name: In the catalogue, for messages; None: that of the network's class.

    Raises:
        ValueError: If mean, std or input_size cannot describe a preprocessing of RGB images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if input_size is not None and input_size < 1:
            raise ValueError(
                f"input_size must be null or a positive side in pixels, not {input_size}."
            )
        self.network = network
        self.input_size = input_size
        self.name = name or type(network).__name__
        # Not persistent: a saved state dict is the network's alone.
        self.register_buffer("mean", _per_channel("mean", mean), persistent=False)
        self.register_buffer("std", _per_channel("std", std), persistent=False)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must hold three positive numbers, not {list(std)}.")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits.

        Args:
            images: Float tensor (N, 3, H, W), values in [0, 1].

        Returns:
            Logits (N, num_classes).

        Raises:
            NotLogitsError: The network returned something else, be it for this batch alone.
        """
        if self.input_size is not None and images.shape[-2:] != (self.input_size, self.input_size):
            images = functional.interpolate(
                images,
                size=(self.input_size, self.input_size),
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
        logits = self.network((images - self.mean) / self.std)
        fits = torch.is_tensor(logits) and logits.ndim == 2 and len(logits) == len(images)
        if not fits or not logits.is_floating_point():
            got = type(logits).__name__
            if torch.is_tensor(logits):
                got = f"{logits.dtype} of shape {tuple(logits.shape)}"
            raise NotLogitsError(
                f"model {self.name}: the network must return logits, floating-point numbers of "
                f"shape (N, num_classes), but for N = {len(images)} images it returned {got}."
            )
        return cast(Tensor, logits)


def _per_channel(name: str, values: Sequence[float]) -> Tensor:
    """Return three finite numbers as a float32 tensor (1, 3, 1, 1)."""
    tensor = torch.tensor([float(value) for value in values], dtype=torch.float32)
    if tensor.numel() != 3 or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must hold three finite numbers (red, green, blue), not {values}.")
    return tensor.view(1, 3, 1, 1)
