"""Published rules that change the outputs of layers."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from tests.attacks.published_case import Case, Image, momentum
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


def on_the_way_to_black(case: Case) -> Iterator[Image]:
    for share in (1, 2 / 3, 1 / 3):
        yield share * (case.clean + 0.1 * case.drawn("normal", *case.clean.shape))


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
