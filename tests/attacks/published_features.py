"""Published rules that change the outputs of layers."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from tests.attacks.published_case import SIDE, Case, Image, momentum
from tests.attacks.published_inputs import convolved, gaussian, nearest, padding


def important(
    case: Case, versions: Callable[[Case], Iterator[Image]], softmax: bool = False
) -> Image:
    """Lower the features by weights that are the sum of gradients at versions of the image."""
    front, back, total = case.model[:3], case.model[3:], 0
    for version in versions(case):
        feature = front(torch.from_numpy(version)[None]).detach().requires_grad_()
        scores = back(feature)[0]
        (scores.exp() / scores.exp().sum() if softmax else scores)[case.label].backward()
        total = total + feature.grad
    weights = total / total.norm()

    def gradient(x: Image) -> Image:
        image = torch.from_numpy(x).requires_grad_()
        (-weights * front(image[None])).sum().backward()
        return image.grad.numpy()

    return momentum(case, gradient)


def partly_black(case: Case) -> Iterator[Image]:
    for _ in range(3):
        yield case.clean * (case.drawn("uniform", *case.clean.shape) >= 0.3)


def patched(case: Case) -> Iterator[Image]:
    for size in (1, 3, 5, 7):
        side, patch = SIDE // size, np.zeros(case.clean.shape, bool)
        if size == 1:
            patch = case.drawn("uniform", *patch.shape) < 0.3
        else:
            order = case.drawn("permutations", 3 * side * side)
            for cell in np.flatnonzero(order < np.floor(0.3 * order.size)):
                channel, i, j = np.unravel_index(cell, (3, side, side))
                patch[channel, size * i : size * (i + 1), size * j : size * (j + 1)] = True
        noise = case.drawn("uniform", *patch.shape)
        yield np.where(patch, case.clean * noise, case.clean)


def on_the_way_to_black(case: Case) -> Iterator[Image]:
    for share in (1, 2 / 3, 1 / 3):
        yield share * (case.clean + 0.1 * case.drawn("normal", *case.clean.shape))


def uphill(case: Case) -> Iterator[Image]:
    version = case.clean
    for _ in range(3):
        g = case.gradient(version)
        version = case.clean + 28 / np.sqrt(3 * 299**2 / g.size) * g / np.linalg.norm(g)
        yield version


def decayed(case: Case) -> Image:
    front, back = case.model[:3], case.model[3:]

    def gradient(x: Image) -> Image:
        noisy = torch.from_numpy(case.clean + 0.05 * case.drawn("normal", *x.shape))
        image = torch.from_numpy(x).requires_grad_()
        feature = 0.1 * front(image[None]) + 0.9 * front(noisy[None]).detach()
        logits = back(feature)[0]
        (logits.logsumexp(0) - logits[case.label]).backward()
        return image.grad.numpy()

    return momentum(case, gradient)


def mixed_up(case: Case) -> Image:
    """Mix features of another image into both layers with weights."""

    def gradient(x: Image) -> Image:
        change = padding(case, resizing=nearest)
        other = torch.from_numpy(case.drawn("others"))[None]

        def logits(z: torch.Tensor) -> torch.Tensor:
            clean = other
            for layer in case.model:
                z, clean = layer(z), layer(clean).detach()
                if hasattr(layer, "weight") and not isinstance(layer, nn.BatchNorm2d):
                    coin, *ratios = case.drawn("uniform", 1 + z.shape[1])
                    a = 0.75 * torch.tensor(ratios).reshape(-1, *(1 for _ in z.shape[2:]))
                    z = (1 - a) * z + a * clean if coin < 0.5 else z
            return z

        return convolved(case.gradient(x, change, logits, logit=True), gaussian(5))

    return momentum(case, gradient)


def enlarged(case: Case) -> Image:
    """Go on from the clean image along the change of the features that a first attack makes."""
    front, first = case.model[:3], case.clean
    for _ in range(3):
        first = case.clip(first + case.eps / 3 * np.sign(case.gradient(first)))
    there, here = (front(torch.from_numpy(x)[None]).detach() for x in (first, case.clean))
    way = (there - here) / (there - here).norm()

    def gradient(x: Image) -> Image:
        image = torch.from_numpy(x).requires_grad_()
        ((front(image[None]) - here) * way).sum().backward()
        return image.grad.numpy()

    return momentum(case, gradient)
