"""The basic iterative method, also called I-FGSM."""

import torch
from torch import Tensor

from src.attacks.gradient import Model, as_budgets, box, input_gradient


def bim(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 10,
    step_size_255: float | None = None,
) -> Tensor:
    """Take several small sign steps, each projected back to the ball and to the pixel range.

    x_0 = x; x_{t+1} = clip(x_t + a * sign(grad L(f(x_t), y))) to [x - eps, x + eps] and [0, 1].
    The first step starts at the clean image whatever the budget, so that all budgets share its
    gradient: K budgets take 1 + K * (steps - 1) gradients per image.

    Args:
        model: Maps images in [0, 1], shape (N, 3, H, W), to logits, shape (N, C).
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,).
        eps: One L-infinity budget in [0, 1] units, or K of them.
        steps: Number of gradient steps.
        step_size_255: Length of a step in units of 1/255; None: eps / steps, so that all steps
            in one direction just reach the border of the ball.

    Returns:
        Adversarial images in [0, 1], detached: of the images' shape for one budget, of shape
        (K, N, 3, H, W) for K.

    Raises:
        ValueError: `steps` < 1, a step size that is not positive, or a budget outside [0, 1].

    Reference:
        Kurakin, Goodfellow, Bengio: Adversarial Machine Learning at Scale (2017),
        arXiv 1611.01236, section 3 (there with a = 1/255 and steps = min(eps + 4, 1.25 eps);
        here a = eps / steps by default, as most transfer studies have it).
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"attack.steps must be a whole number of at least 1, not {steps}.")
    if step_size_255 is not None and not 0 < step_size_255 <= 255:
        raise ValueError(f"attack.step_size_255 must lie in (0, 255], not {step_size_255}.")
    budgets = as_budgets(eps, images)
    first = input_gradient(model, images, labels).sign()
    results = []
    for budget in budgets.reshape(-1):
        step = budget / steps if step_size_255 is None else step_size_255 / 255
        lower, upper = box(images, budget)
        adversarial = (images + step * first).clamp(lower, upper)
        for _ in range(steps - 1):
            direction = input_gradient(model, adversarial, labels).sign()
            adversarial = (adversarial + step * direction).clamp(lower, upper)
        results.append(adversarial)
    return torch.stack(results).reshape(budgets.shape + images.shape)
