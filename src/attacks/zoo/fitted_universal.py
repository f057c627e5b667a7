"""A perturbation for all images, fitted to training images or read from a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from PIL import Image
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ...utils.files import reading
from .. import ALL_BUT_NORM, Gradient, Problem, Settings, attack, checked
from ..landscape import Landscape
from ..parts import State as LoopState
from ..projection import direction, mean_size, rms, shrunk
from ..training_images import State, TrainingBatch, TrainingImages, in_levels

_ROUNDING = 1e-5  # largest relative difference between budgets that are equal up to rounding
_ZERO = 128  # grey level in a PNG that means no change


def read_perturbation(file: str, side: int, resize: bool) -> Tensor:
    """Read a perturbation in [0, 1] units, float32 (3, side, side).

    Args:
        file: `.pt`: one tensor, (3, H, W) or (1, 3, H, W). `.npy`: an array of such a shape or
            (H, W, 3). `.safetensors`: the tensor `perturbation`, as a fit of `uap` saves it.
            Otherwise an 8-bit image, whose grey level v means (v - 128) / 255.
        side: Side of the images in pixels.
        resize: Resize the perturbation bilinearly to the images' size; False: sizes must match.

    Raises:
        ValueError: The file cannot be read without unpickling objects, or holds something else.
    """
    path = Path(file)
    with reading(file, "one array"):
        values = torch.as_tensor(_load(path))
    shape = tuple(values.shape)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim == 3 and values.shape[0] != 3 == values.shape[2]:
        values = values.permute(2, 0, 1)
    if values.ndim != 3 or values.shape[0] != 3 or not values.is_floating_point():
        raise ValueError(f"{file} holds {values.dtype} of shape {shape}, not floats of (3, H, W).")
    if not bool((values.abs() <= 1).all()):
        raise ValueError(f"{file} has NaN or values beyond -1 to 1; one grey level is 1/255.")
    values = values.float()
    if resize and values.shape[1:] != (side, side):
        sides = (side, side)
        values = functional.interpolate(values[None], sides, mode="bilinear", antialias=True)[0]
    if values.shape[1:] != (side, side):
        size = f"{values.shape[1]} x {values.shape[2]}"
        raise ValueError(
            f"{file} is for images of {size} pixels, not {side} x {side}; attack.resize=true "
            "resizes it."
        )
    return values


def load_tensors(path: Path) -> Any:
    """Load a `.safetensors` or torch.save file on the CPU, without unpickling objects."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _load(path: Path) -> Any:
    if path.suffix in (".pt", ".pth"):
        return load_tensors(path)
    if path.suffix == ".safetensors":
        return load_tensors(path)["perturbation"]
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with Image.open(path) as image:
        return (np.asarray(image.convert("RGB"), np.float32) - _ZERO) / 255


@checked
class UniversalPerturbation:
    """Add one perturbation to all images, found by ascent over batches of training images.

    For the images x of each batch, with loss l, momentum m, decay mu and step size a::

        g = sum_x grad_d min(l(f(clip(x + d)), y), clamp)
        m = mu * m + g / mean|g|
        d = clamp(d + a * sign(m), -eps, eps)

    The loss is clamped so that images that are fooled by far do not dominate.

    Attributes:
        fit_images: Folder of class folders with training images, which the program reads; None:
            those of the data set.
        fit_n_images: Largest number of training images, the same for every class; None: all.
        epochs: Passes over the training images.
        fit_batch: Images per batch.
        fit_step: Step size as a share of the budget.
        fit_decay: Decay factor of the momentum.
        clamp: Largest loss that counts per image.
        file: A perturbation instead of a fit: a `.pt` of one tensor, a `.npy`, a
            `.safetensors` of `cache/fitted/` or a PNG.
        resize: Resize the file's perturbation to the size of the images.
        shrink: Scale the file's perturbation down to a smaller budget, which is refused otherwise.

    Reference: Shafahi et al. (2020), arXiv 1811.11304, algorithm 2 and section 4.1.

    Deviation: momentum, and steps of a share of the budget (paper: stochastic gradients, or ADAM);
    pixels are clipped to [0, 1] while fitting.
    """

    fit_images: str | None = None
    fit_n_images: PositiveInt | None = 2000
    epochs: PositiveInt = 3
    fit_batch: PositiveInt = 100
    fit_step: PositiveFloat = 0.1
    fit_decay: NonNegativeFloat = 0.9
    clamp: Annotated[float, Gt(0)] = 9.0
    file: str | None = None
    resize: bool = False
    shrink: bool = False

    def bind(self, training_images: TrainingImages) -> Callable[..., Any]:
        """Return the gradient estimator that returns the perturbation of each budget."""
        return partial(self._perturb, training_images)

    def _perturb(
        self, training_images: TrainingImages, gradient: Gradient, state: LoopState
    ) -> Tensor:
        images, budgets = state.images, state.eps.flatten(1)
        if bool((budgets != budgets[:, :1]).any()):
            raise ValueError("a universal perturbation needs the same budget for all images")
        if self.file is not None:
            change = read_perturbation(self.file, images.shape[-1], self.resize).to(images)
            changes = self._shrunk(change, state.eps[:, 0], state.norm)
        else:
            patterns = [
                training_images.fitted(eps, partial(self._fit, training_images, state, eps))
                for eps in (in_levels(eps) / 255 for eps in budgets[:, 0].tolist())
            ]
            changes = torch.stack([pattern["perturbation"] for pattern in patterns]).to(images)
        if changes.shape[1:] != images.shape[2:]:
            raise ValueError(
                f"the perturbation has shape {tuple(changes.shape[1:])}, but an image "
                f"{tuple(images.shape[2:])}"
            )
        return changes[:, None].expand_as(images)

    def _fit(self, training_images: TrainingImages, state: LoopState, eps: float) -> State:
        """Return the perturbation for a budget, (3, H, W)."""
        image, layout = state.images[0, 0], torch.contiguous_format
        change = momentum = torch.zeros_like(image, memory_format=layout)
        for epoch in range(self.epochs):
            for batch in training_images.batches(epoch, self.fit_batch):
                gradient = self._gradient(training_images, state, eps, change, batch)
                momentum = self.fit_decay * momentum + gradient / mean_size(gradient)
                change = change + eps * self.fit_step * direction(momentum, state.norm)
                if state.norm == "linf":
                    change = change.clamp(-eps, eps)
                else:
                    change = shrunk(change, rms(change), eps)
        return {"perturbation": change}

    def _gradient(
        self,
        training_images: TrainingImages,
        state: LoopState,
        eps: float,
        change: Tensor,
        batch: TrainingBatch,
    ) -> Tensor:
        """Compute the gradient of a batch's clamped losses in the perturbation, (3, H, W).

        It passes the clip to [0, 1] as if there were none.
        """
        total, budget = torch.zeros_like(change), batch.images.new_full((1, 1, 1, 1, 1), eps)
        size = training_images.max_batch or len(batch.images)
        for columns in zip(*(column.split(size) for column in batch), strict=True):
            part = TrainingBatch(*columns)
            of_part = part.images, part.labels, training_images.targeted, part.random()
            problem = Problem(state.source, *of_part, budget, state.norm)
            at = (part.images + change).clamp(0, 1)
            (gradients,) = Landscape(problem, Settings()).gradient(at[None])
            counts = problem.random.scratch["losses"][0] <= self.clamp
            total += (gradients * counts[:, None, None, None]).sum(dim=0)
        return total.contiguous()  # as in a file; otherwise rounding differs

    def _shrunk(self, change: Tensor, eps: Tensor, norm: str) -> Tensor:
        """Return a file's perturbation, (K, 3, H, W), scaled to budgets (K, 1, 1, 1)."""
        size = change.abs().amax() if norm == "linf" else rms(change)
        if not self.shrink and bool((size > eps * (1 + _ROUNDING)).any()):
            raise ValueError(
                f"{self.file} changes pixels by {255 * float(size):.4g}/255, more than the budget "
                f"{255 * float(eps.min()):.4g}/255; attack.shrink=true scales it down."
            )
        return shrunk(change, size, eps)


def as_it_is(momentum: Tensor, state: LoopState) -> Tensor:
    """Return the momentum as the step; the loop projects the result onto the ball."""
    return momentum


@attack(
    gradients=0,
    universal=True,
    fixed=ALL_BUT_NORM,
    estimator=UniversalPerturbation,
    update=as_it_is,
    steps=1,
    normalised=False,
)
def uap() -> None:
    """Add one perturbation to all images: universal, clipped to [0, 1] with each image.

    It is fitted to the source on training images; the images that it is added to need no gradient.

    Name: Universal Adversarial Perturbation.
    Reference: Shafahi et al. (2020), arXiv 1811.11304.
    """
