"""The iterations that all attacks have in common."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from src.attacks.gradients import State
from src.attacks.objective import Model, Objective, evaluation_mode
from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import checked_budgets, direction, project
from src.attacks.settings import Settings


def ascend(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    settings: Settings,
    *,
    targeted: bool = False,
    true_labels: Tensor | None = None,
    seeds: Tensor | None = None,
    pool: tuple[Tensor, Tensor] | None = None,
    max_batch: int | None = None,
) -> Tensor:
    """Maximise the loss of the source model inside a ball around each image.

    With L the loss, T the transforms, W the kernel, mu the decay and a the step size,

        g_t     = mean over copies of W * grad_x L(f(T(p_t))),  p_t = x_t, or ahead of it
        m_t     = mu * m_{t-1} + g_t / mean|g_t|
        x_{t+1} = project(x_t + a * sign(m_t))

    and for `norm=l2` m_t over its root mean square in the sign's place. As long as all budgets are
    at the clean image they share the gradient.

    Args:
        model: Maps images to logits; see `Model`. A module is attacked in evaluation mode, and left
            in the mode that it was in.
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,); with `targeted`, the classes to reach.
        eps: One budget in [0, 1] units; K of them; or K for each image, (K, N).
        settings: Everything else that makes the attack.
        targeted: Minimise the loss of `labels` instead.
        true_labels: The true classes where `labels` are others; images of another class are
            mixed in.
        seeds: One whole number an image, shape (N,), that decides what is random; None: 0, 1, ...
        pool: Images to mix in and their classes, (P, 3, H, W) and (P,); None: the batch itself.
        max_batch: Most images in one gradient batch; None: no limit.

    Returns:
        Adversarial images in [0, 1], detached: of the images' shape for one budget, else of shape
        (K, N, 3, H, W).

    Raises:
        ValueError: A budget or a pixel lies outside [0, 1], a step is longer than the budgets,
            there is not one label or seed for each image, or gradients cannot be taken.

    Reference:
        Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081.
        The gradient is divided by its mean size rather than by its L1 norm, as in
        the authors' code; that matters for `lookahead` alone.
    """
    budgets = checked_budgets(eps, images).detach()
    images = _differentiable(images)
    own = budgets.ndim == 2  # each image has its own
    if not own:  # of which all may be shorter than a step of fixed length
        settings.check_steps(float(budgets.max()))
    flat = budgets[..., None, None, None] if own else budgets.reshape(-1, 1, 1, 1, 1)
    objective = Objective(model, settings, targeted)
    labels = _one_each("labels", labels, images)
    seeds = _one_each("seeds", torch.arange(len(images)) if seeds is None else seeds, images)
    others_than = labels if true_labels is None else _one_each("true_labels", true_labels, images)
    pool = (images, labels) if pool is None else pool
    result = images.new_empty((len(flat), *images.shape))
    with evaluation_mode(model):
        for rows, part in _parts(len(flat), len(images), max_batch, settings.one_gradient):
            random = PerImageRandom(seeds[part], images, others_than[part], pool)
            sizes = flat[rows, part if own else slice(None)]
            result[rows, part] = _best(objective, images[part], labels[part], sizes, random)
    return result.reshape(budgets.shape[:1] + images.shape)


def _parts(
    budgets: int, images: int, limit: int | None, one_gradient: bool
) -> Iterator[tuple[slice, slice]]:
    """Yield budgets and images that are computed together, `limit` gradients at most at once."""
    limit = max(1, budgets * images) if limit is None else limit
    if limit < 1:
        raise ValueError(f"max_batch must be at least 1, not {limit}.")
    rows = min(budgets, limit)
    columns = max(1, limit // rows)
    if one_gradient:  # which all budgets share
        rows, columns = budgets, limit
    for first in range(0, budgets, rows):
        for left in range(0, images, columns):
            yield slice(first, first + rows), slice(left, left + columns)


def _differentiable(images: Tensor) -> Tensor:
    if images.is_inference() or torch.is_inference_mode_enabled():
        raise ValueError(
            "attacks take gradients, which torch.inference_mode() forbids: leave it, and clone() "
            "the images that were made in it."
        )
    return images.detach()


def _one_each(name: str, numbers: Tensor, images: Tensor) -> Tensor:
    numbers = torch.as_tensor(numbers)
    if numbers.shape != (len(images),) or numbers.is_floating_point():
        raise ValueError(
            f"{name} must be one whole number for each of the {len(images)} images, not "
            f"{numbers.dtype} of shape {tuple(numbers.shape)}."
        )
    return numbers


def _best(
    objective: Objective, images: Tensor, labels: Tensor, eps: Tensor, random: PerImageRandom
) -> Tensor:
    """Return the iterations of the restart with the highest loss, image by image."""
    best = _iterated(objective, images, labels, eps, random)
    for _ in range(objective.settings.restarts - 1):
        other = _iterated(objective, images, labels, eps, random)
        with torch.no_grad():
            better = objective.losses(other, labels) > objective.losses(best, labels)
        best = torch.where(better[..., None, None, None], other, best)
    return best


def _iterated(
    objective: Objective, images: Tensor, labels: Tensor, eps: Tensor, random: PerImageRandom
) -> Tensor:
    """Return the last iterate, shape (K, N, 3, H, W), of images that are computed together."""
    settings = objective.settings
    x = _start(settings, images.expand(len(eps), *images.shape), eps, random)
    state = State(x, x, eps, settings.step_size(eps), random)
    momentum: Tensor | float = 0.0
    for step in range(settings.steps):
        state.is_last_step = step == settings.steps - 1
        state.iterate = x
        state.at = x if step == 0 else _ahead(settings, momentum, state)
        gradient = settings.estimator(
            lambda at: objective.gradient(at.to(images.dtype), labels, random), state
        )
        state.last_gradient = gradient / _mean_size(gradient)
        momentum = settings.decay * momentum + state.last_gradient
        moved = x + state.step_size * direction(momentum, settings.norm)
        x = project(moved, images, eps, settings.norm)
    return x


def _start(settings: Settings, images: Tensor, eps: Tensor, random: PerImageRandom) -> Tensor:
    """Return the first iterate for clean images (K, N, 3, H, W)."""
    if settings.random_start is None:
        return images
    shape = images.shape[2:]
    if settings.norm == "l2":  # uniform in the ball: a direction, a length of density r^(D - 1)
        length = random.uniform(1, 1, 1) ** (1 / math.prod(shape))
        noise = direction(random.normal(*shape), "l2") * length
    elif settings.random_start == "sign":
        noise = random.normal(*shape).sign()
    else:
        noise = random.uniform(*shape, low=-1.0, high=1.0)
    moved = images + eps * settings.start_radius * noise.to(images.dtype)
    return project(moved, images, eps, settings.norm)


def _ahead(settings: Settings, momentum: Tensor | float, state: State) -> Tensor:
    """Return the point at which the gradient is taken, in all steps but the first."""
    if settings.lookahead == "momentum":
        return state.iterate + state.step_size * settings.decay * momentum
    if settings.lookahead == "gradient":
        return state.iterate + state.step_size * state.last_gradient
    return state.iterate


def _mean_size(gradient: Tensor) -> Tensor:
    """Return the mean absolute value of each image's gradient, never 0."""
    size = gradient.abs().mean(dim=(-3, -2, -1), keepdim=True)
    return size.clamp_min(torch.finfo(size.dtype).tiny)
