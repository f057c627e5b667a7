"""A perturbation for all images, fitted to training images or read from a file."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Gt
from PIL import Image
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ...utils.files import reading
from .. import ALL_BUT_NORM, Gradient, Problem, Settings, Source, attack, checked
from ..fitted import ROUNDING, FitBatch, FitTask, State, state_of
from ..landscape import Landscape, evaluation_mode
from ..parts import State as LoopState
from ..projection import direction, mean_size, rms, shrunk

_FITTED = ("perturbation", "momentum")
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
    one_state: ClassVar[bool] = False
    as_built: ClassVar[bool] = False

    def fit(self, task: FitTask, state: State | None) -> Iterator[State]:
        """Yield perturbation and momentum, (3, H, W), after each epoch."""
        held = dict(state or {})
        for epoch in range(int(held.pop("epochs", 0)), self.epochs):
            for batch in task.batches(epoch, self.fit_batch):
                zero = torch.zeros_like(batch.images[0])
                change, momentum = (held.get(name, zero).to(zero) for name in _FITTED)
                gradient = self._gradient(task, change, batch)
                momentum = self.fit_decay * momentum + gradient / mean_size(gradient)
                step = task.eps * self.fit_step * direction(momentum, task.norm)
                change = change + step
                if task.norm == "linf":
                    change = change.clamp(-task.eps, task.eps)
                else:
                    change = shrunk(change, rms(change), task.eps)
                held = {"perturbation": change, "momentum": momentum}
            yield held | {"epochs": torch.tensor(epoch + 1)}

    def _gradient(self, task: FitTask, change: Tensor, batch: FitBatch) -> Tensor:
        """Compute the gradient of a batch's clamped losses in the perturbation, (3, H, W).

        It passes the clip to [0, 1] as if there were none.
        """
        source, total = Source(task.model), torch.zeros_like(change)
        eps = batch.images.new_full((1, 1, 1, 1, 1), task.eps)
        size = task.max_batch or len(batch.images)
        for columns in zip(*(column.split(size) for column in batch), strict=True):
            part = FitBatch(*columns)
            images, random = part.images, part.random()
            problem = Problem(source, images, part.labels, task.targeted, random, eps, task.norm)
            with evaluation_mode(task.model):
                at = (images + change).clamp(0, 1)
                (gradients,) = Landscape(problem, Settings()).gradient(at[None])
            counts = random.scratch["losses"][0] <= self.clamp
            total += (gradients * counts[:, None, None, None]).sum(dim=0)
        return total.contiguous()  # as in a file; otherwise rounding differs

    def bind(self, states: Mapping[float, State]) -> Callable[..., Any]:
        """Return the gradient estimator that returns the perturbation of each budget."""
        return partial(self._perturb, states)

    def _perturb(
        self, states: Mapping[float, State], gradient: Gradient, state: LoopState
    ) -> Tensor:
        images, budgets = state.images, state.eps.flatten(1)
        if bool((budgets != budgets[:, :1]).any()):
            raise ValueError("a universal perturbation needs the same budget for all images")
        if self.file is None:
            patterns = [state_of(states, eps)["perturbation"] for eps in budgets[:, 0].tolist()]
            changes = torch.stack(patterns).to(images)
        else:
            change = read_perturbation(self.file, images.shape[-1], self.resize).to(images)
            changes = self._shrunk(change, state.eps[:, 0], state.norm)
        if changes.shape[1:] != images.shape[2:]:
            raise ValueError(
                f"the perturbation has shape {tuple(changes.shape[1:])}, but an image "
                f"{tuple(images.shape[2:])}"
            )
        return changes[:, None].expand_as(images)

    def _shrunk(self, change: Tensor, eps: Tensor, norm: str) -> Tensor:
        """Return a file's perturbation, (K, 3, H, W), scaled to budgets (K, 1, 1, 1)."""
        size = change.abs().amax() if norm == "linf" else rms(change)
        if not self.shrink and bool((size > eps * (1 + ROUNDING)).any()):
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
    fit_gradients=lambda n: n.budgets * n.epochs * n.fit_n_images,
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
