"""The fast gradient sign method."""

import torch
from torch import Tensor

from src.attacks.gradient import Model, as_budgets, box, input_gradient


def fgsm(model: Model, images: Tensor, labels: Tensor, eps: float | Tensor) -> Tensor:
    """Move every pixel by `eps` in the direction that raises the loss.

    x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1). One gradient serves every budget.

    Args:
        model: Maps images in [0, 1], shape (N, 3, H, W), to logits, shape (N, C).
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,).
        eps: One L-infinity budget in [0, 1] units, or K of them.

    Returns:
        Adversarial images in [0, 1], detached: of the images' shape for one budget, of shape
        (K, N, 3, H, W) for K.

    Raises:
        ValueError: A budget lies outside [0, 1].

    Reference:
        Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
        arXiv 1412.6572, section 4. The clipping to the pixel range is common practice since.
    """
    budgets = as_budgets(eps, images)
    direction = input_gradient(model, images, labels).sign()
    adversarial = []
    for budget in budgets.reshape(-1):
        lower, upper = box(images, budget)
        adversarial.append((images + budget * direction).clamp(lower, upper))
    return torch.stack(adversarial).reshape(budgets.shape + images.shape)
