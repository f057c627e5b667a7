"""What every gradient attack shares: the input gradient, the box, and the grid of budgets."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Model = Callable[[Tensor], Tensor]
"""Images in [0, 1] of shape (N, 3, H, W) to logits of shape (N, C)."""


def input_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy with respect to the images.

    The loss is summed, not averaged, so that an image's gradient does not depend on how many
    others share its batch. No gradient is left on the model's parameters.

    Args:
        model: Maps images in [0, 1], shape (N, 3, H, W), to logits, shape (N, C).
        images: Where the gradient is taken, shape (N, 3, H, W).
        labels: Class numbers, shape (N,).

    Returns:
        A detached tensor of the images' shape.
    """
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        loss = functional.cross_entropy(model(variable).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, variable)
    return gradient


def box(images: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest allowed pixel values around the images.

    This is the intersection of the L-infinity ball of radius `eps` with the pixel range [0, 1].
    """
    return (images - eps).clamp_min(0), (images + eps).clamp_max(1)


def as_budgets(eps: float | Tensor, images: Tensor) -> Tensor:
    """Return `eps` as a tensor of the images' type and device, of shape () or (K,).

    Raises:
        ValueError: A budget is not finite, lies outside [0, 1], or `eps` has two or more axes.
    """
    budgets = torch.as_tensor(eps, dtype=images.dtype, device=images.device)
    if budgets.ndim > 1 or not bool(((budgets >= 0) & (budgets <= 1)).all()):
        raise ValueError(f"eps must be one number or a list of numbers in [0, 1], not {eps}.")
    return budgets
